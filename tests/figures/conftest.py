"""Small real cubes, computed once by `modhook run`, and ways to read what a figure shows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from modhook.cube import open_cube

# Helpers beside the tests are imported by their file's name.
sys.path.insert(0, str(Path(__file__).parent))

TRAIN = """
[train]
steps = 12
batch = 16
validate_every = 0
[masks]
steps = 6
samples = 2
lr = 0.8
validate_every = 0
"""
STUDIES = {
    "addmul": """
task = { name = "addmul", train_size = 300, valid_size = 80 }
model = { name = "fnn", hidden = [9, 7] }
sweep = { "masks.beta" = [1e-4, 1e-3] }
[analyses]
sharing = {}
inverse = {}
operation_confusion = {}
half_mask = {}
mask_histogram = {}
mask_images = {}
""",
    "tuple": """
task = { name = "double_addition", train_size = 300, valid_size = 60 }
model = { name = "lstm", hidden = 5, layers = 2 }
sweep = { "task.mode" = ["only_one_io", "together"] }
[analyses]
sharing = {}
inverse = {}
""",
    "scan": """
task = { name = "scan", splits = ["turn_left", "jump"], train_split = "turn_left" }
model = { name = "seq2seq_lstm", hidden = 4 }
[analyses]
removed_output = {}
""",
    "scratch": """
task = { name = "scan", splits = ["turn_left", "jump"] }
model = { name = "seq2seq_lstm", hidden = 4 }
sweep = { "task.train_split" = ["jump"] }
""",
    "transfer": """
task = { name = "permuted_mnist", source = "generated", permutations = 4 }
model = { name = "fnn", hidden = [8], init = "xavier" }
[analyses]
transfer_sharing = {}
""",
    "cifar": """
task = { name = "cifar10", source = "generated", removed = ["cat", "ship"] }
model = { name = "cnn", channels = [4, 4], dropout = [0.0, 0.0] }
[analyses]
class_removal = {}
gradient_cosine = { order = ["output", "conv2", "conv1"] }
""",
    "stability": """
task = { name = "cifar10_stability", source = "generated", pairs = 2 }
model = { name = "cnn", channels = [4, 4], dropout = [0.0, 0.0] }
[analyses]
stability = {}
""",
}
PROTOCOLS = {"scratch": "baseline", "transfer": "transfer"}


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], xr.DataTree]:
    """Return one of the small cubes, of two seeds; computed on first use."""
    from modhook.cli import main

    folder, known = tmp_path_factory.mktemp("cubes"), {}

    def cube(name: str) -> xr.DataTree:
        if name not in known:
            head = f'[study]\nname = "{name}"\nseeds = 2\nprotocol = "{PROTOCOLS.get(name, "posthoc")}"\n'
            # Weights that learn with the masks have no training of their own.
            train = TRAIN.replace("steps = 12\n", "") if name == "transfer" else TRAIN
            top, tables, analyses = STUDIES[name].partition("[analyses]")
            (folder / f"{name}.toml").write_text(top + head + train + tables + analyses)
            with pytest.raises(SystemExit) as stop:
                main(["run", str(folder / f"{name}.toml"), "--out", str(folder)])
            assert stop.value.code == 0
            known[name] = open_cube(folder / f"{name}.zarr")
        return known[name]

    return cube


def _bars(axes: Any) -> dict[str, list[float]]:
    return {c.get_label(): [b.get_height() for b in c] for c in axes.containers if hasattr(c, "patches")}


def _points(axes: Any) -> dict[str, list[float]]:
    return {c.get_label(): c.lines[0].get_ydata().tolist() for c in axes.containers if hasattr(c, "lines")}


def _whiskers(container: Any) -> list[float]:
    bars = container.errorbar if hasattr(container, "patches") else container
    return [float((s[1][1] - s[0][1]) / 2) for s in bars.lines[2][0].get_segments()]


@pytest.fixture
def bars() -> Callable[[Any], dict[str, list[float]]]:
    """Heights of the bars of a panel, by label."""
    return _bars


@pytest.fixture
def line_points() -> Callable[[Any], dict[str, list[float]]]:
    """Values of lines with error bars of a panel, by label."""
    return _points


@pytest.fixture
def whiskers() -> Callable[[Any], list[float]]:
    """Half lengths of the error bars of a container."""
    return _whiskers


@pytest.fixture
def mean() -> Callable[[Any], Any]:
    """Mean over seeds, written out."""
    return lambda values: np.array([np.asarray(v, dtype=float) for v in values]).sum(0) / len(values)
