"""Cubes to report on, a real small one and ones made by hand; and the browser helper, importable by this folder's tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modhook import Tracker
from modhook.cube import Cube, Plan, create
from modhook.plugin.manager import KINDS, Plugins, plugins
from modhook.plugin.variables import Variable
from modhook.report import write_report
from modhook.run import run_study
from modhook.study import load

sys.path.insert(0, str(Path(__file__).parent))

from tiny_study import STUDY

STAGES = ["unmasked", "control", "add", "mul"]
SPLITS = ["iid", "add", "mul"]


def compute(folder: Path, variant: str | None) -> Path:
    """Run the study, and return its cube."""
    file = folder / "tiny.toml"
    file.write_text(STUDY)
    installed = plugins()
    return run_study(load(file, variant=variant, plugins=installed), folder, installed, Tracker()).path


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cube of two seeds at two sweep points; do not change it."""
    return compute(tmp_path_factory.mktemp("real"), None)


@pytest.fixture(scope="session")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cube of the variant `one`: one run; do not change it."""
    return compute(tmp_path_factory.mktemp("one"), "one")


@pytest.fixture(scope="session")
def real_page(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the cube `real`, with every figure; do not change it."""
    return write_report(real, tmp_path_factory.mktemp("pages") / "real.html", plugins())


@pytest.fixture(scope="session")
def one_page(one: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the cube `one`, with every figure; do not change it."""
    return write_report(one, tmp_path_factory.mktemp("pages") / "one.html", plugins())


@pytest.fixture(scope="session")
def no_figures() -> Plugins:
    """Everything installed but the figures, which take most of a report's time."""
    return Plugins([e for kind in KINDS if kind != "figures" for e in plugins().entries(kind)], ())


def by_hand(path: Path, accuracy: Any, attrs: dict[str, Any] | None = None, sweep: tuple[str, ...] = ("a",)) -> Cube:
    """A cube with accuracies (seed, stage, split), equal at all sweep points, and losses; rows of NaN stay pending."""
    variables = (
        Variable("scores/accuracy", ("stage", "split"), "float64", "accuracy", attrs={"table": "percent"}),
        Variable("history/train_loss", ("train_step",), "float64", "loss"),
        Variable("history/loss", ("stage", "step"), "float64", "loss"),
    )
    labels = {
        "scores": {"stage": STAGES, "split": SPLITS},
        "history": {"stage": STAGES[1:], "step": [1, 2], "train_step": [1, 2]},
    }
    seeds = list(range(1, len(accuracy) + 1))
    cube = create(path, Plan(attrs or {}, {"seed": seeds, "model.kind": list(sweep)}, variables, labels))
    for seed, rows in zip(seeds, np.asarray(accuracy), strict=True):
        for kind in sweep:
            for stage, row in zip(STAGES, rows, strict=True):
                if not np.isnan(row).all():
                    cube.write("scores/accuracy", row, {"seed": seed, "model.kind": kind}, stage=stage)
                    cube.set_status({"seed": seed, "model.kind": kind}, stage, "done")
    return cube


@pytest.fixture
def make() -> Callable[..., Cube]:
    """Make a cube by hand."""
    return by_hand
