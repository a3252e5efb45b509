"""Growing a cube: old data stay, and a crash at any moment leaves a cube that opens and can be completed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import LocalStore

from modhook.cube import Cube, Plan, create, open_cube, open_for_writing
from modhook.errors import CubeError
from modhook.plugin.variables import Variable

ADDED = (
    Variable("extra/deep/count", ("stage", "bin"), "int64", "d"),
    Variable("overlap/share", ("stage",), "float64", "d"),
)
LABELS = {"extra/deep": {"stage": ["add"], "bin": ["a", "b", "c"]}}


def everything(path: Path) -> dict[str, xr.Dataset]:
    """Read all values of all groups with plain xarray; the checksum, which stands for all of it, aside."""
    groups = {k: ds.load() for k, ds in xr.open_groups(path, engine="zarr", chunks=None).items()}
    assert len(groups["/"].attrs.pop("modhook_metadata_sha256")) == 64
    return groups


def test_growing_seeds_keeps_all_old_values(full_cube: Cube, tmp_path: Path, fill: Callable[..., Any]) -> None:
    """Old seeds are bit for bit the same; new ones are empty and can be written."""
    path = shutil.copytree(full_cube.path, tmp_path / "a.zarr")
    before = everything(path)
    cube = open_for_writing(path)
    cube.grow_seeds(5)
    assert cube.run_dims["seed"] == [1, 2, 3, 4, 5]
    after = everything(path)
    for group, old in before.items():
        assert after[group]["seed"].values.tolist() == [1, 2, 3, 4, 5]
        xr.testing.assert_identical(after[group].isel(seed=slice(2)), old)
    assert np.isnan(after["/scores"]["accuracy"].isel(seed=slice(2, None)).values).all()
    run = {"seed": 5, "masks.beta": 1e-5}
    assert cube.status(run, "add") == "pending"
    written = fill(cube, run)
    np.testing.assert_array_equal(open_for_writing(path).read("scores/accuracy", run), written["accuracy"])


@pytest.mark.parametrize("node", ["scores", "masks", "masks/layout0", "runs", "scores/accuracy", "scores/stage"])
def test_growing_makes_lost_metadata_again(full_cube: Cube, tmp_path: Path, node: str) -> None:
    """The own metadata of a group or an array that are missing: the grown cube is the one that it would be with them."""
    for name in ("whole", "lost"):
        shutil.copytree(full_cube.path, tmp_path / name)
    (tmp_path / "lost" / node / "zarr.json").unlink()
    for name in ("whole", "lost"):
        open_for_writing(tmp_path / name).grow_seeds(3)
    open_cube(tmp_path / "lost").load()
    own = json.loads((tmp_path / "lost" / node / "zarr.json").read_text())
    assert own == json.loads((tmp_path / "whole" / node / "zarr.json").read_text())
    assert (tmp_path / "lost/zarr.json").read_bytes() == (tmp_path / "whole/zarr.json").read_bytes()


def test_growing_beyond_one_chunk_of_labels(cube: Cube) -> None:
    """Thousands of seeds are labelled right as well."""
    cube.grow_seeds(1500)
    assert cube.run_dims["seed"] == list(range(1, 1501))
    assert xr.open_datatree(cube.path, engine="zarr")["scores/accuracy"].sel(seed=1500).shape == (2, 3, 2)


def test_seeds_never_shrink(cube: Cube) -> None:
    """Results are not thrown away by a smaller number; the same number changes nothing."""
    with pytest.raises(CubeError, match="has 2 seeds already and cannot shrink to 1"):
        cube.grow_seeds(1)
    cube.grow_seeds(2)
    assert cube.run_dims["seed"] == [1, 2]


def test_seeds_that_are_not_counted_from_one(tmp_path: Path, plan: Callable[..., Any]) -> None:
    """A cube of hand-picked seeds is not continued by guessing."""
    cube = create(tmp_path / "a.zarr", plan(run_dims={"seed": [3, 7]}))
    with pytest.raises(CubeError, match="has the seeds 3, 7"):
        cube.grow_seeds(3)


def variables(path: Path) -> list[str]:
    """Return the names of all variables, found file by file: arrays, but those along their own name."""
    found = {str(f.parent.relative_to(path)): json.loads(f.read_text()) for f in path.rglob("zarr.json")}
    arrays = {n: node["dimension_names"] for n, node in found.items() if node["node_type"] == "array"}
    return sorted(n for n, dims in arrays.items() if dims != [n.split("/")[-1]])


def test_added_variables_are_found_by_everybody(full_cube: Cube, tmp_path: Path) -> None:
    """A later analysis has its group, with the full seeds, next to untouched old groups, and its variables are known by name."""
    path = shutil.copytree(full_cube.path, tmp_path / "a.zarr")
    before = everything(path)
    cube = open_for_writing(path)
    assert cube.variables == variables(path)
    cube.add_variables(ADDED, LABELS)
    assert cube.variables == variables(path)
    assert {v.name for v in ADDED} < set(cube.variables)
    run = {"seed": 1, "masks.beta": 1e-5}
    cube.write("extra/deep/count", np.array([1, 2, 3]), run, stage="add")
    cube.add_variables(ADDED, LABELS)  # again: nothing changes
    cube.add_variables(ADDED)  # labels that are there need not be repeated
    assert cube.read("extra/deep/count", run, stage="add", bin="b").item() == 2
    after = everything(path)
    assert after["/extra/deep"]["count"].dims == ("seed", "masks.beta", "stage", "bin")
    for group, old in before.items():
        xr.testing.assert_identical(after[group].drop_vars("share", errors="ignore"), old)


def test_further_stages_leave_all_others_where_they_are(full_cube: Cube, tmp_path: Path, fill: Callable[..., Any]) -> None:
    """Old stages are bit for bit the same, in all groups that got further ones; the new ones are empty and can be written."""
    path = shutil.copytree(full_cube.path, tmp_path / "a.zarr")
    before, groups, new = everything(path), ("runs", "timing", "masks/layout0", "overlap"), ("add (again)", "control (again)")
    open_for_writing(path).add_variables([], stages=dict.fromkeys(groups, new))
    cube, after = open_for_writing(path), everything(path)
    for group, old in before.items():
        grown = group.strip("/") in groups
        stages = [*old["stage"].values, *new] if grown else None
        assert stages is None or after[group]["stage"].values.tolist() == stages
        xr.testing.assert_identical(after[group].isel(stage=slice(len(old["stage"]))) if grown else after[group], old)
    run = {"seed": 1, "masks.beta": 1e-5}
    assert (cube.status(run, "add (again)"), cube.survey(run)) == ("pending", [])
    cube.write("overlap/kept", 3, run, stage="add (again)")
    cube.set_status(run, "add (again)", "done")
    assert cube.read("overlap/kept", run, stage="add (again)") == 3
    cube.add_variables([], stages={"runs": ["add (again)", "one more"]})
    assert cube.labels("runs/status")["stage"][-2:] == ("control (again)", "one more")
    assert cube.labels("overlap/kept")["stage"][-1] == "control (again)"
    with pytest.raises(CubeError, match="no group 'nowhere' with stages"):
        cube.add_variables([], stages={"nowhere": ["x"]})


@pytest.mark.parametrize(
    ("variable", "labels", "message"),
    [
        (
            Variable("scores/accuracy", ("split", "stage"), "float64", "d"),
            {},
            "has scores/accuracy already, with other dimensions",
        ),
        (Variable("scores/accuracy", ("stage", "split"), "float32", "d"), {}, "or another type"),
        (
            Variable("scores/new", ("split",), "int64", "d"),
            {"scores": {"split": ["iid"]}},
            "already, with another 'split'",
        ),
        (Variable("masks/layout0", (), "int64", "d"), {}, "both as a variable and as a group"),
        (Variable("scores/accuracy/x", (), "int64", "d"), {}, "both as a variable and as a group"),
        (
            Variable("masks/layout0/count", ("parameter",), "int64", "d", per_run=False, value=(1, 1, 1)),
            {},
            "with other values",
        ),
        (Variable("scores/seed", (), "int64", "d"), {}, "is also another variable"),
    ],
)
def test_what_is_there_is_never_replaced(cube: Cube, variable: Variable, labels: dict[str, Any], message: str) -> None:
    """A declaration that contradicts the cube is refused and destroys nothing."""
    before = everything(cube.path)
    with pytest.raises(CubeError, match=message):
        cube.add_variables([variable], labels)
    after = everything(cube.path)
    assert before.keys() == after.keys()
    for group in before:
        xr.testing.assert_identical(before[group], after[group])


def test_attributes_are_replaced(cube: Cube) -> None:
    """The resolved study can be brought up to date; the tree stays consolidated."""
    cube.set_attrs(study={"name": "small", "seeds": 3})
    assert cube.attrs["study"] == {"name": "small", "seeds": 3}
    assert xr.open_datatree(cube.path, engine="zarr", consolidated=True).attrs["study"]["seeds"] == 3
    with pytest.raises(CubeError, match="is the cube's own"):
        cube.set_attrs(modhook_format=2)


def test_foreign_arrays_survive_growth(cube: Cube) -> None:
    """What somebody else put into the store is kept, and follows the seeds."""
    group = zarr.open_group(cube.path, mode="r+", use_consolidated=False).create_group("mine")
    notes = group.create_array(
        "notes", shape=(2, 3), chunks=(1, 3), dtype="float64", fill_value=np.nan, dimension_names=["seed", "x"]
    )
    notes[:] = 7.0
    cube.grow_seeds(3)
    cube.add_variables(ADDED, LABELS)
    values = xr.open_datatree(cube.path, engine="zarr")["mine/notes"].values
    np.testing.assert_array_equal(values, [[7.0] * 3, [7.0] * 3, [np.nan] * 3])


class Killed(Exception):
    """Stands for a process that dies."""


class Fuse:
    """Lets a number of writes and deletions to the store pass, and breaks all later ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 10**9
        self.count = 0
        for name in ("set", "set_if_not_exists", "delete", "delete_dir"):
            monkeypatch.setattr(LocalStore, name, self._guarded(getattr(LocalStore, name)))

    def _guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def guarded(store: LocalStore, *args: Any, **kwargs: Any) -> Any:
            self.count += 1
            self.left -= 1
            if self.left < 0:
                raise Killed
            return await function(store, *args, **kwargs)

        return guarded


def grow(cube: Cube) -> None:
    """Grow the seeds."""
    cube.grow_seeds(3)


def add(cube: Cube) -> None:
    """Add variables."""
    cube.add_variables(ADDED, LABELS)


def add_other(cube: Cube) -> None:
    """Add another variable."""
    cube.add_variables([Variable("other/x", ("stage",), "float64", "d")], {"other": {"stage": ["add"]}})


FURTHER = (
    Variable("overlap/kind", ("stage",), "str", "d", per_run=False, value=("own", "again")),
    Variable("again/score", ("stage", "split"), "float64", "d"),
)


def add_stages(cube: Cube) -> None:
    """Give stages to groups that are there, a constant over them, and a group of their own."""
    labels = {"overlap": {"stage": ["add", "add (again)"]}, "again": {"stage": ["add (again)"], "split": ["iid"]}}
    further = {group: ["add (again)"] for group in ("runs", "timing", "overlap")}
    cube.add_variables(FURTHER, labels, stages=further)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Cube:
    """A cube with hardly more than the variables that every cube has; do not change it."""
    plan = Plan(
        attrs={},
        run_dims={"seed": [1, 2], "s": ["a", "b"]},
        variables=(
            Variable("overlap/kept", ("stage",), "int64", "d"),
            Variable("overlap/kind", ("stage",), "str", "d", per_run=False, value=("own",)),
        ),
        labels={"runs": {"stage": ["add"]}, "overlap": {"stage": ["add"]}},
    )
    cube = create(tmp_path_factory.mktemp("tiny") / "tiny.zarr", plan)
    cube.write("overlap/kept", 5, {"seed": 2, "s": "b"}, stage="add")
    return cube


CRASHES = [
    (grow, grow),
    (add, add),
    (grow, add),
    (add, grow),
    (add, add_other),
    (add_stages, add_stages),
    (add_stages, grow),
]


@pytest.mark.parametrize(("first", "then"), CRASHES)
def test_a_crash_at_any_write(
    tiny: Cube,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: Callable[[Cube], None],
    then: Callable[[Cube], None],
) -> None:
    """Wherever a change breaks off, the cube reads as before or as after; then the same or another change succeeds."""
    before = everything(tiny.path)
    fuse = Fuse(monkeypatch)
    whole = shutil.copytree(tiny.path, tmp_path / "whole.zarr")
    first(open_for_writing(whole))
    after, total = everything(whole), fuse.count
    # MOMENTS=all tries every one of them.
    some = (
        {*range(total)}
        if os.environ.get("MOMENTS") == "all"
        else {*range(1, total, max(1, total // 5)), total - 2, total - 1}
    )
    for moment in sorted(some):
        path = shutil.copytree(tiny.path, tmp_path / f"{moment}.zarr")
        cube = open_for_writing(path)
        fuse.left = moment
        with pytest.raises(Killed):
            first(cube)
        fuse.left = 10**9
        seen = everything(path)
        same = after if [(k, seen[k].sizes) for k in seen] == [(k, after[k].sizes) for k in after] else before
        assert seen.keys() == same.keys()
        for group in same:
            xr.testing.assert_identical(seen[group], same[group])
        then(open_for_writing(path))
        repaired = open_cube(path)
        for group, old in before.items():
            shared = repaired[group].to_dataset().isel(seed=slice(2))
            shared = shared.sel({d: old[d].values for d in ("stage",) if d in old.coords}).load()
            for name in old.data_vars:
                assert shared[name].values.tolist() == old[name].values.tolist() or np.isnan(old[name].values).all()
        if then is first:
            for group, new in everything(path).items():
                xr.testing.assert_identical(new, after[group])
