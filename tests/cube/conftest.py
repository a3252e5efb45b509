"""A small study's cube: two seeds, a sweep, masks of a layer with a bias, an integer buffer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modhook.cube import Cube, Plan, create, layout_variables, open_for_writing, write_masks, write_weights
from modhook.plugin.variables import Variable

STAGES = ["unmasked", "control", "add"]
STATE = {"l.weight": ((3, 5), "float32"), "l.bias": ((3,), "float32"), "seen": ((), "int64")}
RUN = {"seed": 2, "masks.beta": 3e-5}


def small_plan(seeds: int = 2, **changes: Any) -> Plan:
    """Plan a small study."""
    layout = layout_variables("layout0", STATE, ["l.weight"], ["control", "add"])
    arguments: dict[str, Any] = {
        "attrs": {"study": {"name": "small"}},
        "run_dims": {"seed": list(range(1, seeds + 1)), "masks.beta": [1e-5, 3e-5]},
        "variables": (
            Variable("scores/accuracy", ("stage", "split"), "float64", "share of right answers"),
            Variable("overlap/kept", ("stage",), "int64", "number of kept weights"),
            *layout.variables,
        ),
        "labels": {
            "scores": {"stage": STAGES, "split": ["iid", "add"]},
            "overlap": {"stage": ["control", "add"]},
            **layout.labels,
        },
        "sizes": layout.sizes,
    }
    return Plan(**{**arguments, **changes})


def fill_run(cube: Cube, run: dict[str, Any], salt: int = 0) -> dict[str, Any]:
    """Write everything of one run; return what was written."""
    rng = np.random.default_rng([int(run["seed"]), int(run["masks.beta"] * 1e6), salt])
    accuracy = rng.random((3, 2))
    state = {
        "l.weight": torch.from_numpy(rng.normal(size=(3, 5))).float(),
        "l.bias": torch.from_numpy(rng.normal(size=3)).float(),
        "seen": torch.tensor(int(rng.integers(1, 99))),
    }
    logits = {s: {"l.weight": torch.from_numpy(rng.normal(size=(3, 5))).float()} for s in ("control", "add")}
    write_weights(cube, "layout0", run, state)
    for stage, its in logits.items():
        write_masks(cube, "layout0", run, stage, its)
        cube.write("overlap/kept", np.int64((its["l.weight"] >= 0).sum()), run, stage=stage)
    for i, stage in enumerate(STAGES):
        cube.write("scores/accuracy", accuracy[i], run, stage=stage)
        cube.write("timing/seconds", 1.5, run, stage=stage)
        cube.set_status(run, stage, "done", route="loop", threads=1)
    return {"accuracy": accuracy, "state": state, "logits": logits}


@pytest.fixture
def plan() -> Callable[..., Plan]:
    """Make a small plan; keyword arguments replace its fields."""
    return small_plan


@pytest.fixture
def fill() -> Callable[..., dict[str, Any]]:
    """Write everything of one run."""
    return fill_run


@pytest.fixture
def run() -> dict[str, Any]:
    """One run of the small plan."""
    return dict(RUN)


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create(tmp_path_factory.mktemp("template") / "small.zarr", small_plan()).path


@pytest.fixture
def cube(tmp_path: Path, _template: Path) -> Cube:
    """An empty cube of one's own."""
    shutil.copytree(_template, tmp_path / "small.zarr")
    return open_for_writing(tmp_path / "small.zarr")


@pytest.fixture(scope="module")
def full_cube(tmp_path_factory: pytest.TempPathFactory) -> Cube:
    """A cube with all four runs written; do not change it."""
    cube = create(tmp_path_factory.mktemp("full") / "small.zarr", small_plan())
    for seed in (1, 2):
        for beta in (1e-5, 3e-5):
            fill_run(cube, {"seed": seed, "masks.beta": beta})
    return cube
