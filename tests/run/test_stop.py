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


def test_a_stage_says_why_its_masks_are_not_to_be_trusted(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """In short while it runs, without a Python warning; the cube has the very sentences, and the report shows them."""
    options = ("--set", "study.seeds=1", "--set", "masks.steps=3", "--set", "masks.lr=0.1")
    code, _, err = modhook_run("run", tiny, "--out", tmp_path, *options)
    assert code == 0, err
    short = "before you trust it (see the report): No logit could cross 0; Everything or nothing is kept"
    assert [f"  {stage}: {short}" in err for stage in ("control", "add", "mul")] == [True] * 3
    assert "Warning" not in err
    with open_cube(tmp_path / "tiny.zarr") as cube:
        said = str(cube["history/trust"].sel(seed=1, stage="add").item()).splitlines()
    assert [line.partition(": ")[0] for line in said] == ["reach", "extreme"]
    assert "the learning rates of all steps (3) add up to 0.3" in said[0]
    assert modhook_run("report", tmp_path / "tiny.zarr", "--out", tmp_path / "r.html")[0] == 0
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Before you trust it" in page
    assert "3 masks: no logit could cross 0: each started at least 2 away from it" in page
