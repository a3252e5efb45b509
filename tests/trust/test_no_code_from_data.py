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
from modhook.errors import MaskError, ModhookError, StudyError
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
