"""Scores on training items: recounted with plain matrix products, and drawn once without replacement."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modhook.cube import masks_from, open_cube, weights_from
from modhook.run.data import drawn_once
from modhook_tasks.addmul import AddMul, AddMulOptions

STUDY = """
[study]
name = "s"
[task]
name = "addmul"
train_size = 600
valid_size = 100
[model]
name = "fnn"
hidden = [64]
[train]
steps = 300
batch = 64
lr = 0.01
validate_every = 0
eval_batch = 130
[masks]
steps = 8
samples = 2
lr = 0.5
[analyses]
trained_on = { items = 10_000 }
"""


def share_right(weights: dict[str, Tensor], data: dict[str, Tensor]) -> float:
    """Return the share of problems whose two digits are both right, with matrix products alone."""
    right = 0
    for (a, b), op in zip(data["operands"].tolist(), data["operation"].tolist(), strict=True):
        x = torch.zeros(42)
        for i, digit in enumerate((a % 10, a // 10, b % 10, b // 10)):
            x[10 * i + digit] = 1
        x[40 + op] = 1
        hidden = (weights["layer1.weight"] @ x + weights["layer1.bias"]).relu()
        ones, tens = (weights["output.weight"] @ hidden + weights["output.bias"]).view(2, 10).argmax(-1).tolist()
        right += ones + 10 * tens == ((a + b) % 100 if op == 0 else a * b % 100)
    return right / len(data["operation"])


def test_all_training_items_of_each_stage(tmp_path: Path, run_study: Callable[..., None]) -> None:
    """Each stage's training data, all of it in uneven batches, under its own mask and without one, to the last item."""
    (tmp_path / "s.toml").write_text(STUDY)
    run_study(tmp_path / "s.toml", "--set", "study.seeds=1", "--out", tmp_path)
    task = AddMul(AddMulOptions(600, 100))
    with open_cube(tmp_path / "s.zarr") as cube:
        weights = weights_from(cube, seed=1)
        group = cube["trained_on"]
        scores = []
        for stage in ("control", "add", "mul"):
            masks = masks_from(cube, 1, stage)
            masked = {n: w * masks[n] if n in masks else w for n, w in weights.items()}
            data = task.train_set(stage)
            scores.append(share_right(masked, data))
            assert float(group["accuracy"].sel(seed=1, stage=stage)) == pytest.approx(scores[-1], abs=1e-6)
            unmasked = float(group["unmasked/accuracy"].sel(seed=1, stage=stage))
            assert unmasked == pytest.approx(share_right(weights, data), abs=1e-6)
        assert len(set(scores)) == 3  # the stages have other data and masks


def test_items_are_drawn_once() -> None:
    """A part of the data has no item twice, stays in order, is the same again, and other than another stage's."""
    data = {"x": torch.arange(1_000), "y": torch.arange(1_000) * 2}
    one, again, other = (drawn_once(data, 100, s) for s in ("add", "add", "mul"))
    assert torch.equal(one["x"], again["x"])
    assert torch.equal(one["y"], one["x"] * 2)
    assert len(one["x"]) == 100
    assert (one["x"].diff() > 0).all()
    assert not torch.equal(one["x"], other["x"])
    assert torch.equal(drawn_once(data, 5_000, "add")["x"], data["x"])
