"""A stranger's cube runs no code: whatever it names stays a name, unless `analyse --trust` allows it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from warm import Warm

from modhook import masks_from, open_cube
from modhook.cube.metadata import checksum
from modhook.plugin.manager import KINDS, Plugins, plugins
from modhook.report import write_report
from modhook.tables import as_csv, tables

Modhook = Callable[..., subprocess.CompletedProcess[str]]
STUDY = """
[study]
name = "tiny"
[task]
name = "addmul"
train_size = 200
valid_size = 30
[model]
name = "fnn"
hidden = [6]
[train]
steps = 2
batch = 8
validate_every = 0
[masks]
steps = 2
samples = 2
validate_every = 0
[analyses]
sharing = {}
"""
EVIL = """
import os, pathlib
pathlib.Path(os.environ["MARKER"]).touch()
def make(**options):
    from torch import nn
    return nn.Linear(2, 2)
class Thing:
    pass
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study and its finished cube."""
    from modhook.cli import main

    folder = tmp_path_factory.mktemp("home")
    (folder / "tiny.toml").write_text(STUDY)
    with pytest.raises(SystemExit) as stop:
        main(["run", str(folder / "tiny.toml"), "--out", str(folder)])
    assert stop.value.code == 0
    return folder


@pytest.fixture
def place(home: Path, tmp_path: Path) -> Path:
    """A copy of it, with the malicious module where Python finds it: in the current directory."""
    copy = Path(shutil.copytree(home, tmp_path / "place"))
    (copy / "evil_module.py").write_text(EVIL)
    return copy


def forged(cube: Path, *keys: str, value: Any) -> Path:
    """Change an attribute of the cube's root as a stranger would, who makes the checksum fit again."""
    root = json.loads((cube / "zarr.json").read_text())
    at = root["attributes"]
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    root["attributes"]["modhook_metadata_sha256"] = checksum(root)
    (cube / "zarr.json").write_text(json.dumps(root))
    return cube


@pytest.fixture
def modhook(place: Path, warm: Warm) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python -m modhook` in the folder; the malicious module is importable there, and also by PYTHONPATH."""
    env = {**os.environ, "MARKER": str(place / "MARKER"), "PYTHONPATH": str(place)}
    return lambda *arguments: warm.run("-m", "modhook", *arguments, cwd=place, env=env)


NAMED = {
    "model": (("study", "model", "name"), "evil_module:make"),
    "deep model": (("study", "model", "name"), "evil_module:Thing.make"),
    "swept models": (("study", "sweep"), {"model.name": ["fnn", "evil_module:make"]}),
    "task": (("study", "task", "name"), "evil_module:Thing"),
    "task file": (("study", "task", "name"), "evil_module.py:Thing"),
    "network file": (("study", "model", "name"), "evil_module.py:make"),
    "analysis file": (("study", "analyses"), {"evil_module.py:Thing": {}, "sharing": {}}),
    "protocol": (("study", "study", "protocol"), "evil_module:Thing"),
    "sampler": (("study", "masks", "sampler"), "evil_module:Thing"),
    "analysis": (("study", "analyses"), {"evil_module:Thing": {}, "sharing": {}}),
    "tracker": (("study", "run", "trackers"), ["evil_module:Thing"]),
}


@pytest.mark.parametrize("command", ["show", "plot", "report", "analyse"])
def test_no_command_imports_what_a_cube_names(command: str, place: Path, modhook: Modhook) -> None:
    """show, plot and report do their work and import nothing; analyse says what it would import, and imports nothing either."""
    forged(place / "tiny.zarr", "study", "model", "name", value="evil_module:make")
    more = {"analyse": ["inverse"], "plot": ["--format", "svg", "--figure", "kept_weights"]}.get(command, [])
    done = modhook(command, "tiny.zarr", *more)
    assert not (place / "MARKER").exists(), done.stderr
    assert "Traceback" not in done.stderr
    if command != "analyse":
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    for said in ("tiny.zarr names the network 'evil_module:make'", "import 'evil_module'", "call 'make'", "--trust"):
        assert said in done.stderr
    trusted = modhook(command, "tiny.zarr", *more, "--trust")
    assert (place / "MARKER").exists()  # it would have run
    assert trusted.returncode == 2
    assert "is not the one in" in trusted.stderr


@pytest.mark.parametrize("what", NAMED)
def test_nothing_that_a_cube_names_is_imported(
    what: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a cube names in the place of a model, task, protocol, sampler, analysis or tracker: no reader imports it."""
    from modhook.plugin.interfaces import Tracker
    from modhook.run.later import analyse

    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("MARKER", str(place / "MARKER"))
    keys, value = NAMED[what]
    cube = forged(place / "tiny.zarr", *keys, value=value)
    installed = plugins()
    # Figures, most of a report's time, are drawn from what both have opened.
    others = Plugins([e for kind in KINDS if kind != "figures" for e in installed.entries(kind)], ())
    for where, known in ((cube, installed), (f"file://{cube}", others)):
        with open_cube(where) as tree:
            assert list(tables(tree))
            as_csv(tree)
            tree.load()
        assert masks_from(where, 1, "add").size
        if what != "swept models":
            write_report(where, tmp_path / "r.html", known)
    if what in ("analysis", "analysis file"):  # others than the one that is asked for play no part
        assert analyse(cube, "inverse", (), installed, Tracker()).computed == 1
    else:
        with pytest.raises(ValueError, match="evil_module"):
            analyse(cube, "inverse", (), installed, Tracker())
    assert "evil_module" not in sys.modules
    assert not (place / "MARKER").exists()


def test_a_study_that_continues_a_forged_cube(place: Path, modhook: Modhook) -> None:
    """`run` compares what a cube names with the user's own study, and imports none of it."""
    cube = forged(place / "tiny.zarr", "study", "model", "name", value="evil_module:make")
    done = modhook("run", "tiny.toml", "--out", ".")
    assert done.returncode == 2
    assert 'model.name is "evil_module:make" there' in done.stderr
    forged(cube, "study", "model", "name", value="fnn")
    forged(cube, "study", "analyses", "evil_module:Thing", value={"module": "evil_module"})
    forged(cube, "study", "run", "trackers", value=["evil_module:Thing"])
    done = modhook("run", "tiny.toml", "--out", ".")
    assert done.returncode == 0, done.stderr
    assert not (place / "MARKER").exists()


SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\" onload='alert(3)'"


def test_a_report_escapes_what_a_cube_says(place: Path, tmp_path: Path) -> None:
    """Names, descriptions, versions, data sets, reasons and settings of a cube are text in its report, never markup."""
    cube = place / "tiny.zarr"
    forged(cube, "study", "study", "description", value=SCRIPT)
    forged(cube, "study", "model", "name", value=f"evil:{SCRIPT}")
    forged(cube, "versions", value={SCRIPT: SCRIPT})
    forged(cube, "data", value={"0": {SCRIPT: SCRIPT}})
    forged(cube, "study", "train", "weights", value=SCRIPT)
    from modhook.cube import open_for_writing

    open_for_writing(cube).set_status({"seed": 1}, "add", "failed", reason=SCRIPT, route=SCRIPT)
    page = write_report(cube, tmp_path / "r.html", plugins()).read_text()
    assert "alert(1)" in page
    assert "<script" not in page.lower()
    assert "<img src=x" not in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


@pytest.mark.parametrize(
    "codec", ["dill", "numcodecs.pickle", "pickle", "imagecodecs_jpeg", "evil_module.Codec", "numcodecs.json2"]
)
@pytest.mark.parametrize("nested", [False, True])
def test_only_known_codecs_are_used(codec: str, nested: bool, place: Path) -> None:
    """A cube may name the codecs of numbers and text that zarr itself brings, and no others, within shards neither."""
    cube = place / "tiny.zarr"
    root = json.loads((cube / "zarr.json").read_text())
    node = root["consolidated_metadata"]["metadata"]["scores/accuracy"]
    strange = [{"name": codec, "configuration": {}}, *node["codecs"]]
    shards = {"chunk_shape": [1] * len(node["shape"]), "codecs": strange, "index_codecs": node["codecs"]}
    node["codecs"] = [{"name": "sharding_indexed", "configuration": shards}] if nested else strange
    root["attributes"]["modhook_metadata_sha256"] = checksum(root)
    (cube / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(ValueError, match=rf"scores/accuracy.*the codec '{codec}'") as caught:
        open_cube(cube)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["zip:///tmp/a.zip", "zip://x::file:///tmp/a.zip", "reference://a.json", "nothing://a/b"]
)
def test_urls_that_cannot_be_a_cube(url: str) -> None:
    """A zipped cube, a chain of places or an unknown protocol is one sentence."""
    with pytest.raises(ValueError, match=r".") as caught:
        open_cube(url)
    assert "\n" not in str(caught.value)
