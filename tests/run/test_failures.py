"""Numbers that go wrong: the run is marked with its reason, the others go on."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modhook.cube import open_cube
from modhook.errors import RunError, UserError
from modhook.run.failure import reason_of, require_finite, stops_the_study
from modhook_plugins.analyses.sharing import Sharing
from modhook_tasks.addmul import AddMul

Command = Callable[..., tuple[int, str, str]]
LOSS = AddMul.loss


def test_a_mask_stage_that_diverges(tiny: Path, tmp_path: Path, modhook_run: Command) -> None:
    """A huge learning rate of the logits leaves nothing finite: stage failed with its reason, the other point is complete."""
    tiny.write_text(tiny.read_text() + '\n[sweep]\n"masks.lr" = [1e39, 0.8]\n')
    code, out, err = modhook_run("run", tiny, "--out", tmp_path, "--set", "study.seeds=1")
    assert code == 1, err
    assert "Failed: seed=1, masks.lr=1e+39, control: " in err
    assert "5 stages computed" in out  # one base training of the failed run, four stages of the other
    with open_cube(tmp_path / "tiny.zarr") as cube:
        runs = cube["runs"].sel(seed=1)
        assert runs["status"].sel(stage=["unmasked", "control", "add", "mul"]).values.tolist() == [
            [1, 2, 0, 0],
            [1] * 4,
        ]
        assert "not finite" in str(runs["reason"].sel(stage="control").values[0]) or "step" in str(
            runs["reason"].sel(stage="control").values[0]
        )
        assert runs["sharing"].values.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyError("digit"), f"KeyError: 'digit' ({__file__}, line "),
        (MemoryError(), "out of memory (MemoryError); use a smaller batch"),
        (torch.OutOfMemoryError("CUDA out of memory."), "out of memory (CUDA out of memory.); use a smaller batch"),
    ],
)
def test_any_error_of_a_loss_fails_its_run_alone(
    tiny: Path,
    tmp_path: Path,
    modhook_run: Command,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: Callable[..., Path],
    contents: Any,
    error: Exception,
    expected: str,
) -> None:
    """Whatever a task's loss raises in one run is that run's reason; once mended, --retry-failed gives the cube of a clean run."""
    calls = 0

    def broken(self: AddMul, net: Any, batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:  # in the base training of the first seed
            raise error
        return LOSS(self, net, batch)

    with monkeypatch.context() as patch:
        patch.setattr(AddMul, "loss", broken)
        code, out, err = modhook_run("run", tiny, "--out", tmp_path)
    assert (code, "4 stages computed" in out) == (1, True), err
    assert f"Failed: seed=1, unmasked: {expected}" in err
    code, out, err = modhook_run("run", tiny, "--out", tmp_path)
    assert (code, "0 stages computed" in out, "failed before" in err) == (1, True, True)
    code, out, err = modhook_run("run", tiny, "--out", tmp_path, "--retry-failed")
    assert (code, "4 stages computed, 4 were there" in out) == (0, True), err
    assert contents(tmp_path / "tiny.zarr") == contents(undisturbed(tiny))


def test_the_cpu_allocator_runs_out(
    tiny: Path, tmp_path: Path, modhook_run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tensor that no machine can hold, asked for in a loss, is named as a lack of memory."""

    def greedy(self: AddMul, net: Any, batch: Any) -> torch.Tensor:
        return LOSS(self, net, batch) + torch.empty(2**60).sum()

    monkeypatch.setattr(AddMul, "loss", greedy)
    code, _, err = modhook_run("run", tiny, "--out", tmp_path, "--set", "study.seeds=1")
    assert (code, "Failed: seed=1, unmasked: out of memory (" in err) == (1, True), err


def test_a_failed_analysis_leaves_the_others(
    tiny: Path, tmp_path: Path, modhook_run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An analysis that raises is marked failed with its reason, the next one is computed; --retry-failed computes it again."""
    with monkeypatch.context() as patch:
        patch.setattr(Sharing, "compute", lambda self, run: {}["nothing"])
        code, out, err = modhook_run("run", tiny, "--out", tmp_path, "--set", "study.seeds=1")
    assert (code, "4 stages computed" in out) == (1, True), err
    assert f"Failed: seed=1, analysis sharing: KeyError: 'nothing' ({__file__}, line " in err
    with open_cube(tmp_path / "tiny.zarr") as cube:
        runs = cube["runs"].sel(seed=1)
        assert (int(runs["sharing"]), int(runs["inverse"])) == (2, 1)
        assert "KeyError: 'nothing'" in str(runs["sharing_reason"].values)
    code, _, err = modhook_run("run", tiny, "--out", tmp_path, "--set", "study.seeds=1")
    assert (code, "analysis sharing: failed before (KeyError" in err) == (1, True)
    code, _, err = modhook_run("run", tiny, "--out", tmp_path, "--set", "study.seeds=1", "--retry-failed")
    assert code == 0, err
    with open_cube(tmp_path / "tiny.zarr") as cube:
        assert int(cube["runs"]["sharing"].sel(seed=1)) == 1
        assert str(cube["runs"]["sharing_reason"].sel(seed=1).values) == ""


def test_what_an_analysis_returns_and_cannot_be_used(
    tiny: Path, tmp_path: Path, modhook_run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails that analysis with one sentence that names it; nothing of it is written, and a repaired one is computed."""
    compute = Sharing.compute
    last = "overlap/iou_total"

    def wrong(found: dict[str, Any], value: Any) -> dict[str, Any]:
        return {name: array for name, array in found.items() if name != last} | {last: value}

    cases: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
        (lambda found: None, "computed nothing, but must return {variable: array}"),
        (lambda found: [1.0], "computed list, but must return {variable: array}"),
        (lambda found: {"overlap/mine": 1.0}, "but computed overlap/mine"),
        (lambda found: wrong(found, np.zeros(7)), f"{last} takes an array of shape (3, 3), but got one of shape (7,)"),
        (lambda found: wrong(found, np.full((3, 3), "a")), f"{last} is declared as float64, but got <U1"),
        (lambda found: wrong(found, [[1.0], [1.0, 2.0]]), f"{last} cannot be made an array (ValueError: "),
    ]
    run = ("run", tiny, "--out", tmp_path, "--set", "study.seeds=1", "--retry-failed")
    for computed, said in cases:
        with monkeypatch.context() as patch:
            patch.setattr(Sharing, "compute", lambda self, run, computed=computed: computed(compute(self, run)))
            code, _, err = modhook_run(*run)
        line = next(line for line in err.splitlines() if line.startswith("Failed: "))
        assert (code, said in line) == (1, True), err
        assert line.startswith("Failed: seed=1, analysis sharing: analysis 'sharing'")
        assert line.endswith("; its plugin needs a repair.")
        with open_cube(tmp_path / "tiny.zarr") as cube:
            assert [int(cube["runs"][name].sel(seed=1)) for name in ("sharing", "inverse")] == [2, 1]
            assert bool(cube["overlap/shared_total"].sel(seed=1).isnull().all()), said
    assert modhook_run(*run)[0] == 0
    with open_cube(tmp_path / "tiny.zarr") as cube:
        assert not bool(cube["overlap/shared_total"].sel(seed=1).isnull().all())


def test_what_is_finite_and_what_stops_a_study() -> None:
    """NaN and infinity are divergence, integers never; a full disk stops all, a user's mistake is told as it is."""
    require_finite({"a": torch.ones(2), "count": torch.tensor(3)}, "the weights in")
    for bad in (float("nan"), float("inf")):
        with pytest.raises(RunError, match="the weights in 'a' are not finite: the training has diverged"):
            require_finite({"a": torch.tensor([1.0, bad])}, "the weights in")
    assert stops_the_study(OSError(errno.ENOSPC, "No space left on device"))
    assert not stops_the_study(FileNotFoundError(errno.ENOENT, "gone"))
    assert reason_of(UserError("a sentence.")) == "a sentence."
    assert reason_of(ValueError("bad \ud800 text")).startswith("ValueError: bad ? text")
