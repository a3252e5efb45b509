"""What is measured on the way: every split as the stage sees it, and a fixed part of the training set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from modhook.cube import open_cube, weights_from
from modhook.run.data import train_subset
from modhook_plugins.networks.fnn import FNN, FNNOptions
from modhook_tasks.addmul import AddMul, AddMulOptions
from modhook_tasks.scan.task import Scan, ScanOptions

Run = Callable[..., tuple[int, str, str]]


def test_the_part_of_the_training_set(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """Scores on the way equal plain ones of a run that ended there; the part is that of the reference's random state."""
    longer = ["--set", "study.seeds=1", "--set", "train.lr=0.03", "--set", "train.validate_every=200"]
    code, _, err = modhook_run("run", tiny, "--out", tmp_path / "long", *longer, "--set", "train.steps=300")
    assert code == 0, err
    code, _, err = modhook_run("run", tiny, "--out", tmp_path / "short", *longer, "--set", "train.steps=200")
    assert code == 0, err
    model = FNN(FNNOptions((12, 8))).build({"inputs": 42, "outputs": 20})
    short = open_cube(tmp_path / "short/tiny.zarr")
    model.load_state_dict(weights_from(short, seed=1))
    task = AddMul(AddMulOptions(400, 60))
    chosen = np.random.RandomState(0xB0C1FA53).choice(400, 60, replace=False).tolist()
    data, right = task.train_set(None), 0
    for i in chosen:
        (a, b), op = data["operands"][i].tolist(), int(data["operation"][i])
        x = torch.zeros(42)
        for place, digit in enumerate((a % 10, a // 10, b % 10, b // 10)):
            x[10 * place + digit] = 1
        x[40 + op] = 1
        with torch.no_grad():
            ones, tens = model(x).view(2, 10).argmax(-1).tolist()
        right += 10 * tens + ones == ((a + b) if op == 0 else (a * b)) % 100
    assert right > 0, "the test needs a network that can do something"
    history = open_cube(tmp_path / "long/tiny.zarr")["history"].sel(seed=1)
    assert history["train_subset_accuracy"].values.tolist() == [right / 60]
    there = history["train_valid_accuracy"].sel(train_valid_step=200).values
    assert there.tolist() == short["scores"]["accuracy"].sel(seed=1, stage="unmasked").values.tolist()


def test_a_thousand_items_where_there_is_no_iid_split() -> None:
    """SCAN has no split `iid`: 1,000 items of the base training set, in its order."""
    task = Scan(ScanOptions(splits=("simple",)))
    whole, part = task.train_set(None), train_subset(task)
    chosen = sorted(np.random.RandomState(0xB0C1FA53).choice(len(whole["source"]), 1000, replace=False).tolist())
    assert all(torch.equal(part[n], torch.stack([whole[n][i] for i in chosen])) for n in whole)


STUDY = """
[study]
name = "pair"
[task]
name = "double_addition"
mode = "fnn"
train_size = 200
valid_size = 50
[model]
name = "fnn"
hidden = [16]
[train]
steps = 4
batch = 16
validate_every = 2
[masks]
steps = 4
samples = 2
validate_every = 2
"""


def test_a_stage_is_measured_on_its_own_inputs(tmp_path: Path, modhook_run: Run) -> None:
    """On the way through the stage of one tuple, the other is neither shown nor measured; final scores show both."""
    (tmp_path / "pair.toml").write_text(STUDY)
    code, _, err = modhook_run("run", tmp_path / "pair.toml", "--out", tmp_path)
    assert code == 0, err
    cube = open_cube(tmp_path / "pair.zarr")
    on_the_way = cube["history"]["valid_accuracy"].sel(seed=1, valid_step=2)
    assert on_the_way.isnull().sel(stage="tuple1").values.tolist() == [False, False, True]
    assert on_the_way.isnull().sel(stage="tuple2").values.tolist() == [False, True, False]
    assert not on_the_way.isnull().sel(stage="control").any()
    assert float(on_the_way.sel(stage="tuple1", split="iid")) == float(on_the_way.sel(stage="tuple1", split="tuple1"))
    assert not cube["history"]["train_valid_accuracy"].isnull().any()
    assert not cube["scores"]["accuracy"].isnull().any()
