"""`modhook.study_path`: files that a task or a network names start at the study file, wherever modhook is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import modhook
from modhook.cli import main

CODE = """
import torch
from torch import nn
import modhook
import attrs


@attrs.frozen
class Options:
    file: str


class FromFile(modhook.Task):
    Options = Options
    control = False
    splits = ("all",)
    stages = (modhook.Stage("sum", "the sum"),)
    metrics = ("accuracy", "distance")
    numbers = ("distance",)

    def __init__(self, options):
        super().__init__(options)
        self.rows = modhook.study_path(options.file).read_text().split()  # in the constructor

    def load(self):
        assert modhook.study_path(self.options.file).is_file()  # and later

    def shape(self):
        return {}

    def train_set(self, stage):
        return {"x": torch.tensor([[float(row)] for row in self.rows])}

    test_set = train_set

    def loss(self, net, batch):
        return (net(batch["x"]) - batch["x"]).square().mean()

    def score(self, net, batch):
        if modhook.study_path("refused").exists():
            raise modhook.UserError("this network cannot answer that.")
        distance = (net(batch["x"]) - batch["x"]).abs().flatten()
        return {"accuracy": (distance < 0.5).double(), "distance": 10 + distance}


class Widths(modhook.Model):
    Options = Options

    def build(self, shape):
        return nn.Linear(1, int(modhook.study_path(self.options.file).read_text()))
"""
STUDY = """
[study]
name = "beside"
[task]
name = "mine.py:FromFile"
file = "data/rows.txt"
[model]
name = "mine.py:Widths"
file = "width.txt"
[train]
steps = 2
[masks]
steps = 2
samples = 2
batch = 2
exclude = []
[analyses]
inverse = {}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Return a study in a folder of its own, with the files that it names."""
    folder = tmp_path / "there"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "rows.txt").write_text("1 2 3 4")
    (folder / "width.txt").write_text("1")
    (folder / "mine.py").write_text(CODE)
    (folder / "beside.toml").write_text(STUDY)
    return folder / "beside.toml"


def run(*arguments: str | Path) -> Any:
    """Run the command line here, and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def test_names_start_at_the_study_file(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`check` and `run` from another folder find what the study names; a metric that is no share is no per cent in tables."""
    monkeypatch.chdir(tmp_path)
    assert modhook.study_path("x") == Path("x")
    assert run("check", study) == 0
    assert run("run", study, "--out", "out") == 0
    capfd.readouterr()
    assert run("show", "out/beside.zarr") == 0
    shown = capfd.readouterr().out
    assert modhook.study_path("x") == Path("x")
    with modhook.open_cube("out/beside.zarr") as cube:
        tables = {n: cube[n].attrs.get("table") for n in ("scores/accuracy", "scores/distance", "inverse/distance")}
        far = float(cube["scores/distance"].sel(seed=1, stage="unmasked", split="all"))
    assert tables == {"scores/accuracy": "percent", "scores/distance": "number", "inverse/distance": "number"}
    assert far > 10
    assert f"{far:.3g}"[:4] in shown


def test_what_a_score_refuses_is_said_before_anything_is_written(
    study: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A `UserError` of a task's loss or score, such as a network without the head, is the trial's: no cube, exit code 2."""
    (study.parent / "refused").touch()
    code = CODE.replace('modhook.study_path("refused").exists()', "True")
    (study.parent / "mine.py").write_text(code)
    assert run("run", study, "--out", tmp_path / "out") == 2
    assert "this network cannot answer that" in capfd.readouterr().err
    assert not list((tmp_path / "out").glob("*.zarr"))
