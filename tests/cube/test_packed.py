"""A packed cube: one file that every reader takes for the cube, that nobody writes, and whose damage is noticed."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from zarr.storage import ZipStore

import modhook
from modhook.cube import Cube, beside, create, logits_from, open_for_writing, pack, removable, seal, weights_from
from modhook.cube.metadata import CHECKSUM, checksum
from modhook.cube.packed import PACKED
from modhook.errors import CubeError, ModhookError, UserError

OWN = {PACKED, CHECKSUM}
"""Attributes of the root that a pack has of its own."""


@pytest.fixture(scope="module")
def packed(full_cube: Cube, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The full cube in one file; do not change it."""
    return pack(full_cube.path, tmp_path_factory.mktemp("packed") / "small.zip").path


def changed(source: Path, out: Path, change: Callable[[dict[str, bytes]], Any]) -> Path:
    """Write a zip file anew, with other content and sums that fit it."""
    with zipfile.ZipFile(source) as file:
        files = {n: file.read(n) for n in file.namelist()}
    change(files)
    with zipfile.ZipFile(out, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return out


def test_all_that_is_read_is_that_of_the_cube(full_cube: Cube, packed: Path) -> None:
    """Every value, dimension, label and attribute, but of what was left out; masks and tables too, also by plain xarray."""
    tree, other = modhook.open_cube(full_cube.path), modhook.open_cube(packed)
    left = {"/masks/layout0/weights", "/masks/layout0/logits", "/masks/layout0/integers"}
    names = [{f"{n.path}/{v}" for n in t.subtree for v in n.data_vars} for t in (tree, other)]
    assert names[0] - names[1] == left
    assert not names[1] - names[0]
    assert {k: v for k, v in other.attrs.items() if k not in OWN} == {k: v for k, v in tree.attrs.items() if k not in OWN}
    records = 0
    for node in tree.subtree:
        kept = node.to_dataset(inherit=False).drop_vars([n.rpartition("/")[2] for n in left], errors="ignore")
        same = other[node.path].to_dataset(inherit=False)
        if node.path == "/runs":
            records += kept["digest"].size
            kept, same = kept.drop_vars("digest"), same.drop_vars("digest")  # they list the files that are there
        if node.path == "/":
            kept.attrs, same.attrs = {}, {}  # compared above
        xr.testing.assert_identical(kept.load(), same.load())
    assert records == 4
    for run in Cube(packed, read_only=True).runs():
        mine = modhook.masks_from(packed, run["seed"], "add", beta=run["masks.beta"])
        assert mine == modhook.masks_from(full_cube.path, run["seed"], "add", beta=run["masks.beta"])
        assert Cube(packed, read_only=True).survey(run) == []
    assert modhook.tidy(packed, "scores/accuracy").equals(modhook.tidy(full_cube.path, "scores/accuracy"))
    with xr.open_datatree(ZipStore(packed), engine="zarr") as plain:
        np.testing.assert_array_equal(plain["scores/accuracy"], tree["scores/accuracy"])


def test_weights_and_logits_are_kept_on_request(full_cube: Cube, packed: Path, tmp_path: Path) -> None:
    """Left out, they are missed in a sentence that says how to keep them; a pack can be packed again, with no more than it has."""
    where = {"seed": 2, "beta": 3e-5}
    for read, kind in ((weights_from, "weights"), (logits_from, "logits")):
        arguments = {"stage": "add"} if kind == "logits" else {}
        with pytest.raises(CubeError, match=f"packed without {kind}; pack the cube again with --{kind}"):
            read(packed, **where, **arguments)  # type: ignore[operator]
        with pytest.raises(UserError, match=f"packed without {kind}, so they cannot be kept; pack the cube itself"):
            pack(packed, tmp_path / "again.zip", **{kind: True})
    whole = pack(full_cube.path, tmp_path / "whole.zip", weights=True, logits=True)
    assert whole.without == ()
    for name, value in weights_from(full_cube.path, **where).items():
        assert torch.equal(weights_from(whole.path, **where)[name], value)
    stored = logits_from(full_cube.path, stage="add", **where)["l.weight"]
    assert torch.equal(logits_from(whole.path, stage="add", **where)["l.weight"], stored)
    again = pack(whole.path, tmp_path / "again.zip")
    assert again.without == ("weights", "logits")
    assert again.path.read_bytes() == packed.read_bytes()


def test_the_same_cube_gives_the_same_bytes(full_cube: Cube, packed: Path, tmp_path: Path) -> None:
    """Wherever it lies, whenever its files were made and in whatever order; leftovers of writers are not carried."""
    copy = tmp_path / "other.zarr"
    for file in sorted(Path(full_cube.path).rglob("*"), reverse=True):
        if file.is_file():
            to = copy / file.relative_to(full_cube.path)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, to)
            os.utime(to, (10**9, 10**9))
    (copy / "scores/accuracy/c/0/0/0" / f"0.{'0' * 32}.partial").write_bytes(b"half")
    made = pack(copy)
    assert made.path == tmp_path / "other.zip"
    assert made.path.read_bytes() == packed.read_bytes()
    assert made.size == packed.stat().st_size
    with zipfile.ZipFile(packed) as file:
        order = [n.startswith("runs/") for n in file.namelist() if not n.endswith("zarr.json")]
    assert order == sorted(order, reverse=True)  # what is done is read before what it has written


def test_an_unfinished_cube_is_packed_as_far_as_it_is(
    cube: Cube, run: dict[str, Any], fill: Callable[..., Any], tmp_path: Path
) -> None:
    """What is done is counted and read; the rest is pending, as in the cube."""
    fill(cube, run)
    cube.set_status(run, "add", "failed", "a reason")
    made = pack(cube.path)
    assert (made.done, made.stages) == (2, 12)
    opened = Cube(made.path, read_only=True)
    assert opened.reason(run, "add") == "a reason"
    assert modhook.tidy(made.path, "scores/accuracy").equals(modhook.tidy(cube.path, "scores/accuracy"))
    with pytest.raises(CubeError, match=r"'add' of .* is failed"):
        modhook.masks_from(made.path, 2, "add", beta=3e-5)
    with pytest.raises(CubeError, match="left nothing"):
        modhook.masks_from(made.path, 1, "add", beta=3e-5)


def test_nobody_writes_into_it(packed: Path, plan: Callable[..., Any], run: dict[str, Any], tmp_path: Path) -> None:
    """Opening it for writing, making, growing, sealing and removing a cube there are refused; its bytes stay."""
    path, before = tmp_path / "a.zip", packed.read_bytes()
    path.write_bytes(before)
    reader = Cube(path, read_only=True)
    for write in (
        lambda: open_for_writing(path),
        lambda: create(path, plan()),
        lambda: seal(path),
        lambda: reader.grow_seeds(3),
        lambda: reader.set_attrs(a=1),
        lambda: removable(path).remove(),
    ):
        with pytest.raises(ModhookError, match="is a packed cube, which is only read; give the cube"):
            write()
    with pytest.raises(Exception, match=r"read.only"):
        reader.write("scores/accuracy", np.zeros(2), run, stage="add")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.zip"]


def test_what_is_no_packed_cube_is_one_sentence(packed: Path, full_cube: Cube, tmp_path: Path) -> None:
    """No zip at all, half of one, another program's, a cube in a folder of its own, a newer version's, one that is missing."""
    text, half, other, deep, newer = (tmp_path / f"{n}.zip" for n in ("text", "half", "other", "deep", "newer"))
    text.write_text("no zip")
    half.write_bytes(packed.read_bytes()[:-500])
    changed(packed, other, lambda files: (files.clear(), files.update({"readme.txt": b"text"})))
    changed(packed, deep, lambda files: [files.update({f"small.zarr/{n}": files.pop(n)}) for n in list(files)])

    def of_tomorrow(files: dict[str, bytes]) -> None:
        root = json.loads(files["zarr.json"])
        root["attributes"] |= {"modhook_format": 99, "modhook_version": "9.0"}
        files["zarr.json"] = json.dumps(root).encode()

    changed(packed, newer, of_tomorrow)
    for path, words in (
        (text, "cannot be read as a zip file"),
        (half, "or only a part of one"),
        (other, "other.zip is not a modhook cube; give a file that modhook pack has written"),
        (deep, "lies in a folder of its own, small.zarr: unzip it"),
        (newer, "format 99, written by modhook 9.0"),
        (tmp_path / "smal.zip", "there is no cube at .*smal.zip"),
    ):
        with pytest.raises(CubeError, match=words) as told:
            modhook.open_cube(path)
        assert "\n" not in str(told.value)


def test_damage_is_named(packed: Path, tmp_path: Path) -> None:
    """A flipped byte; and with all of the zip's own sums renewed, a file that is missing, exchanged or not its own."""
    bad = tmp_path / "bad.zip"
    key = "scores/accuracy/c/0/0/1/0"
    with zipfile.ZipFile(packed) as file:
        entry = file.getinfo(key)
        other = file.read("scores/accuracy/c/1/0/1/0")
    data = bytearray(packed.read_bytes())
    data[entry.header_offset + 30 + len(key) + 3] ^= 0xFF
    bad.write_bytes(data)
    with pytest.raises(CubeError, match=r"is damaged .*; take the file from a copy, or pack the cube again"):
        modhook.open_cube(bad)["scores/accuracy"].load()
    for change in (lambda f: f.pop(key), lambda f: f.update({key: other}), lambda f: f.update({"more": b""})):
        with pytest.raises(CubeError, match="is damaged: its list of files is not the one that was packed"):
            modhook.open_cube(changed(packed, bad, change))

    def by_another_program(files: dict[str, bytes]) -> None:
        del files[key]
        root = json.loads(files["zarr.json"])
        del root["attributes"][PACKED]
        root["attributes"][CHECKSUM] = checksum(root)
        files["zarr.json"] = json.dumps(root).encode()

    tree = modhook.open_cube(changed(packed, bad, by_another_program))
    with pytest.raises(CubeError, match=f"its file {key} is missing; take the file from a copy"):
        tree["scores/accuracy"].load()


def test_a_zip_by_another_program_is_opened(full_cube: Cube, tmp_path: Path) -> None:
    """The zipped content of a cube's folder is one, too, whatever the file is called; unzipped, a pack is a cube again."""
    made = Path(shutil.make_archive(str(tmp_path / "by_hand"), "zip", full_cube.path)).rename(tmp_path / "data.bin")
    assert modhook.tidy(made, "overlap/kept").equals(modhook.tidy(full_cube.path, "overlap/kept"))
    shutil.unpack_archive(pack(full_cube.path, tmp_path / "p.zip").path, tmp_path / "again.zarr")
    again = open_for_writing(tmp_path / "again.zarr")
    again.grow_seeds(3)
    assert again.survey({"seed": 1, "masks.beta": 1e-5}) == []


def test_packing_is_refused_in_one_sentence(full_cube: Cube, tmp_path: Path) -> None:
    """A file that is there, another ending, a folder, a place inside the cube, a parent that is a file, no cube; nothing is left."""
    there = tmp_path / "there.zip"
    there.write_text("mine")
    (tmp_path / "folder.zip").mkdir()
    for out, words in (
        (there, "exists already; name another file, or replace it with --overwrite"),
        (tmp_path / "a.tar", "ends in .zip"),
        (tmp_path / "folder.zip", "which is a folder"),
        (Path(full_cube.path) / "a.zip", "which is inside the cube"),
        (there / "a.zip", "cannot be made"),
    ):
        with pytest.raises(UserError, match=words):
            pack(full_cube.path, out)
    with pytest.raises(CubeError, match="there is no cube"):
        pack(tmp_path / "none.zarr")
    assert there.read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["folder.zip", "there.zip"]
    assert pack(full_cube.path, there, overwrite=True).size == there.stat().st_size
    assert beside(there, "-figures") == tmp_path / "there-figures"


def test_a_damaged_cube_is_not_packed(full_cube: Cube, tmp_path: Path) -> None:
    """Its damage is named, and no file is left."""
    copy = tmp_path / "a.zarr"
    shutil.copytree(full_cube.path, copy)
    file = copy / "overlap/kept/c/0/1/0"
    shutil.copyfile(copy / "overlap/kept/c/1/1/0", file)
    with pytest.raises(CubeError, match="its file overlap/kept/c/0/1/0 is not the one that it wrote"):
        pack(copy)
    file.unlink()
    with pytest.raises(CubeError, match="overlap/kept/c/0/1/0 is missing"):
        pack(copy)
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_a_cube_at_a_url_is_packed_here(plan: Callable[..., Any], fill: Callable[..., Any], tmp_path: Path, monkeypatch: Any) -> None:
    """The file lies in the current folder and holds the same; a packed cube at a URL is to be downloaded first."""
    monkeypatch.chdir(tmp_path)
    cube = create("memory://packed/small.zarr", plan())
    fill(cube, {"seed": 1, "masks.beta": 1e-5})
    made = pack("memory://packed/small.zarr")
    assert (made.path, made.done) == (tmp_path / "small.zip", 3)
    assert modhook.tidy(made.path, "scores/accuracy").equals(modhook.tidy(cube, "scores/accuracy"))
    with pytest.raises(CubeError, match="read from this machine: download it first"):
        modhook.open_cube("memory://packed/small.zip")
