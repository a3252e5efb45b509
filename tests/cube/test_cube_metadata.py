"""The metadata's checksum: no name, shape, attribute or fill value is taken from a damaged zarr.json."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from modhook.cube import Cube, open_cube, open_for_writing, seal
from modhook.errors import CubeError
from modhook.plugin.variables import Variable

NAME = "modhook_metadata_sha256"


@pytest.fixture
def copy(full_cube: Cube, tmp_path: Path) -> Path:
    """A full cube to be changed."""
    return Path(shutil.copytree(full_cube.path, tmp_path / "a.zarr"))


def by_hand(path: Path) -> str:
    """Compute the checksum as SECURITY.md describes it, without modhook."""
    document = json.loads((path / "zarr.json").read_text())
    del document["attributes"][NAME]
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the root document of a cube."""
    document = json.loads((path / "zarr.json").read_text())
    change(document)
    (path / "zarr.json").write_text(json.dumps(document))


def test_the_checksum_is_the_one_described(copy: Path) -> None:
    """It is renewed with every change of the layout, and plain xarray opens the cube all the same."""
    seen = set()
    for change in (
        lambda c: None,
        lambda c: c.set_attrs(study={"name": "other"}),
        lambda c: c.grow_seeds(3),
        lambda c: c.add_variables([Variable("more/x", (), "float64", "d")], {"more": {}}),
    ):
        change(open_for_writing(copy))
        with xr.open_datatree(copy, engine="zarr", chunks=None) as tree:
            assert tree.attrs[NAME] == by_hand(copy)
        seen.add(by_hand(copy))
    assert len(seen) == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["attributes"]["study"].update(name="smal"),
        lambda d: d["attributes"].update(modhook_run_dims=["seed"]),
        lambda d: d["attributes"].pop(NAME),
        lambda d: d["consolidated_metadata"]["metadata"]["scores/accuracy"].update(fill_value=0.0),
        lambda d: d["consolidated_metadata"]["metadata"]["scores/accuracy"]["shape"].__setitem__(0, 1),
        lambda d: d["consolidated_metadata"]["metadata"]["overlap/kept"].update(data_type="uint64"),
        lambda d: d["consolidated_metadata"]["metadata"].pop("scores/accuracy"),
    ],
)
def test_a_change_is_noticed(copy: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """What reads as valid metadata but is not what was written is refused, by readers and by writers."""
    edit(copy, change)
    for opened in (open_cube, open_for_writing):
        with pytest.raises(CubeError, match=r"the checksum of its file zarr\.json is wrong"):
            opened(copy)


def test_how_it_is_written_does_not_matter(copy: Path) -> None:
    """Another order of the keys or other white space is the same metadata."""
    document = json.loads((copy / "zarr.json").read_text())
    (copy / "zarr.json").write_text(json.dumps(dict(reversed(document.items())), indent=7))
    assert open_cube(copy).attrs["study"] == {"name": "small"}


def test_a_cube_without_a_checksum(copy: Path) -> None:
    """Format 1 had none: such a cube opens, and its next change gives it one."""

    def older(document: dict[str, Any]) -> None:
        document["attributes"]["modhook_format"] = 1
        del document["attributes"][NAME]

    edit(copy, older)
    open_for_writing(copy).grow_seeds(3)
    assert open_cube(copy).attrs["modhook_format"] == 2
    assert open_cube(copy).attrs[NAME] == by_hand(copy)


def test_what_another_program_changed(copy: Path) -> None:
    """Another tool's consolidated array makes the cube refused with the way out, and `seal` accepts it."""
    group = zarr.open_group(copy, mode="r+", use_consolidated=False)
    group.create_array(
        "scores/notes", shape=(2,), chunks=(1,), dtype="float64", fill_value=np.nan, dimension_names=["seed"]
    )
    with pytest.warns(zarr.errors.ZarrUserWarning):
        zarr.consolidate_metadata(copy, zarr_format=3)
    with pytest.raises(CubeError, match=r"changed by another program.*modhook\.cube\.seal"):
        open_cube(copy)
    seal(copy)
    assert np.isnan(open_cube(copy)["scores/notes"].values).all()
    assert open_for_writing(copy).read("scores/accuracy", {"seed": 1, "masks.beta": 1e-5}).shape == (3, 2)


def test_growing_does_not_take_over_damage(copy: Path) -> None:
    """A node's own damaged metadata never become the cube's: unreadable ones are made again, changed ones are refused."""
    node = copy / "scores/accuracy/zarr.json"
    good = json.loads(node.read_text())
    node.write_text(json.dumps({**good, "fill_value": 0.0}))
    with pytest.raises(CubeError, match=r"scores/accuracy/zarr\.json are damaged, or were changed"):
        open_for_writing(copy).grow_seeds(3)
    for damage in (lambda: node.write_text("{"), node.unlink):
        damage()
        open_for_writing(copy).grow_seeds(3)
        assert json.loads(node.read_text())["fill_value"] == "NaN"
    assert np.isnan(open_cube(copy)["scores/accuracy"].sel(seed=3).values).all()


def test_missing_labels_are_damage(copy: Path) -> None:
    """A deleted file of labels would read as zeros or empty text, and every value would be under a wrong name."""
    (copy / "scores/stage/c/0").unlink()
    with pytest.raises(CubeError, match="the labels of scores/stage cannot be read"):
        open_cube(copy)["scores/accuracy"].load()
