"""`modhook analyse`: an analysis of a finished cube, without training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from modhook.cube import open_cube, open_for_writing
from modhook.errors import RunError

Run = Callable[..., tuple[int, str, str]]
HALF = 'half_mask = { early = ["layer1.*"] }\n'


@pytest.fixture(scope="module")
def made(tiny_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study and its finished cube of two seeds, with no analysis but sharing."""
    from modhook.cli import main

    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.toml").write_text(tiny_text.replace("inverse = {}\n", ""))
    with pytest.raises(SystemExit) as stop:
        main(["run", str(folder / "tiny.toml"), "--out", str(folder)])
    assert stop.value.code == 0
    return folder


@pytest.fixture
def finished(made: Path, tiny: Path) -> Path:
    """A copy of the finished cube, beside the study file `tiny`."""
    shutil.copy(made / "tiny.toml", tiny)
    return Path(shutil.copytree(made / "tiny.zarr", tiny.with_name("tiny.zarr")))


def same(one: Path, other: Path) -> None:
    """Two cubes hold the same, the clock aside."""
    with open_cube(one) as a, open_cube(other) as b:
        assert a.attrs["study"] == b.attrs["study"]
        assert set(a.children) == set(b.children)
        for group in set(a.children) - {"timing", "masks"}:
            xr.testing.assert_identical(a[group].to_dataset().load(), b[group].to_dataset().load())


def test_later_equals_at_once(finished: Path, tiny: Path, tmp_path: Path, modhook_run: Run, contents: Any) -> None:
    """Analyses computed later give the cube that a study with them gives; a second time changes no byte and says so."""
    code, out, err = modhook_run("analyse", finished, "inverse")
    assert (code, "inverse computed for 2 runs" in out) == (0, True), err
    assert "run seed=2 (2 of 2)" in err
    assert "not add" in out, "its own table is shown"
    assert "scores/accuracy" not in out
    code, out, err = modhook_run("analyse", finished, "half_mask", "--set", 'early = ["layer1.*"]')
    assert code == 0, err
    tiny.write_text(tiny.read_text() + "inverse = {}\n" + HALF)
    modhook_run("run", tiny, "--out", tmp_path / "whole")
    same(finished, tmp_path / "whole/tiny.zarr")
    before = contents(finished)
    for again in (["half_mask"], ["half_mask", "--set", 'early=["layer1.*"]']):
        code, out, _ = modhook_run("analyse", finished, *again)
        assert (code, "half_mask is done already (2 runs)" in out) == (0, True)
    code, out, _ = modhook_run("run", tiny, "--out", tmp_path)
    assert (code, "0 stages computed, 8 were there already" in out) == (0, True)
    assert contents(finished) == before


def test_a_later_run_keeps_the_record(finished: Path, tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """More seeds of the study, whose file does not name the analysis, leave its options on record, and it continues with them."""
    modhook_run("analyse", finished, "half_mask", "--set", 'early=["layer1.*"]')
    code, _, err = modhook_run("run", tiny, "--out", tmp_path, "--set", "study.seeds=3")
    assert code == 0, err
    code, out, _ = modhook_run("analyse", finished, "half_mask")
    assert (code, "half_mask computed for 1 run, 2 had it already" in out) == (0, True)
    with open_cube(finished) as cube:
        assert cube.attrs["study"]["analyses"]["half_mask"] == {"early": ["layer1.*"], "random": 0}
        masked = cube["half_mask"]["masked"].sel(choice=1, half="early")
        assert (masked.sel(parameter="layer1.weight") == 1).all()
        assert (masked.sum("parameter") == 1).all()


def test_unfinished_runs_are_skipped(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """A run that is not finished is named and left; without any finished run nothing is written."""
    modhook_run("run", tiny, "--out", tmp_path, "--only", "seed=2")
    cube_at = tmp_path / "tiny.zarr"
    code, out, err = modhook_run("analyse", cube_at, "mask_histogram")
    assert (code, "mask_histogram computed for 1 run" in out) == (0, True)
    assert "Skipped: seed=1: not finished (unmasked pending, control pending, add pending, mul pending)" in err
    with open_cube(cube_at) as cube:
        assert cube["mask_histogram"]["all"].notnull().all("bin").values.tolist() == [False, True]
    shutil.rmtree(cube_at)
    (tmp_path / ".tiny.zarr.lock").unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modhook_plugins.protocols.posthoc.Posthoc.run", interrupt)
        modhook_run("run", tiny, "--out", tmp_path)
    code, _, err = modhook_run("analyse", cube_at, "mask_histogram")
    assert (code, "no run of" in err, "is finished (seed=1: unmasked pending" in err) == (2, True, True)
    assert "runs/mask_histogram" not in open_for_writing(cube_at).variables


def interrupt(*_: Any) -> None:
    """Ctrl-C."""
    raise KeyboardInterrupt


def test_interrupted_or_failed_analyses_continue(
    finished: Path, tmp_path: Path, modhook_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run has is kept; one that was interrupted, or whose analysis failed, is computed by the same command."""
    from modhook_plugins.analyses.inverse import Inverse

    compute = Inverse.compute

    def stops(self: Inverse, run: Any) -> dict[str, Any]:
        if run.labels["seed"] == 2:
            raise KeyboardInterrupt
        return compute(self, run)

    def fails(self: Inverse, run: Any) -> dict[str, Any]:
        raise RunError("the numbers went wrong.")

    with monkeypatch.context() as patch:
        patch.setattr(Inverse, "compute", stops)
        code, _, err = modhook_run("analyse", finished, "inverse")
        assert (code, "the same command continues" in err) == (130, True)
        patch.setattr(Inverse, "compute", fails)
        code, out, err = modhook_run("analyse", finished, "inverse")
        assert (code, "inverse computed for 0 runs, 1 had it already" in out) == (1, True)
        assert "Failed: seed=2, analysis inverse: the numbers went wrong." in err
    code, out, _ = modhook_run("analyse", finished, "inverse")
    assert (code, "inverse computed for 1 run, 1 had it already" in out) == (0, True)
    with open_cube(finished) as cube:
        assert cube["inverse"]["accuracy"].notnull().all()


MISTAKES = {
    "unknown analysis": (["half_msk"], "unknown analysis 'half_msk' (did you mean 'half_mask'?)"),
    "another task's": (["removed_output"], "'removed_output' needs a task that writes tokens, such as scan"),
    "unknown option": (["half_mask", "--set", "erly=1"], "half_mask.erly: unknown key (did you mean 'early'?)"),
    "wrong type": (["half_mask", "--set", "random=2.5"], "analyses.half_mask.random"),
    "no pair": (["half_mask", "--set", "random"], "--set analyses.half_mask.random: write --set key=value"),
    "no such layer": (
        ["half_mask", "--set", 'early=["layr1.*"]'],
        "matches no parameter (did you mean 'layer1'?)",
    ),
    "option of another": (["sharing", "--set", "random=2"], "analyses.sharing.random: unknown key"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_write_nothing(finished: Path, modhook_run: Run, contents: Any, mistake: str) -> None:
    """Each mistake is named in one sentence with exit code 2, and the cube keeps every byte."""
    arguments, said = MISTAKES[mistake]
    before = contents(finished)
    code, _, err = modhook_run("analyse", finished, *arguments)
    assert (code, said in err) == (2, True), err
    assert contents(finished) == before


CLASH = """
import numpy as np
from modhook import Analysis, Variable
class Mine(Analysis):
    def variables(self, task):
        return (Variable("mine/own", ("stage",), "float64", "d"), Variable("NAME", ("DIM",), "float64", "d"))
    def compute(self, run):
        return {"mine/own": np.zeros(len(run.stages)), "NAME": np.full(len(run.stages), 7.0)}
"""


@pytest.mark.parametrize(
    ("name", "dim", "said"),
    [
        ("overlap/density", "stage", "overlap/density is in PATH already, and not of the analysis 'Mine'"),
        ("mine/v", "stge", "declares mine/v over 'stge', which has no labels (did you mean 'stage'?); there are stage, split, parameter"),
    ],
)
def test_variables_of_others_and_unknown_dimensions(
    finished: Path, tmp_path: Path, modhook_run: Run, contents: Any, monkeypatch: Any, name: str, dim: str, said: str
) -> None:
    """An analysis that would write into another one's variable, or over a dimension that there is not, is refused; no byte changes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CLASH.replace("NAME", name).replace("DIM", dim))
    before = contents(finished)
    code, _, err = modhook_run("analyse", finished, "mine.py:Mine", "--trust")
    assert (code, said.replace("PATH", str(finished)) in err) == (2, True), err
    assert contents(finished) == before


def test_other_options_than_those_recorded(finished: Path, modhook_run: Run, contents: Any) -> None:
    """Runs that have the analysis keep its options: others are refused, and the difference is shown."""
    modhook_run("analyse", finished, "half_mask", "--set", "random=2")
    before = contents(finished)
    code, _, err = modhook_run("analyse", finished, "half_mask", "--set", "random=3")
    assert code == 2
    assert "has the analysis 'half_mask' with other options: analyses.half_mask.random is 2 there and 3 here" in err
    assert contents(finished) == before


def test_a_mistyped_option_of_the_study_can_be_mended(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """A pattern that stopped `modhook run` after the training is replaced by `analyse`; no run had been computed with it."""
    tiny.write_text(tiny.read_text().replace("inverse = {}", 'half_mask = { early = ["layr1.*"] }'))
    code, _, err = modhook_run("run", tiny, "--out", tmp_path, "--set", "study.seeds=1")
    assert (code, "matches no parameter" in err) == (1, True)
    code, out, err = modhook_run("analyse", tmp_path / "tiny.zarr", "half_mask", "--set", 'early=["layer1.*"]')
    assert (code, "half_mask computed for 1 run" in out) == (0, True), err
    tiny.write_text(tiny.read_text().replace("layr1", "layer1"))
    code, out, err = modhook_run("run", tiny, "--out", tmp_path, "--set", "study.seeds=1")
    assert (code, "0 stages computed" in out) == (0, True), err


def test_cubes_that_do_not_fit(finished: Path, tmp_path: Path, modhook_run: Run, monkeypatch: Any) -> None:
    """No cube, a damaged one, other data and another network are each named, and nothing is written."""
    code, _, err = modhook_run("analyse", tmp_path / "no.zarr", "sharing")
    assert (code, "there is no cube at" in err) == (2, True)
    document = json.loads((finished / "zarr.json").read_text())
    broken = json.loads(json.dumps(document))
    del broken["attributes"]["study"]
    (finished / "zarr.json").write_text(json.dumps(broken))
    code, _, err = modhook_run("analyse", finished, "inverse")
    assert (code, "damaged" in err or "checksum" in err) == (2, True), err
    (finished / "zarr.json").write_text(json.dumps(document))
    with monkeypatch.context() as patch:
        patch.setattr("modhook_tasks.addmul.SEED", 7)
        code, _, err = modhook_run("analyse", finished, "inverse")
        assert (code, "was computed from other data than those found now" in err) == (2, True)
    from modhook_plugins.networks.fnn import FNN

    build = FNN.build
    with monkeypatch.context() as patch:
        patch.setattr(FNN, "build", lambda self, shape: build(self, {**shape, "inputs": 43}))
        code, _, err = modhook_run("analyse", finished, "inverse")
        assert (code, "is not the one in" in err, "differs in layer1.weight" in err) == (2, True, True)
    assert "runs/inverse" not in open_for_writing(finished).variables


def test_sweeps_and_layouts(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """Every point of a sweep over networks is analysed with its own network."""
    tiny.write_text(tiny.read_text() + '\n[sweep]\n"model.hidden" = [[12, 8], [6, 6, 6]]\n')
    modhook_run("run", tiny, "--out", tmp_path, "--set", "study.seeds=1")
    code, out, err = modhook_run("analyse", tmp_path / "tiny.zarr", "half_mask")
    assert (code, "half_mask computed for 2 runs" in out) == (0, True), err
    with open_cube(tmp_path / "tiny.zarr") as cube:
        early = cube["half_mask"]["masked"].sel(seed=1, choice=1, half="early").to_series().unstack().T
        assert early.index[early["12-8"] == 1].tolist() == ["layer1.weight", "layer2.weight"]
        assert early.index[early["6x3"] == 1].tolist() == ["layer1.weight", "layer2.weight"]
        assert np.isfinite(cube["half_mask"]["accuracy"]).all()


def test_studies_without_masks(tmp_path: Path, modhook_run: Run) -> None:
    """A cube of the protocol baseline has no masks to analyse, and the error says so."""
    (tmp_path / "b.toml").write_text(
        '[study]\nname = "b"\nprotocol = "baseline"\n[task]\nname = "addmul"\ntrain_size = 50\nvalid_size = 20\n'
        '[model]\nname = "fnn"\nhidden = [4]\n[train]\nsteps = 2\nbatch = 4\nvalidate_every = 0\n'
    )
    modhook_run("run", tmp_path / "b.toml", "--out", tmp_path)
    code, _, err = modhook_run("analyse", tmp_path / "b.zarr", "sharing")
    assert (code, "has no masks to analyse: its protocol 'baseline' learns none" in err) == (2, True)
