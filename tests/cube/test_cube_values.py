"""Writing and reading values: exact shapes, types and places."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import zarr

from modhook.cube import Cube, open_cube, open_for_writing
from modhook.errors import CubeError
from modhook.plugin.variables import Variable


def test_a_value_lies_where_it_was_written(cube: Cube, run: dict[str, Any]) -> None:
    """One stage of one run changes, and nothing else."""
    cube.write("scores/accuracy", np.array([0.25, 0.5]), run, stage="control")
    tree = open_cube(cube.path)
    expected = np.full((2, 2, 3, 2), np.nan)
    expected[1, 1, 1] = [0.25, 0.5]
    np.testing.assert_array_equal(tree["scores/accuracy"].values, expected)
    np.testing.assert_array_equal(cube.read("scores/accuracy", run), expected[1, 1])
    np.testing.assert_array_equal(cube.read("scores/accuracy", run, stage="control", split="add"), 0.5)


@pytest.mark.parametrize(
    ("name", "value", "labels", "message"),
    [
        ("scores/acuracy", 1.0, {}, "did you mean 'scores/accuracy'?"),
        ("scores", 1.0, {}, "has no variable 'scores'"),
        ("scores/accuracy", np.zeros(3), {"stage": "add"}, "takes an array of shape (2,), but got one of shape (3,)"),
        ("scores/accuracy", np.zeros((2, 1)), {"stage": "add"}, "takes an array of shape (2,)"),
        ("scores/accuracy", np.zeros(2, np.float32), {"stage": "add"}, "declared as float64, but got float32"),
        ("scores/accuracy", torch.zeros(2), {"stage": "add"}, "declared as float64, but got float32"),
        ("scores/accuracy", np.zeros(2, np.int64), {"stage": "add"}, "declared as float64, but got int64"),
        ("scores/accuracy", np.zeros(2), {"stage": "ad"}, "has no stage 'ad' (did you mean 'add'?)"),
        ("scores/accuracy", np.zeros(2), {"step": 1}, "has no dimension 'step' of its own"),
        ("scores/accuracy", np.zeros(3), {"split": "iid"}, "cannot be written at one split alone"),
        ("overlap/kept", 1.5, {"stage": "add"}, "declared as int64, but got float64"),
        ("overlap/kept", True, {"stage": "add"}, "declared as int64, but got bool"),
        ("runs/threads", 2**40, {"stage": "add"}, "declared as int32"),
        ("runs/reason", 3, {"stage": "add"}, "declared as str"),
    ],
)
def test_values_that_do_not_fit(
    cube: Cube, run: dict[str, Any], name: str, value: Any, labels: dict[str, Any], message: str
) -> None:
    """Nothing is converted, broadcast or cut in silence, and nothing is written."""
    before = sorted(p for p in cube.path.rglob("*"))
    with pytest.raises(CubeError, match=re.escape(message)):
        cube.write(name, value, run, **labels)
    assert sorted(p for p in cube.path.rglob("*")) == before


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"seed": 3, "masks.beta": 1e-5}, "has no seed 3; it has: 1, 2"),
        ({"seed": "1", "masks.beta": 1e-5}, "has no seed '1'"),
        ({"seed": 1, "masks.beta": 2e-5}, "has no masks.beta 2e-05; it has: 1e-05, 3e-05"),
        ({"seed": 1}, "needs the run's 'masks.beta'"),
        ({"seed": 1, "masks.beta": 1e-5, "lr": 1}, "has no run dimension 'lr'"),
    ],
)
def test_unknown_runs(cube: Cube, run: dict[str, Any], message: str) -> None:
    """A run that the study does not have is named, with the ones it has."""
    with pytest.raises(CubeError, match=re.escape(message)):
        cube.write("scores/accuracy", np.zeros(2), run, stage="add")


def test_plain_numbers_take_the_declared_type(cube: Cube, run: dict[str, Any]) -> None:
    """Python numbers and lists carry no type of their own."""
    cube.write("scores/accuracy", [1, 0.5], run, stage="add")
    cube.write("overlap/kept", 7, run, stage="add")
    cube.set_status(run, "add", "done")
    assert cube.read("scores/accuracy", run, stage="add").tolist() == [1.0, 0.5]
    assert cube.read("overlap/kept", run, stage="add").item() == 7


def test_counts_are_unreadable_until_they_are_valid(cube: Cube, run: dict[str, Any]) -> None:
    """An integer that was not written would read 0: it is refused until its stage is done and it is there."""
    with pytest.raises(CubeError, match=r"stage 'add' of seed=2, masks.beta=3e-05 in .* is pending"):
        cube.read("overlap/kept", run, stage="add")
    cube.set_status(run, "add", "failed", reason="out of memory")
    with pytest.raises(CubeError, match=re.escape("is failed (out of memory)")):
        cube.read("overlap/kept", run, stage="add")
    cube.set_status(run, "add", "done")
    with pytest.raises(CubeError, match=r"overlap/kept of seed=2, masks.beta=3e-05, stage=add has not been written"):
        cube.read("overlap/kept", run, stage="add")
    cube.write("overlap/kept", 0, run, stage="add")
    assert cube.read("overlap/kept", run, stage="add").item() == 0
    with pytest.raises(CubeError, match="has not been written"):
        cube.read("overlap/kept", run)


def test_status_of_each_stage(cube: Cube, run: dict[str, Any]) -> None:
    """Status, reason, route and threads belong to one stage of one run."""
    cube.set_status(run, "control", "failed", reason="the loss is NaN – größer", route="vmap", threads=2)
    assert [cube.status(run, s) for s in ("unmasked", "control", "add")] == ["pending", "failed", "pending"]
    assert cube.reason(run, "control") == "the loss is NaN – größer"
    other = open_for_writing(cube.path)
    assert other.status({**run, "seed": 1}, "control") == "pending"
    assert other.read("runs/route", run).tolist() == ["", "vmap", ""]
    assert other.read("runs/threads", run).tolist() == [0, 2, 0]
    cube.set_status(run, "control", "pending")
    assert other.status(run, "control") == "pending"
    assert other.reason(run, "control") == ""
    with pytest.raises(CubeError, match="unknown status 'ok'"):
        cube.set_status(run, "control", "ok")  # type: ignore[arg-type]


def test_variables_of_every_kind(cube: Cube, run: dict[str, Any]) -> None:
    """Scalars, text, empty dimensions and constants keep their values, also the fill value written on purpose."""
    cube.add_variables(
        [
            Variable("odd/scalar", (), "float32", "d"),
            Variable("odd/text", ("word",), "str", "d"),
            Variable("odd/empty", ("stage", "none"), "int32", "d"),
            Variable("odd/constant", ("word",), "int64", "d", per_run=False, value=(3, 4)),
            Variable("odd/half", ("stage", "word"), "float16", "d"),
            Variable("odd/late", (), "int64", "d", per_run=False),
        ],
        labels={"odd": {"word": ["a.b", "c d"], "stage": ["add"]}},
        sizes={"odd": {"none": 0}},
    )
    cube.write("odd/scalar", np.float32(0.1), run)
    cube.write("odd/text", ["", "größer"], run)
    cube.write("odd/empty", np.zeros(0, np.int32), run, stage="add")
    cube.write("odd/half", np.array([[np.nan, -0.0]], np.float16), run)
    cube.write("odd/late", 5, {})
    cube.set_status(run, "add", "done")
    assert cube.read("odd/scalar", run) == np.float32(0.1)
    assert cube.read("odd/text", run).tolist() == ["", "größer"]
    assert cube.read("odd/text", run, word="c d").item() == "größer"
    assert cube.read("odd/empty", run, stage="add").shape == (0,)
    assert cube.read("odd/constant", {}).tolist() == [3, 4]
    assert cube.read("odd/late", {}).item() == 5
    assert np.signbit(cube.read("odd/half", run)[0, 1])
    with pytest.raises(CubeError, match="has not been written"):
        cube.read("odd/text", {**run, "seed": 1})
    assert xr.open_datatree(cube.path, engine="zarr")["odd/text"].sel(run).values.tolist() == ["", "größer"]


def test_misaligned_chunks_are_refused(cube: Cube, run: dict[str, Any]) -> None:
    """An array whose chunks hold several runs, made by other means, is not written: parallel writers would lose rows."""
    group = zarr.open_group(cube.path, mode="r+", use_consolidated=False)
    group.create_array(
        "scores/shared",
        shape=(2, 2),
        chunks=(2, 1),
        dtype="float64",
        fill_value=np.nan,
        dimension_names=["seed", "masks.beta"],
    )
    cube.grow_seeds(2)  # makes it known
    with pytest.raises(CubeError, match="cannot be written at one seed alone: a chunk holds 2 of them"):
        cube.write("scores/shared", 1.0, run)


def test_text_is_object_strings_and_stays_lazy(full_cube: Cube) -> None:
    """Labels and text can be aligned, filled and compared, which numpy's StringDType cannot."""
    tree = open_cube(full_cube.path)
    assert tree["scores/stage"].dtype == object
    assert tree["runs/route"].dtype == object
    assert tree["runs/route"].reindex(stage=["add", "new"]).sel(seed=1, stage="add").values.tolist() == ["loop", "loop"]
    assert tree["runs/route"].where(tree["runs/status"] == 1).isel(seed=[1], stage=[2, 0]).values.tolist() == [
        [["loop", "loop"]] * 2
    ]
    assert "..." in repr(tree["scores/accuracy"].variable) or not tree["scores/accuracy"].variable._in_memory
    assert tree.encoding["source"] == str(full_cube.path)


def test_floats_of_half_a_study(cube: Cube, run: dict[str, Any], fill: Any) -> None:
    """A half-finished study opens, and its means over seeds skip what is not there."""
    written = fill(cube, run)
    tree = open_cube(cube.path)
    mean = tree["scores/accuracy"].mean(["seed", "masks.beta"])
    np.testing.assert_allclose(mean.values, written["accuracy"], rtol=1e-15)
