"""Laying out a cube: all of it or nothing, and openable by anybody."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import LocalStore

from modhook.cube import RUN_VARIABLES, Cube, Plan, create
from modhook.errors import CubeError
from modhook.plugin.variables import Variable

MakePlan = Callable[..., Plan]


def one(variable: Variable, plan: MakePlan, **labels: Any) -> Plan:
    """Return a plan with one own variable and its group's labels."""
    return plan(
        variables=(variable,),
        labels={"scores": {"stage": ["unmasked"]}, variable.group: {"stage": ["unmasked"], **labels}},
        sizes={},
    )


def test_plain_xarray_opens_an_empty_cube(cube: Cube) -> None:
    """A stranger without modhook opens the tree without a warning, and unwritten floats are NaN."""
    tree = xr.open_datatree(cube.path, engine="zarr")
    assert {"scores", "masks", "overlap", "runs", "timing"} == set(tree.children)
    assert tree["scores/accuracy"].dims == ("seed", "masks.beta", "stage", "split")
    assert tree["scores/accuracy"].shape == (2, 2, 3, 2)
    for name in ("scores/accuracy", "timing/seconds", "masks/layout0/logits", "masks/layout0/weights"):
        assert np.isnan(tree[name].values).all(), name
    assert (tree["runs/status"].values == 0).all()
    assert tree.attrs["study"] == {"name": "small"}
    assert tree.attrs["modhook_format"] == 2


def test_every_group_has_the_runs_coordinates(cube: Cube) -> None:
    """Each group can be opened alone with its seed and sweep labels."""
    groups = [
        name
        for name, node in zarr.open_group(cube.path, mode="r").members(max_depth=None)
        if isinstance(node, zarr.Group)
    ]
    assert "masks/layout0" in groups
    for group in ["", *groups]:
        alone = xr.open_zarr(cube.path, group=group or None, consolidated=False, chunks=None)
        assert alone["seed"].values.tolist() == [1, 2], group
        assert alone["masks.beta"].values.tolist() == [1e-5, 3e-5], group


def test_every_array_ends_with_a_checksum(cube: Cube) -> None:
    """No array, coordinates included, is stored without crc32c, and none is stored as numpy's fixed-width text."""
    arrays = [
        (n, a) for n, a in zarr.open_group(cube.path, mode="r").members(max_depth=None) if isinstance(a, zarr.Array)
    ]
    assert len(arrays) > 30
    for name, array in arrays:
        assert array.metadata.to_dict()["codecs"][-1]["name"] == "crc32c", name
        assert array.metadata.to_dict()["data_type"] in ("string", "float64", "float32", "int64", "int32", "uint8"), (
            name
        )


def test_chunks_never_span_runs_or_stages(cube: Cube) -> None:
    """Two writers of different runs or stages never share a file."""
    for name, array in zarr.open_group(cube.path, mode="r").members(max_depth=None):
        if isinstance(array, zarr.Array) and "/" in name and array.ndim > 1:
            sizes = dict(zip(array.metadata.dimension_names, array.chunks, strict=True))
            assert {d: sizes[d] for d in ("seed", "masks.beta", "stage") if d in sizes} == {
                d: 1 for d in ("seed", "masks.beta", "stage") if d in sizes
            }, name


def test_declarations_are_kept_as_attributes(cube: Cube) -> None:
    """Every variable says what it means and in which units."""
    tree = xr.open_datatree(cube.path, engine="zarr")
    assert tree["scores/accuracy"].attrs["description"] == "share of right answers"
    assert tree["timing/seconds"].attrs["units"] == "s"
    assert tree["runs/status"].attrs["flag_meanings"] == "pending done failed"
    assert {v.name for v in RUN_VARIABLES} <= set(cube.variables)


def test_an_existing_path_is_refused_and_left_alone(tmp_path: Path, plan: MakePlan) -> None:
    """A cube, a file or an empty folder that is in the way survives."""
    for name in ("file", "folder"):
        path = tmp_path / name
        path.mkdir() if name == "folder" else path.write_text("mine")
        with pytest.raises(CubeError, match="exists already"):
            create(path, plan())
    assert (tmp_path / "file").read_text() == "mine"
    assert list((tmp_path / "folder").iterdir()) == []


class Killed(BaseException):
    """Stands for a signal."""


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Killed(), RuntimeError("x")])
def test_a_broken_create_leaves_nothing_behind(
    tmp_path: Path, plan: MakePlan, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Whatever goes wrong half-way, there is no half cube, no leftover, and the next attempt works."""
    monkeypatch.setattr("modhook.cube.creation.consolidate", lambda store: (_ for _ in ()).throw(error))
    with pytest.raises((CubeError, Killed, RuntimeError)) as caught:
        create(tmp_path / "a.zarr", plan())
    assert isinstance(error, OSError) == isinstance(caught.value, CubeError)
    assert {p.name for p in tmp_path.iterdir()} <= {".a.zarr.lock"}
    monkeypatch.undo()
    assert create(tmp_path / "a.zarr", plan()).run_dims["seed"] == [1, 2]


def test_leftovers_of_a_killed_create_are_removed(tmp_path: Path, plan: MakePlan) -> None:
    """A process killed in `create` leaves a hidden folder; the next `create` of that cube, and of that cube alone, removes it."""
    (tmp_path / ".a.zarr.0123abcd.partial" / "scores").mkdir(parents=True)
    (tmp_path / ".ab.zarr.0123abcd.partial").mkdir()
    create(tmp_path / "a.zarr", plan())
    assert {p.name for p in tmp_path.iterdir()} == {"a.zarr", ".a.zarr.lock", ".ab.zarr.0123abcd.partial"}


def test_a_folder_that_cannot_be_written(tmp_path: Path, plan: MakePlan) -> None:
    """The message is about the folder, not about a lock file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CubeError, match=re.escape(f"{tmp_path / 'file'} cannot be written")):
        create(tmp_path / "file" / "a.zarr", plan())


@pytest.mark.parametrize(
    "url",
    ["memory://", "memory://a/../b", "memory://a/%2e%2E/b", "memory://a%2Fb", "memory://a/./b", "memory://a?b", "memory://a\\b",
     "memory://a\nb", "zip://a.zarr::file:///x.zip", "nonsense://a/b", Path("memory://a/b")],
)  # fmt: skip
def test_urls_that_are_no_place(plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """A URL that leads upwards, hides a separator or that nothing understands is refused, and makes no local folder."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CubeError, match=r"URL|nonsense"):
        create(url, plan())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run_dims": {"masks.beta": [1]}}, "first dimension of a run must be 'seed'"),
        ({"run_dims": {"seed": []}}, "'seed' has no labels"),
        ({"run_dims": {"seed": [1, 2, 1]}}, "has the label 1 twice"),
        ({"run_dims": {"seed": [1], "lr": [float("nan")]}}, "nan cannot label"),
        ({"run_dims": {"seed": [1], "lr": [[]]}}, "cannot label"),
        ({"run_dims": {"seed": [1], "a/b": [1]}}, "names are made of"),
        ({"run_dims": {"seed": [1], "scores": [1]}}, "both a group and a coordinate"),
        ({"labels": {}}, "needs stages"),
        ({"sizes": {}}, "'byte' of masks/layout0/bits has neither labels nor a size"),
        ({"attrs": {"x": float("inf")}}, "plain JSON"),
        ({"attrs": {"x": object()}}, "plain JSON"),
        ({"attrs": {"modhook_format": 7}}, "is the cube's own"),
    ],
)
def test_inconsistent_plans_are_refused(tmp_path: Path, plan: MakePlan, changes: dict[str, Any], message: str) -> None:
    """Every mistake in a plan is one sentence, and nothing is written."""
    with pytest.raises(CubeError, match=re.escape(message)):
        create(tmp_path / "a.zarr", plan(**changes))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "labels", "message"),
    [
        (Variable("new/x", ("seed",), "int64", "d"), {}, "which every run has"),
        (Variable("new/x", ("stage", "stage"), "int64", "d"), {}, "has a dimension twice"),
        (Variable("new/x", ("stage",), "float64", "d", units="seconds"), {}, "xarray would read as times"),
        (Variable("new/x", ("stage",), "float64", "d", attrs={"scale_factor": 2}), {}, "by which xarray would change"),
        (Variable("new/x", ("stage",), "int64", "d", value=(1,)), {}, "each run has its own"),
        (Variable("new/stage", ("stage",), "int64", "d"), {}, "is also another variable"),
        (Variable("scores/stage/x", ("stage",), "int64", "d"), {}, "both a group and a coordinate"),
        (Variable("new/a b", ("stage",), "int64", "d"), {}, "names are made of"),
        (Variable("../x", ("stage",), "int64", "d"), {}, "names are made of"),
        (Variable("new/x", ("stage", "k"), "int64", "d"), {"k": [1, 2, 2]}, "twice"),
        (
            Variable("scores/deep/x", ("stage",), "int64", "d"),
            {"stage": ["other"]},
            "differs from that of 'scores' above it",
        ),
    ],
)
def test_variables_that_would_not_open_are_refused(
    tmp_path: Path, plan: MakePlan, variable: Variable, labels: dict[str, Any], message: str
) -> None:
    """What xarray could not open, or would read as something else, is refused before anything is written."""
    bad = one(variable, plan, **labels)
    if variable.name == "scores/stage/x":
        bad = plan(
            variables=(variable,),
            labels={"scores": {"stage": ["unmasked"]}, "scores/stage": {"stage": ["unmasked"]}},
            sizes={},
        )
    with pytest.raises(CubeError, match=re.escape(message)):
        create(tmp_path / "a.zarr", bad)
    assert list(tmp_path.iterdir()) == []


def test_labels_keep_their_type(tmp_path: Path, plan: MakePlan) -> None:
    """Numbers stay numbers, mixtures and lists become text, and all of them find their run again."""
    sizes = [[800, 800, 800, 800], [400, 400, 200], "tiny"]
    cube = create(
        tmp_path / "a.zarr", plan(run_dims={"seed": [1], "model.sizes": sizes, "lr": [1, 0.5], "tied": [True, False]})
    )
    assert cube.run_dims == {
        "seed": [1],
        "model.sizes": ["800x4", "400-400-200", "tiny"],
        "lr": [1.0, 0.5],
        "tied": ["true", "false"],
    }
    run = {"seed": 1, "model.sizes": [400, 400, 200], "lr": 1, "tied": False}
    cube.write("scores/accuracy", np.array([0.25, 0.5]), run, stage="add")
    tree = xr.open_datatree(cube.path, engine="zarr")
    found = tree["scores/accuracy"].sel(
        {"seed": 1, "model.sizes": "400-400-200", "lr": 1.0, "tied": "false", "stage": "add"}
    )
    assert found.values.tolist() == [0.25, 0.5]
    assert int(np.isfinite(tree["scores/accuracy"].values).sum()) == 2


def test_opening_what_is_no_cube(tmp_path: Path, cube: Cube) -> None:
    """A missing path, a plain file or folder, another zarr store, a newer format: each is told apart."""
    from modhook.cube import open_cube, open_for_writing

    zarr.create_group(LocalStore(tmp_path / "other.zarr"))
    newer = tmp_path / "newer.zarr"
    cube.path.rename(newer)
    text = (newer / "zarr.json").read_text()
    (newer / "zarr.json").write_text(text.replace('"modhook_format": 2', '"modhook_format": 3'))
    (tmp_path / "run.log").write_text("computed")
    cases = {
        "none.zarr": "there is no cube",
        "run.log": "run.log is not a modhook cube; give",
        ".": "is not a modhook cube",
        "other.zarr": "but not a modhook cube",
        "newer.zarr": "of format 3",
    }
    for name, message in cases.items():
        for opened in (open_cube, open_for_writing):
            with pytest.raises(CubeError, match=message):
                opened(tmp_path / name)
