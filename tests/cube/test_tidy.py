"""A cube as tidy tables: every finished value once, at its labels, and nothing that was never written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import modhook
from modhook.cube import Cube, create, open_cube
from modhook.errors import CubeError, UserError
from modhook.plugin.variables import Variable


def test_every_value_stands_at_its_labels(full_cube: Cube) -> None:
    """One row per value, with a column per dimension in order, from a path, a tree and an open cube."""
    tree = open_cube(full_cube.path)
    for given in (full_cube.path, str(full_cube.path), tree, full_cube):
        table = modhook.tidy(given, "scores/accuracy")
        assert list(table) == ["seed", "masks.beta", "stage", "split", "metric", "value"]
        assert len(table) == tree["scores/accuracy"].size == 24
        assert set(table["metric"]) == {"accuracy"}
        for row in table.to_dict("records"):
            at = {d: row[d] for d in ("seed", "masks.beta", "stage", "split")}
            assert row["value"] == float(tree["scores/accuracy"].sel(at))


def test_only_what_is_finished_is_in_it(cube: Cube, run: dict[str, Any], fill: Callable[..., Any]) -> None:
    """Stages that are pending, whole runs without values and whole numbers that read 0 are left out; the state of runs is not."""
    assert len(modhook.tidy(cube.path, "scores/accuracy")) == len(modhook.tidy(cube.path, "overlap/kept")) == 0
    written = fill(cube, run)
    cube.set_status(run, "add", "failed", "a reason")
    table = modhook.tidy(cube.path, "scores/accuracy")
    assert set(zip(table["seed"], table["masks.beta"], table["stage"], strict=True)) == {
        (2, 3e-5, "unmasked"),
        (2, 3e-5, "control"),
    }
    assert table["value"].tolist() == written["accuracy"][:2].ravel().tolist()
    kept = modhook.tidy(cube.path, "overlap/kept")
    assert kept[["seed", "stage", "metric"]].values.tolist() == [[2, "control", "kept"]]
    assert kept["value"].tolist() == [int((written["logits"]["control"]["l.weight"] >= 0).sum())]
    assert kept["value"].dtype == np.int64
    assert len(modhook.tidy(cube.path, "runs/status")) == 2 * 2 * 3
    assert "a reason" in set(modhook.tidy(cube.path, "runs/reason")["value"])


def test_overlaps_and_several_variables(plan: Callable[..., Any], tmp_path: Any, fill: Callable[..., Any]) -> None:
    """`other` is a column like any; of several variables each keeps its own dimensions; NaN of a finished stage stays."""
    made = plan()
    pair = Variable("overlap/iou_total", ("stage", "other"), "float64", "IoU")
    extra = Variable("overlap/accuracy", ("stage",), "float64", "of the same name")
    plain = Variable("overlap/fixed", ("other",), "float64", "not per run", per_run=False, value=(0.5, 0.25))
    labels = {**made.labels, "overlap": {"stage": ["control", "add"], "other": ["control", "add"]}}
    cube = create(tmp_path / "c.zarr", plan(variables=(*made.variables, pair, extra, plain), labels=labels))
    run = {"seed": 1, "masks.beta": 1e-5}
    fill(cube, run)
    cube.write("overlap/iou_total", np.array([[1.0, 0.25], [0.25, np.nan]]), run)
    table = modhook.tidy(cube.path, "overlap/iou_total")
    assert table[["stage", "other"]].values.tolist() == [
        ["control", "control"], ["control", "add"], ["add", "control"], ["add", "add"],
    ]  # fmt: skip
    np.testing.assert_array_equal(table["value"], [1.0, 0.25, 0.25, np.nan])
    both = modhook.tidy(cube.path, "scores/accuracy", "overlap/iou_total")
    assert list(both) == ["seed", "masks.beta", "stage", "split", "other", "metric", "value"]
    assert both.groupby("metric").size().to_dict() == {"accuracy": 6, "iou_total": 4}
    assert both[both["metric"] == "accuracy"]["other"].isna().all()
    cube.write("overlap/accuracy", np.array([0.5, 0.5]), run)
    same = modhook.tidy(cube.path, "scores/accuracy", "overlap/accuracy")
    assert set(same["metric"]) == {"scores/accuracy", "overlap/accuracy"}
    assert modhook.tidy(cube.path, "overlap/fixed").values.tolist() == [
        ["control", "fixed", 0.5],
        ["add", "fixed", 0.25],
    ]


def test_it_is_what_xarray_says(full_cube: Cube) -> None:
    """Back in xarray the table is the variable."""
    tree = open_cube(full_cube.path)
    table = modhook.tidy(tree, "scores/accuracy")
    back = table.set_index(["seed", "masks.beta", "stage", "split"])["value"].to_xarray()
    xr.testing.assert_equal(back.reindex_like(tree["scores/accuracy"]), tree["scores/accuracy"].load())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), r"name a variable of the cube, such as 'scores/accuracy'; it has: .*overlap/kept"),
        (("scores/acuracy",), r"no variable 'scores/acuracy' \(did you mean 'scores/accuracy'\?\); it has: "),
        (("scores",), "'scores' is a group of the cube; name one of its variables: scores/accuracy"),
        ((3,), "the name of a variable must be a text such as 'scores/accuracy', not 3"),
        ((["scores/accuracy"],), "the name of a variable must be a text"),
    ],
)
def test_unknown_names_get_the_list(full_cube: Cube, names: tuple[Any, ...], message: str) -> None:
    """No name, a wrong one, a group, no text: one sentence with what there is."""
    with pytest.raises(UserError, match=message):
        modhook.tidy(full_cube.path, *names)


def test_every_variable_is_listed_where_none_is_named(full_cube: Cube) -> None:
    """The list is whole, however many there are."""
    with open_cube(full_cube.path) as tree:
        for number in range(70):
            tree[f"a/v{number}"] = tree["scores/accuracy"]
        with pytest.raises(UserError, match=r"it has: .*, a/v69, masks/") as said:
            modhook.tidy(tree)
    assert " in all)" not in str(said.value)


def test_no_cube_is_said(tmp_path: Any) -> None:
    """A path that is no cube is open_cube's own sentence."""
    with pytest.raises(CubeError):
        modhook.tidy(tmp_path / "nothing.zarr", "scores/accuracy")
    for wrong in (3, None, {"a": 1}):
        with pytest.raises(UserError, match="the cube must be a path or a URL, not"):
            modhook.tidy(wrong, "scores/accuracy")  # type: ignore[arg-type]
    with pytest.raises(CubeError, match="no folder can have this name"):
        modhook.open_cube("a\0b")
