"""What the figures of the CIFAR-10 studies show, recomputed by brute force from masks and confusion matrices of small real cubes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from kept_masks import masks

from modhook_plugins.figures.class_drops import ClassDrops, DropStatistics, drops
from modhook_plugins.figures.class_removal import ClassConfusion
from modhook_plugins.figures.networks import Network
from modhook_plugins.figures.stability import Stability

Cubes = Callable[[str], xr.DataTree]
Read = Callable[[Any], dict[str, list[float]]]


def test_class_confusion(real: Cubes) -> None:
    """The first matrix is the control's, the others are differences to it; every number stands beside its deviation over seeds."""
    cube = real("cifar")
    confusion = cube["class_removal/confusion"].load()
    drawn = ClassConfusion().draw([cube]).axes
    for axes, stage in zip(drawn, ("control", "cat", "ship"), strict=True):
        both = confusion.sel(stage=stage).values - (0 if stage == "control" else confusion.sel(stage="control").values)
        mean, deviation = 100 * both.sum(0) / 2, 100 * np.abs(both[0] - both[1]) / math.sqrt(2)  # of two seeds
        assert np.asarray(axes.images[0].get_array()) == pytest.approx(mean)
        written = {t.get_position(): t.get_text() for t in axes.texts}
        for (row, column), m in np.ndenumerate(mean):
            d = deviation[row, column]
            if min(abs(abs(x) % 1 - 0.5) for x in (m, d)) > 1e-6:  # halves are rounded either way
                sign = "\N{MINUS SIGN}" if round(m) < 0 else ""
                wanted = f"{sign}{abs(round(m))}\n±{round(d)}" if round(m) or round(d) else ""
                assert written[column, row] == wanted


def lost_by_classes(cube: xr.DataTree, relative: bool) -> dict[str, list[tuple[float, float]]]:
    """Per removed class and seed: what it loses, and the most that another class loses, which is 0 if all others gain."""
    confusion = cube["class_removal/confusion"].load()
    classes = [str(c) for c in confusion["true"].values]
    found: dict[str, list[tuple[float, float]]] = {"cat": [], "ship": []}
    for stage, pairs in found.items():
        for s in range(2):
            new, old = (np.diagonal(confusion.sel(stage=g).values[s]).tolist() for g in (stage, "control"))
            lost = [
                (o - n) / (o if relative else 1) if o or not relative else math.nan
                for n, o in zip(new, old, strict=True)
            ]
            target = lost.pop(classes.index(stage))
            pairs.append((target, max([0.0, *(v for v in lost if not math.isnan(v))])))
    return found


def average(values: list[float]) -> float:
    """Mean of the numbers that are known."""
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan


def test_class_drops(real: Cubes, bars: Read) -> None:
    """Above the relative drop of the removed class, below the largest other one over it."""
    cube = real("cifar")
    above, below = ClassDrops().draw([cube]).axes
    lost = lost_by_classes(cube, relative=True)
    known = {stage: [t for t, _ in pairs if not math.isnan(t)] for stage, pairs in lost.items()}
    (drawn,) = bars(above).values()
    assert drawn == pytest.approx([100 * np.mean(v) if v else 0 for v in known.values()])
    ratios = {stage: [o / t for t, o in pairs if t > 0] for stage, pairs in lost.items()}
    (drawn,) = bars(below).values()
    assert drawn == pytest.approx([np.mean(v) if v else 0 for v in ratios.values()])


def test_drop_statistics(real: Cubes) -> None:
    """Left in points of accuracy, right relative: the means over classes, then over seeds, and every class' own as a cross."""
    cube = real("cifar")
    for axes, relative in zip(DropStatistics().draw([cube]).axes, (False, True), strict=True):
        lost = lost_by_classes(cube, relative)
        dots = [c.lines[0].get_ydata()[0] for c in axes.containers if hasattr(c, "lines")]
        means = [average([average([pairs[s][kind] for pairs in lost.values()]) for s in range(2)]) for kind in (0, 1)]
        assert dots == pytest.approx([100 * m for m in means if not math.isnan(m)])
        crosses = [line.get_ydata() for line in axes.lines if line.get_marker() == "x"]
        wanted = [100 * average([o for _, o in pairs]) for pairs in lost.values()]
        assert crosses[-1] == pytest.approx(wanted, nan_ok=True)


def test_stability(real: Cubes, bars: Read, whiskers: Callable[[Any], list[float]]) -> None:
    """Bars are the IoU of the two masks of each function; the first pools all pairs of masks, over functions and seeds."""
    cube = real("stability")
    figure = Stability().draw([cube])
    axes = figure.axes[0]
    every: list[list[float]] = []
    for function in cube["stability"]["function"].values:
        values = []
        for s in (1, 2):
            a, b = (masks(cube, s, f"{function} {i}") for i in (1, 2))
            values.append(float(sum((a[n] & b[n]).sum() for n in a) / sum((a[n] | b[n]).sum() for n in a)))
        every.append(values)
    flat = [v for values in every for v in values]
    mean = sum(flat) / len(flat)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in flat) / (len(flat) - 1))
    assert bars(axes)["two masks of one function"] == pytest.approx([mean, *(sum(v) / 2 for v in every)])
    (container,) = (c for c in axes.containers if hasattr(c, "patches"))
    assert whiskers(container)[0] == pytest.approx(deviation)
    note = next(t.get_text() for t in figure.texts if t.get_gid() == "note")
    assert f"all: {mean:.3f} ± {deviation:.3f} over {len(flat)} pairs of masks" in note


def test_others_that_gain_count_as_nothing() -> None:
    """Where all other classes gain, the largest drop of another one is 0, in points and relative, and so is its ratio."""
    classes = ["a", "b"]
    at = {"seed": [1], "stage": ["a"], "true": classes}
    square = xr.DataArray([[[[-0.5, 0.0], [0.0, 0.25]]]], at | {"predicted": classes}, [*at, "predicted"])
    drop = xr.DataArray([[[1.0, -0.5]]], at, list(at))
    tree = xr.DataTree.from_dict({"class_removal": xr.Dataset({"difference": square, "drop": drop})})
    for relative, target in ((False, 0.5), (True, 1.0)):
        found = [v.item() for v in drops(Network("", tree, {}), relative)]
        assert found == [target, 0.0]
