"""Cost of a mask step against K, against the number of weights and against the batch size, in plain steps of the same setting."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.ticker import LogLocator
from measure import interleaved
from networks import CASES, Case, fnn
from steps import masked, plain

Point = dict[str, float]
NETWORKS = ("fnn-800x4", "lstm-2x256", "cnn")
SAMPLES = (1, 2, 4, 8, 16)
WIDTHS = (100, 200, 400, 800, 1600, 2400)
BATCHES = (16, 32, 64, 128, 256, 512, 1024)


def measure(device: str, seconds: float) -> dict[str, dict[str, list[Point]]]:
    """Return {curve: {network: points}}; a point holds x and the milliseconds of a plain step and a mask step."""
    found: dict[str, dict[str, list[Point]]] = {"K": {}, "weights": {}, "batch": {}}
    for name in NETWORKS:
        case = CASES[name]
        found["K"][name] = [_point(k, case, device, seconds, samples=k) for k in SAMPLES]
        found["batch"][name] = [_point(b, case, device, seconds, size=b) for b in BATCHES]
    found["weights"]["fnn, 4 layers"] = [_width(width, device, seconds) for width in WIDTHS]
    return found


def draw(found: dict[str, dict[str, list[Point]]], path: Path) -> None:
    """Draw the three curves side by side: milliseconds of the mask step (solid) and of the plain step (dotted)."""
    labels = {"K": "mask samples K", "weights": "masked weights", "batch": "batch size"}
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    for axis, (curve, label) in zip(axes, labels.items(), strict=True):
        for colour, (name, points) in zip(("#0072B2", "#D55E00", "#009E73"), found[curve].items(), strict=False):
            x = [p["x"] for p in points]
            axis.plot(x, [p["mask"] for p in points], "o-", ms=3, color=colour, label=name)
            axis.plot(x, [p["plain"] for p in points], ":", color=colour)
        axis.set(xscale="log", yscale="log", xlabel=label)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
        low, high = axis.get_ylim()
        axis.set_ylim(low, high * (high / low) ** 0.3)  # room for the legend
        axis.legend(frameon=False, fontsize=8, loc="upper left")
    axes[0].set_ylabel("milliseconds per step\n(dotted: plain training)")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def slopes(points: Sequence[Point]) -> list[float]:
    """Return how steep the curve of the mask step is between neighbours: 1 is linear, 0 flat."""
    pairs = itertools.pairwise(points)
    return [_log(b["mask"] / a["mask"]) / _log(b["x"] / a["x"]) for a, b in pairs]


def _point(x: float, case: Case, device: str, seconds: float, samples: int = 4, size: int | None = None) -> Point:
    torch.manual_seed(0)
    model = case.make().to(device).eval()
    batch: Any = tuple(t.to(device) for t in case.batch(size or case.size))
    steps = {"plain": plain(case, model, batch), "mask": masked(case, model, batch, samples)}
    times = interleaved(steps, seconds)
    steps.clear()
    gc.collect()
    return {"x": float(x), **times}


def _width(width: int, device: str, seconds: float) -> Point:
    base = CASES["fnn-800x4"]
    case = Case("fnn", lambda: fnn(42, [width] * 4, 20), base.batch, base.loss, base.size, base.target)
    weights = 42 * width + 3 * width**2 + 20 * width
    return _point(weights, case, device, seconds)


def _log(x: float) -> float:
    return float(torch.log(torch.tensor(x, dtype=torch.float64)))
