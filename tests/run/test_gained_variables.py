"""An analysis whose newer version has more variables than the cube: `modhook analyse` adds and fills them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from modhook import Variable
from modhook.cube import masks_from, open_cube, open_for_writing
from modhook_plugins.analyses.inverse import Inverse

Run = Callable[..., tuple[int, str, str]]
OLD = (Inverse.variables, Inverse.compute)


def _variables(self: Inverse, task: Any) -> tuple[Variable, ...]:
    return (
        *OLD[0](self, task),
        Variable("inverse/kept", ("stage",), "int64", "number of weights that the stage's mask keeps"),
        Variable("inverse/loss", ("stage", "split"), "float64", "share that is wrong under the inverted mask"),
        Variable("counted/names", ("stage",), "str", "the stage again"),
    )


def _compute(self: Inverse, run: Any) -> dict[str, Any]:
    found = OLD[1](self, run)
    kept = np.array([run.masks[s].kept() for s in run.stages])
    names = np.array(run.stages, dtype=object)
    return {**found, "inverse/kept": kept, "inverse/loss": 1 - found["inverse/accuracy"], "counted/names": names}


@pytest.fixture
def cube(made: Path, tiny: Path) -> Path:
    """A copy of the finished cube, beside the study file `tiny`."""
    return Path(shutil.copytree(made / "tiny.zarr", tiny.with_name("tiny.zarr")))


@pytest.fixture
def newer(cube: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The newer version is installed from now on."""
    monkeypatch.setattr(Inverse, "variables", _variables)
    monkeypatch.setattr(Inverse, "compute", _compute)
    return monkeypatch


def _right(cube: Path, seeds: tuple[int, ...] = (1, 2)) -> None:
    """Compare what was added with what the cube's masks and scores say."""
    with open_cube(cube) as tree:
        inverse, names = tree["inverse"].to_dataset().load(), tree["counted/names"].load()
        xr.testing.assert_allclose(inverse["loss"].drop_vars("loss", errors="ignore"), 1 - inverse["accuracy"])
    for seed in seeds:
        for stage in ("control", "add", "mul"):
            bits = masks_from(cube, seed, stage)
            assert int(inverse["kept"].sel(seed=seed, stage=stage)) == sum(int(b.sum()) for b in bits.values())
            assert names.sel(seed=seed, stage=stage).item() == stage


def test_gained_variables_are_filled(cube: Path, newer: Any, tiny: Path, modhook_run: Run, contents: Any) -> None:
    """Every run gets them, what it had keeps its bits, its records are whole, and a second time changes no byte."""
    before = contents(cube)
    code, out, err = modhook_run("analyse", cube, "inverse")
    assert (code, "inverse computed for 2 runs" in out) == (0, True), err
    assert "the cube gets inverse/kept, inverse/loss, counted/names, which the analysis inverse has now" in err
    _right(cube)
    after = contents(cube)
    changed = {k for k in before if after.get(k) != before[k]}
    assert {str(k).partition("/c/")[0] for k in changed if "/c/" in str(k)} <= {"runs/digest"}, changed
    assert modhook_run("show", cube, "--verify")[0] == 0
    code, out, _ = modhook_run("analyse", cube, "inverse")
    assert (code, "inverse is done already (2 runs)" in out) == (0, True)
    code, out, _ = modhook_run("run", tiny, "--out", cube.parent)
    assert (code, "0 stages computed" in out) == (0, True)
    assert contents(cube) == after


def test_a_kill_between_two_runs_and_between_two_writes(cube: Path, newer: Any, modhook_run: Run) -> None:
    """Whatever was written when it was stopped, the same command completes it."""
    from modhook.cube import Cube

    write = Cube.write

    def stops(self: Cube, name: str, value: Any, run: Any, **labels: Any) -> None:
        if (name, run.get("seed")) == ("inverse/loss", 2):
            raise KeyboardInterrupt
        write(self, name, value, run, **labels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cube, "write", stops)
        assert modhook_run("analyse", cube, "inverse")[0] == 130
    assert [int(open_for_writing(cube).read("runs/inverse", {"seed": s})) for s in (1, 2)] == [1, 0]
    code, out, err = modhook_run("analyse", cube, "inverse")
    assert (code, "inverse computed for 1 run, 1 had it already" in out) == (0, True), err
    _right(cube)


def test_other_values_are_refused(cube: Path, newer: Any, modhook_run: Run, contents: Any) -> None:
    """A version that computes the old variables otherwise is named in one sentence, and the cube keeps every byte."""
    before = contents(cube)
    newer.setattr(Inverse, "compute", lambda self, run: {**_compute(self, run), "inverse/accuracy": _half(run)})
    code, _, err = modhook_run("analyse", cube, "inverse")
    assert code == 2
    assert "the analysis 'inverse' computes another inverse/accuracy of seed=1 now than" in err
    assert contents(cube) == before


def _half(run: Any) -> Any:
    return np.full((len(run.stages), len(run.task.splits)), 0.5)


def test_a_failure_leaves_what_there_was(cube: Path, newer: Any, modhook_run: Run, contents: Any) -> None:
    """A newer version that fails marks no run failed that has the analysis."""
    before = contents(cube)
    newer.setattr(Inverse, "compute", lambda self, run: 1 / 0)
    code, out, err = modhook_run("analyse", cube, "inverse")
    assert (code, "inverse computed for 0 runs" in out) == (1, True)
    assert err.count("Failed: seed=") == 2
    assert contents(cube) == before


def test_more_seeds_under_a_newer_version(cube: Path, newer: Any, tiny: Path, modhook_run: Run) -> None:
    """`modhook run` makes room for them, computes them for new runs, and names the command for the others."""
    code, _, err = modhook_run("run", tiny, "--out", cube.parent, "--set", "study.seeds=3")
    assert code == 0, err
    assert (
        f"which the analysis inverse has now; runs that have it already get them by `modhook analyse {cube} inverse`"
        in err
    )
    code, out, err = modhook_run("analyse", cube, "inverse")
    assert (code, "inverse computed for 2 runs, 1 had it already" in out) == (0, True), err
    _right(cube, (1, 2, 3))
