"""Stages of a study that end when their mask has settled."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modhook
from modhook.cube import open_cube
from modhook_plugins.analyses.sharing import Sharing

Run = Callable[..., tuple[int, str, str]]


def test_a_settled_stage_ends(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """Its steps are in the cube and shown; rows that were not reached are NaN; what follows is computed as ever."""
    settings = (
        "study.seeds=1",
        'masks.stop="settled"',
        "masks.steps=200",
        "masks.lr=1.5",
        "masks.beta=1e3",
        "masks.validate_every=90",
    )
    code, _, err = modhook_run("run", tiny, "--out", tmp_path, *(a for s in settings for a in ("--set", s)))
    assert code == 0, err
    assert "history/steps" in modhook_run("show", tmp_path / "tiny.zarr", "--format", "csv")[1]
    with open_cube(tmp_path / "tiny.zarr") as cube:
        history = cube["history"].sel(seed=1)
        steps = {str(s): int(history["steps"].sel(stage=s)) for s in history["stage"].values}
        assert any(n < 200 for n in steps.values()), steps
        for stage, done in steps.items():
            losses = history["loss"].sel(stage=stage)
            assert np.isfinite(losses.sel(step=slice(None, done))).all()
            assert losses.sel(step=slice(done + 1, None)).isnull().all()
            assert np.isfinite(history["mask_loss"].sel(stage=stage, step=done))
            assert (f"{stage}: ended after {done} of 200 steps" in err) == (done < 200)
            changed = history["changed"].sel(stage=stage).values
            assert done == 200 or changed[done - 20 : done].sum() <= 1e-4 * 12 * 100
        assert np.isfinite(cube["scores/accuracy"]).all()


def test_ctrl_c_never_makes_half_a_result_of_a_fit_in_an_analysis(
    tiny: Path, tmp_path: Path, modhook_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fit that an analysis makes is not kept and must not return early either: the run ends, the analysis stays pending."""

    def compute(self: Any, run: Any) -> Any:
        def press(step: int, trainer: Any) -> None:
            signal.raise_signal(signal.SIGINT)

        modhook.fit_masks(
            run.model, run.batches("iid"), run.task.loss, samples=1, steps=4, callback=press, progress=False
        )
        raise AssertionError("it went on")

    monkeypatch.setattr(Sharing, "compute", compute)
    assert modhook_run("run", tiny, "--out", tmp_path, "--set", "study.seeds=1")[0] == 130
    with open_cube(tmp_path / "tiny.zarr") as cube:
        assert int(cube["runs/sharing"].sel(seed=1)) == 0
        assert "steps" not in cube["history"].data_vars
