"""Data is data: nothing that modhook reads can run code, wherever it comes from."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from torch import nn

from modhook import Masks, open_cube
from modhook.cube import Cube, Plan, create
from modhook.cube.metadata import checksum
from modhook.errors import CubeError, MaskError, ModhookError, StudyError
from modhook.plugin.variables import Variable
from modhook.study import load

ROOT = Path(__file__).parents[2]
SOURCES = [f for d in ("modhook", "plugins", "tasks_plugins") for f in sorted((ROOT / d).rglob("*.py"))]
FORBIDDEN = {"eval", "exec", "pickle.load", "pickle.loads", "dill.load", "joblib.load", "yaml.load", "shelve.open"}


def _problems(source: str) -> list[str]:
    """Return the calls in `source` that could run code found in data, or write outside a folder."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {k.arg: ast.unparse(k.value) for k in node.keywords}
        bad = (
            name in FORBIDDEN
            or (name == "torch.load" and given.get("weights_only") != "True")
            or (name.endswith((".extractall", ".extract", "unpack_archive")) and given.get("filter") != "'data'")
            or given.get("allow_pickle", "False") != "False"
        )
        found += [f"line {node.lineno}: {ast.unparse(node)}"] * bad
    return found


def test_no_source_file_reads_code_from_data() -> None:
    """No eval, no pickle, no unfiltered archive in any of the packages."""
    assert len(SOURCES) > 100
    assert {f"{f.relative_to(ROOT)}: {p}" for f in SOURCES for p in _problems(f.read_text())} == set()


@pytest.mark.parametrize(
    "line",
    ["eval(x)", "pickle.loads(x)", "torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)",
     "tar.extractall(d)", "shutil.unpack_archive(a, d)"],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(line: str) -> None:
    """The test above can fail: each forbidden call is found."""
    assert len(_problems(line)) == 1


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


def test_a_pickle_in_the_place_of_masks_is_refused(tmp_path: Path) -> None:
    """Masks.load answers a pickle, plain or in torch's format, with one sentence and does not run it."""
    mark = tmp_path / "ran"
    for write in (lambda f: f.write_bytes(pickle.dumps(Evil(mark))), lambda f: torch.save({"w": Evil(mark)}, f)):
        file = tmp_path / "m.safetensors"
        write(file)
        with pytest.raises(MaskError, match="cannot be read as masks"):
            Masks.load(file, nn.Linear(2, 2))
    assert not mark.exists()
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists()  # it would have run


@pytest.mark.parametrize("codec", ["numcodecs.pickle", "pickle"])
def test_a_cube_with_a_pickle_codec_is_refused(tmp_path: Path, codec: str) -> None:
    """A stranger's cube that asks zarr to unpickle its text is one clear error, and nothing runs."""
    mark, path = tmp_path / "ran", tmp_path / "strange.zarr"
    root = zarr.create_group(path, zarr_format=3, attributes={"modhook": "1"})
    root.create_array("scores", shape=(1,), dtype="int8", dimension_names=("seed",))
    meta = path / "scores" / "zarr.json"
    known = json.loads(meta.read_text())
    known["codecs"] = [{"name": codec, "configuration": {"protocol": 4}}]
    meta.write_text(json.dumps(known))
    (path / "scores" / "c").mkdir(exist_ok=True)
    (path / "scores" / "c" / "0").write_bytes(pickle.dumps(Evil(mark)))
    for tried in (path, _as_version_2(path, tmp_path / "two.zarr", mark)):
        with pytest.raises(ModhookError) as caught:
            open_cube(tried).load()
        assert "\n" not in str(caught.value).strip()
    assert not mark.exists()


def _as_version_2(path: Path, other: Path, mark: Path) -> Path:
    """Return a zarr 2 store, whose format knows object arrays with a pickle filter."""
    shutil.rmtree(other, ignore_errors=True)
    (other / "scores").mkdir(parents=True)
    (other / ".zgroup").write_text('{"zarr_format": 2}')
    (other / ".zattrs").write_text((path / "zarr.json").read_text())
    array = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "fill_value": None, "order": "C",
             "compressor": None, "filters": [{"id": "pickle", "protocol": 4}]}  # fmt: skip
    (other / "scores" / ".zarray").write_text(json.dumps(array))
    (other / "scores" / ".zattrs").write_text('{"_ARRAY_DIMENSIONS": ["seed"]}')
    (other / "scores" / "0").write_bytes(pickle.dumps(np.array([Evil(mark)], dtype=object)))
    return other


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "a\\b", "..", ".", "", "a\nb", "a\0b", "ä", "x" * 300])
def test_a_study_name_cannot_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    """The cube of a study lies in the output folder: other names are refused, by run as by check."""
    text = (ROOT / "studies" / "quickstart.toml").read_text()
    study = tmp_path / "s.toml"
    study.write_text(text.replace('name = "quickstart"', f"name = {json.dumps(name)}"))
    with pytest.raises(StudyError, match="name"):
        load(study)


def _real_cube(path: Path) -> Path:
    """Return a small cube that modhook has made."""
    variables = (Variable("scores/accuracy", ("stage",), "float64", "d"),)
    create(path, Plan(attrs={}, run_dims={"seed": [1]}, variables=variables, labels={"scores": {"stage": ["add"]}}))
    return path


def _forge(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a cube's metadata as a stranger would, who makes the checksum fit again."""
    root = json.loads((path / "zarr.json").read_text())
    change(root["consolidated_metadata"]["metadata"])
    root["attributes"]["modhook_metadata_sha256"] = checksum(root)
    (path / "zarr.json").write_text(json.dumps(root))


@pytest.mark.parametrize(
    "codecs",
    [
        [{"name": name, "configuration": {"protocol": 4}}]
        for name in ("numcodecs.pickle", "pickle", "numcodecs.json2", "numcodecs.msgpack2", "vlen-object", "vlen-array")
    ]
    + [[{"name": "numcodecs.pickle", "configuration": {}}, {"name": "bytes", "configuration": {"endian": "little"}}]],
)
@pytest.mark.parametrize("dtype", ["float64", "object", "O", "variable_length_utf8"])
def test_a_stranger_cube_with_a_fitting_checksum(tmp_path: Path, codecs: list[Any], dtype: str) -> None:
    """No codec and no type that a cube may declare, sealed or not, leads to unpickling: one sentence, and nothing runs."""
    mark, path = tmp_path / "ran", _real_cube(tmp_path / "strange.zarr")
    _forge(path, lambda nodes: nodes["scores/accuracy"].update(codecs=codecs, data_type=dtype))
    chunk = path / "scores/accuracy/c/0/0"
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(ModhookError) as caught:
        open_cube(path).load()
    assert "\n" not in str(caught.value).strip()
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["../../secret", "scores/../../secret", "/secret", "scores//x", "scores/./x", "a\\..\\b"]
)
def test_a_variable_outside_of_the_cube_is_refused(tmp_path: Path, name: str) -> None:
    """A stranger's cube cannot name a variable whose files lie elsewhere."""
    path = _real_cube(tmp_path / "strange.zarr")
    _forge(path, lambda nodes: nodes.update({name: nodes["scores/accuracy"]}))
    with pytest.raises(CubeError, match="would lie outside of it"):
        open_cube(path)


def test_links_that_lead_out_of_a_cube(tmp_path: Path) -> None:
    """Neither read nor written through: a file or folder of a cube that links elsewhere. The cube itself may be a link."""
    path = _real_cube(tmp_path / "strange.zarr")
    run = {"seed": 1}
    Cube(path).write("scores/accuracy", 0.5, run, stage="add")
    chunk = path / "scores/accuracy/c/0/0"
    outside = tmp_path / "outside"
    outside.mkdir()
    chunk.rename(outside / "0")
    chunk.symlink_to(outside / "0")
    with pytest.raises(CubeError, match="is a link that leads out of the cube"):
        open_cube(path).load()
    chunk.unlink()
    chunk.parent.rmdir()
    chunk.parent.symlink_to(outside)
    before = (outside / "0").read_bytes()
    for attempt in (lambda: Cube(path).write("scores/accuracy", 0.9, run, stage="add"), lambda: open_cube(path).load()):
        with pytest.raises(CubeError, match="is a link that leads out of the cube"):
            attempt()
    assert {f.name: f.read_bytes() for f in outside.iterdir()} == {"0": before}
    whole = _real_cube(tmp_path / "far" / "whole.zarr")
    (tmp_path / "near.zarr").symlink_to(whole)
    Cube(tmp_path / "near.zarr").write("scores/accuracy", 0.25, run, stage="add")
    assert open_cube(whole)["scores/accuracy"].values.item() == 0.25
