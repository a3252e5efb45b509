"""Damaged files: a wrong number is never returned, and the message names the variable and the file."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from modhook.cli import main
from modhook.cube import Cube, logits_from, masks_from, open_cube, open_for_writing, weights_from
from modhook.errors import CubeError

RUN = {"seed": 2, "masks.beta": 3e-5}


@pytest.fixture
def copy(full_cube: Cube, tmp_path: Path) -> Path:
    """A full cube to be damaged."""
    return Path(shutil.copytree(full_cube.path, tmp_path / "a.zarr"))


def chunk_files(path: Path) -> list[Path]:
    """Return every file that holds values or labels."""
    return sorted(f for f in path.rglob("*") if f.is_file() and f.name != "zarr.json")


def flip(file: Path, bit: int) -> bytes:
    """Flip one bit of a file; return what it was."""
    data = file.read_bytes()
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << (bit % 8)
    file.write_bytes(changed)
    return data


def test_one_flipped_bit_in_any_file(copy: Path) -> None:
    """Whatever bit of whatever chunk or coordinate flips, reading its variable fails and names variable and file."""
    rng = np.random.default_rng(0)
    arrays: dict[str, list[Path]] = {}
    for file in chunk_files(copy):
        arrays.setdefault(re.split(r"/c(?:/|$)", str(file.relative_to(copy)))[0], []).append(file)
    assert len(arrays) > 30
    for name, files in arrays.items():
        file = files[rng.integers(len(files))]
        data = flip(file, int(rng.integers(file.stat().st_size * 8)))
        with pytest.raises(CubeError, match=re.escape(name)) as caught:
            open_cube(copy)[name].load()
        assert str(file) in str(caught.value)
        file.write_bytes(data)
    open_cube(copy).load()


def test_every_bit_of_one_mask(copy: Path) -> None:
    """All single-bit flips of one file of masks are noticed, one after the other."""
    file = copy / "masks/layout0/bits/c/1/1/1/0"
    cube = open_for_writing(copy)
    expected = cube.read("masks/layout0/bits", RUN, stage="add")
    for bit in range(file.stat().st_size * 8):
        data = flip(file, bit)
        with pytest.raises(CubeError, match="masks/layout0/bits"):
            cube.read("masks/layout0/bits", RUN, stage="add")
        file.write_bytes(data)
    assert cube.read("masks/layout0/bits", RUN, stage="add").tolist() == expected.tolist()


@pytest.mark.parametrize("content", [b"", b"abc", b"\0" * 40])
def test_truncated_and_zeroed_files(copy: Path, content: bytes) -> None:
    """A file that lost its content is no reason for a wrong answer either."""
    (copy / "masks/layout0/weights/c/1/1/0").write_bytes(content)
    with pytest.raises(CubeError, match="masks/layout0/weights"):
        weights_from(copy, 2, beta=3e-5)


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("bits/c/1/1/1/0", masks_from),
        ("mask_offset/c/0", masks_from),
        ("logits/c/1/1/1/0", logits_from),
        ("weights/c/1/1/0", weights_from),
        ("integers/c/1/1/0", weights_from),
    ],
)
def test_a_missing_file_is_no_zero(copy: Path, name: str, reader: Callable[..., object]) -> None:
    """A deleted chunk would read as zeros: our readers say that it is not there."""
    (copy / "masks/layout0" / name).unlink()
    lost = "has not been written" if "offset" in name else rf"is marked done, but its file masks/layout0/{name} is missing"
    with pytest.raises(CubeError, match=lost):
        reader(copy, 2, "add", beta=3e-5)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"attributes": {"modhook_format": 1}}', '{"attributes": 3}'])
def test_a_damaged_root(copy: Path, content: str) -> None:
    """A root file that cannot be understood is damage, with the file's name, or no cube of ours."""
    (copy / "zarr.json").write_text(content)
    for opened in (open_cube, open_for_writing):
        with pytest.raises(CubeError, match=r"zarr\.json|not a modhook cube"):
            opened(copy)


def test_a_root_that_is_a_folder(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is damage, told as such, with exit code 2, by every command that opens a cube."""
    (copy / "zarr.json").unlink()
    (copy / "zarr.json").mkdir()
    for opened in (open_cube, open_for_writing):
        with pytest.raises(CubeError, match=r"is damaged: its file zarr\.json is a folder; restore that file from a copy"):
            opened(copy)
    for command in (["show"], ["plot"], ["report"], ["analyse"]):
        with pytest.raises(SystemExit) as stop:
            main([*command, str(copy), *(["sharing"] if command == ["analyse"] else [])])
        assert stop.value.code == 2, command
        assert "its file zarr.json is a folder" in " ".join(capsys.readouterr().err.split())


def test_lost_metadata_of_a_variable(copy: Path) -> None:
    """Metadata that no longer describe an array are damage, told as such."""
    text = (copy / "zarr.json").read_text()
    (copy / "zarr.json").write_text(text.replace('"float64"', '"floaX64"', 1))
    with pytest.raises(CubeError, match="is damaged"):
        open_cube(copy)


def test_damage_elsewhere_does_no_harm(copy: Path) -> None:
    """Reading one run needs only that run's files."""
    flip(copy / "masks/layout0/bits/c/0/0/0/0", 77)
    assert masks_from(copy, 2, "add", beta=3e-5).size == 15
    flip(copy / "scores/accuracy/c/1/1/2/0", 5)
    assert open_for_writing(copy).read("scores/accuracy", RUN, stage="control").shape == (2,)
    with pytest.raises(CubeError, match="scores/accuracy"):
        open_for_writing(copy).read("scores/accuracy", RUN)


def test_arrays_without_a_checksum_are_left_alone(copy: Path) -> None:
    """What somebody else added without a checksum can be read."""
    group = zarr.open_group(copy, mode="r+", use_consolidated=False)
    notes = group.create_array(
        "scores/notes", shape=(2,), chunks=(1,), dtype="float64", fill_value=np.nan, dimension_names=["seed"]
    )
    notes[:] = 7.0
    open_for_writing(copy).grow_seeds(2)
    assert open_cube(copy)["scores/notes"].values.tolist() == [7.0, 7.0]
