"""The size curve of a stage, recomputed with numpy's sorting and plain matrix products."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from modhook.cube import logits_from, masks_from, open_cube, weights_from

STUDY = """
[study]
name = "curve"
[task]
name = "addmul"
train_size = 20_000
valid_size = 2_000
[model]
name = "fnn"
hidden = [70, 32, 16]
[train]
steps = 600
batch = 64
lr = 0.01
validate_every = 0
[masks]
steps = 8
samples = 2
lr = 0.5
logits_dtype = "float32"
[analyses]
size_curve = { points = 4 }
"""
LAYERS = ("layer1.weight", "layer2.weight", "layer3.weight", "output.weight")


def test_curve_is_what_plain_cuts_score(
    run_study: Callable[..., None],
    written_numbers: Callable[[dict[str, Tensor]], list[tuple[int, int, int, int]]],
    tmp_path: Path,
) -> None:
    """Sizes, scores of cuts and complements, threshold and areas equal those of masks cut and multiplied by hand."""
    (tmp_path / "s.toml").write_text(STUDY)
    run_study(tmp_path / "s.toml", "--out", tmp_path)
    cube = open_cube(tmp_path / "curve.zarr")
    weights, logits = weights_from(cube, seed=1), logits_from(cube, seed=1, stage="mul")
    flat = np.concatenate([logits[n].numpy().ravel() for n in LAYERS])
    order = np.argsort(-flat, kind="stable")
    curve = cube["size_curve"].to_dataset().sel(seed=1, stage="mul")

    def accuracy(kept: np.ndarray) -> tuple[float, float]:
        """Accuracy on all problems and on products, with these weights alone."""
        mask = np.zeros(len(flat), dtype=bool)
        mask[kept] = True
        parts = np.split(mask, np.cumsum([logits[n].numel() for n in LAYERS])[:-1])
        masked = dict(weights)
        for name, part in zip(LAYERS, parts, strict=True):
            masked[name] = weights[name] * torch.from_numpy(part).view(weights[name].shape)
        right = [
            (op, n == ((a + b) % 100 if op == 0 else a * b % 100)) for a, b, op, n in written_numbers(masked)
        ]
        products = [ok for op, ok in right if op == 1]
        return sum(ok for _, ok in right) / len(right), sum(products) / len(products)

    sizes = [round(float(x) * len(flat)) for x in curve["density"].values]
    assert sizes == [round(len(flat) ** (i / 3)) for i in range(4)]
    for i, size in enumerate(sizes):
        cut, rest = accuracy(order[:size]), accuracy(order[size:])
        assert float(curve["score"].sel(split="iid")[i]) == pytest.approx(cut[0], abs=1e-9)
        assert float(curve["score"].sel(split="mul")[i]) == pytest.approx(cut[1], abs=2e-3)  # all products of the split
        assert float(curve["complement"].sel(split="iid")[i]) == pytest.approx(rest[0], abs=1e-9)
    masks = masks_from(cube, seed=1, stage="mul")
    assert float(curve["threshold"]) == pytest.approx(masks.kept() / len(flat))
    k = np.array([0, *sizes]) / len(flat)
    nothing = accuracy(order[:0])[0]
    f = (curve["score"].sel(split="iid").values - nothing) / (accuracy(order)[0] - nothing)
    f = np.concatenate([[0], f])
    assert float(curve["cpr"].sel(split="iid")) == pytest.approx(np.sum((f[1:] + f[:-1]) / 2 * np.diff(k)))
    assert float(curve["cmd"].sel(split="iid")) == pytest.approx(
        np.sum((np.abs(1 - f)[1:] + np.abs(1 - f)[:-1]) / 2 * np.diff(k))
    )
