"""Cubes of one study whose runs were computed apart, in one packed cube."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import modhook
from modhook.cli import main
from modhook.cube import Cube, Plan, create, open_for_writing, pack
from modhook.cube.metadata import CHECKSUM, checksum
from modhook.errors import CubeError, UserError
from modhook.plugin.variables import Variable
from modhook.run.join import join

RUNS: list[dict[str, Any]] = [{"seed": s, "masks.beta": b} for s, b in itertools.product((1, 2), (1e-5, 3e-5))]
EXTRA = (
    Variable("probe/value", ("stage",), "float64", "a number of an analysis"),
    Variable("runs/probe", (), "uint8", "how far the analysis is"),
)


def test_runs_computed_apart_give_the_bytes_of_one_cube(
    full_cube: Cube, plan: Callable[..., Plan], fill: Callable[..., Any], tmp_path: Path
) -> None:
    """Whatever cube has which run, packed or not, and in any order: the file is that of the cube that has computed all of them."""
    parts = []
    for name, some in (("a", RUNS[:1]), ("b", RUNS[3:]), ("c", RUNS[1:3])):
        part = create(tmp_path / f"{name}.zarr", plan())
        for run in some:
            fill(part, run)
        parts.append(part.path)
    parts[1] = pack(parts[1]).path
    whole = pack(full_cube.path, tmp_path / "whole.zip").path
    made = join(parts, tmp_path / "joined.zip")
    assert (made.runs, made.pack.done, made.pack.stages) == ((1, 1, 2), 12, 12)
    assert made.pack.path.read_bytes() == whole.read_bytes()
    half = join(parts[:2], tmp_path / "half.zip").pack.path
    again = join([half, parts[2]], half, overwrite=True)
    assert again.runs == (2, 2)
    assert half.read_bytes() == whole.read_bytes()


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ended=st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=2, max_size=3))
def test_each_run_is_taken_whole_from_where_it_is_farthest(
    plan: Callable[..., Plan], fill: Callable[..., Any], tmp_path: Path, ended: list[list[int]]
) -> None:
    """Of cubes in which any number of the stages of any run is done: every value is that of the first cube that has most of them."""
    stages, parts = ["unmasked", "control", "add"], []
    number = len(list(tmp_path.iterdir()))
    for n, dones in enumerate(ended):
        part = create(tmp_path / f"{number}-{n}.zarr", plan())
        for run, done in zip(RUNS, dones, strict=True):
            fill(part, run, salt=n)
            for stage in stages[done:]:
                part.set_status(run, stage, "pending")
        parts.append(part)
    made = Cube(join([p.path for p in parts], tmp_path / f"{number}.zip").pack.path, read_only=True)
    for i, run in enumerate(RUNS):
        best = max(dones[i] for dones in ended)
        owner = next(p for p, dones in zip(parts, ended, strict=True) if dones[i] == best)
        assert made.survey(run) == []
        assert [made.status(run, s) for s in stages] == ["done"] * best + ["pending"] * (3 - best)
        np.testing.assert_array_equal(made.read("scores/accuracy", run), owner.read("scores/accuracy", run))
        if best == 3:
            assert modhook.masks_from(made.path, run["seed"], "add", beta=run["masks.beta"]) == modhook.masks_from(
                owner.path, run["seed"], "add", beta=run["masks.beta"]
            )


def test_more_seeds_and_more_analyses_are_united(plan: Callable[..., Plan], fill: Callable[..., Any], tmp_path: Path) -> None:
    """Three seeds here, an analysis there: the file has both, and what a run lacks is pending and missing."""
    first = create(tmp_path / "first.zarr", plan(attrs={"study": {"name": "small", "analyses": {"probe": {}}}, "versions": {"torch": "2"}}))
    first.add_variables(EXTRA, {"probe": {"stage": ["control", "add"]}})
    second = create(tmp_path / "second.zarr", plan(3, attrs={"study": {"name": "small"}, "versions": {"torch": "3"}}))
    fill(first, RUNS[0])
    first.write("probe/value", np.array([1.0, 2.0]), RUNS[0])
    first.remember(RUNS[0], "probe", analysis=True)
    first.write("runs/probe", np.uint8(1), RUNS[0])
    fill(second, RUNS[0], salt=1)  # as far, but without the analysis
    last = {"seed": 3, "masks.beta": 1e-5}
    fill(second, last)
    made = join([second.path, first.path], tmp_path / "joined.zip")
    assert made.runs == (1, 1)
    tree = modhook.open_cube(made.pack.path)
    assert tree.attrs["study"] == {"name": "small", "analyses": {"probe": {}}}
    assert tree.attrs["versions"] == {"torch": "3, 2"}
    again = join([made.pack.path, first.path, second.path], tmp_path / "again.zip").pack.path
    assert again.read_bytes() == made.pack.path.read_bytes()
    for group in ("scores", "probe", "runs"):
        assert list(tree[group]["seed"].to_numpy()) == [1, 2, 3]
    assert list(tree["probe/value"].sel(RUNS[0]).to_numpy()) == [1.0, 2.0]
    assert np.isnan(tree["probe/value"].sel(last)).all()
    assert int(tree["runs/probe"].sum()) == 1
    np.testing.assert_array_equal(tree["scores/accuracy"].sel(last), second.read("scores/accuracy", last))
    np.testing.assert_array_equal(tree["scores/accuracy"].sel(RUNS[0]), first.read("scores/accuracy", RUNS[0]))


def test_a_failed_stage_is_not_lost(cube: Cube, plan: Callable[..., Plan], tmp_path: Path) -> None:
    """A run that failed in one cube and was never begun in the other: the failure and its reason, in whatever order they are named."""
    cube.set_status(RUNS[1], "unmasked", "failed", "diverged at step 3")
    other = create(tmp_path / "other.zarr", plan())
    for order in ((cube.path, other.path), (other.path, cube.path)):
        made = join(order, tmp_path / "joined.zip", overwrite=True)
        assert made.runs == (int(order[0] == cube.path), int(order[1] == cube.path))
        joined = Cube(made.pack.path, read_only=True)
        assert joined.status(RUNS[1], "unmasked") == "failed"
        assert joined.read("runs/reason", RUNS[1], stage="unmasked") == "diverged at step 3"


def test_the_command_says_what_came_from_where(
    full_cube: Cube, cube: Cube, fill: Callable[..., Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`modhook join`: how many runs each cube gave; one cube alone ends with exit code 2 and a sentence."""
    fill(cube, RUNS[0])
    with pytest.raises(SystemExit) as end:
        main(["join", str(tmp_path / "out.zip"), str(cube.path), str(full_cube.path)])
    assert end.value.code == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[:2] == [f"1 run from {cube.path}", f"3 runs from {full_cube.path}"]
    assert "out.zip: " in said.out
    assert "without weights and logits" in said.out
    with pytest.raises(SystemExit) as end:
        main(["join", str(tmp_path / "alone.zip"), str(cube.path)])
    assert end.value.code == 2
    assert "give two cubes or more" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["join", "s3://bucket/out.zip", str(cube.path), str(full_cube.path)])
    assert end.value.code == 2
    assert "is a URL, but the file is written on this machine" in capsys.readouterr().err


def test_what_is_not_the_same_study_is_refused(
    full_cube: Cube, plan: Callable[..., Plan], fill: Callable[..., Any], tmp_path: Path
) -> None:
    """Settings, data, code, swept values, controls, damage, no second cube, a file that is there: one sentence, no file, no folder."""

    def refused(match: str, *cubes: Any, kind: type[Exception] = CubeError) -> None:
        with pytest.raises(kind, match=match):
            join([full_cube.path, *cubes], tmp_path / "new" / "er" / "out.zip")
        assert not (tmp_path / "new").exists()

    def other(name: str, **changes: Any) -> Path:
        path = create(tmp_path / f"{name}.zarr", plan(**changes)).path
        assert isinstance(path, Path)
        return path

    refused("nothing to join: give two cubes", kind=UserError)
    study = {"name": "small", "masks": {"lr": 0.1}}
    told = r"holds another study than .*: masks is absent in .*small.zarr and {lr = 0.1} in .*lr.zarr"
    refused(told, other("lr", attrs={"study": study}))
    here = {"study": {"name": "small"}}
    third = other("third", attrs={"study": {"name": "small", "analyses": {"probe": {"a": 1}}}})
    fourth = other("fourth", attrs={"study": {"name": "small", "analyses": {"probe": {"a": 2}}}})
    refused("fourth.zarr holds another study than .*third.zarr: analyses.probe.a is 1 in", third, fourth)  # the first has no probe
    refused("computed with other data than", other("data", attrs={**here, "data": {"0": "abc"}}))
    for name, told in (("code", "other code of"), ("off", "other weights in"), ("loaded", "other weights in")):
        sums = [{"mine:T" if name == "code" else "mine:T, layout0": {"a": d}} for d in "xy"]
        ones = [other(f"{name}{n}", attrs={**here, name: found}) for n, found in enumerate(sums)]
        refused(f"was computed with {told} 'mine:T'", *ones)
        assert join([full_cube.path, ones[0]], tmp_path / f"{name}.zip").runs == (4, 0)  # only one of them names it
        assert modhook.open_cube(tmp_path / f"{name}.zip").attrs[name] == sums[0]
    refused("other labels of masks.beta than", other("beta", run_dims={"seed": [1, 2], "masks.beta": [1e-5, 1e-4]}))
    several = {"scores": {"stage": ["unmasked", "control", "add", "x"], "split": ["iid", "add"]}}
    refused("give both the same controls", other("stages", labels={**plan().labels, **several}))
    unnamed = open_for_writing(other("unnamed"))
    unnamed.set_attrs(study=1)
    refused("unnamed.zarr is damaged: its attribute 'study' is missing", unnamed.path)
    old = other("old")
    document = json.loads((old / "zarr.json").read_text())
    del document["consolidated_metadata"]["metadata"]["runs/digest"]
    document["attributes"][CHECKSUM] = checksum(document)
    (old / "zarr.json").write_text(json.dumps(document))
    refused("old.zarr was written by an older version, which kept no record", old)
    (tmp_path / "link.zarr").symlink_to(other("target"))
    with pytest.raises(UserError, match="is inside the cube"):
        join([full_cube.path, tmp_path / "target.zarr"], tmp_path / "link.zarr/out.zip")
    damaged = create(tmp_path / "damaged.zarr", plan())
    fill(damaged, RUNS[0])
    next(f for f in (tmp_path / "damaged.zarr/scores/accuracy/c/0/0").rglob("*") if f.is_file()).unlink()
    refused("has lost files: stage '.*' of seed=1, masks.beta=1e-05 is marked done", damaged.path)
    (tmp_path / "kept.zip").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        join([full_cube.path, full_cube.path], tmp_path / "kept.zip")
    assert (tmp_path / "kept.zip").read_text() == "mine"


def test_an_option_that_an_older_cube_does_not_know_is_no_difference(tmp_path: Path) -> None:
    """Two cubes of a real study, of which one was written before an option existed: they are joined in either order."""
    from modhook.study import load, resolved
    from modhook.study.source import shipped_files

    study = resolved(load(shipped_files()["addmul_fnn"]))
    old = json.loads(json.dumps(study))
    del old["masks"]["beta_start"]
    parts = []
    for name, table in (("new", study), ("old", old)):
        status = (Variable("scores/accuracy", ("stage",), "float64", "d"),)
        plan = Plan({"study": table}, {"seed": [1]}, status, {"scores": {"stage": ["unmasked"]}})
        parts.append(create(tmp_path / f"{name}.zarr", plan).path)
    for order in (parts, parts[::-1]):
        assert join(order, tmp_path / "joined.zip", overwrite=True).runs == (0, 0)
