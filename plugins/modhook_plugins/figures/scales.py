"""Axes: labels of groups, one scale for one quantity, numbers of weights."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter


def group_ticks(axes: Axes, labels: Sequence[str]) -> None:
    """Label groups at 0, 1, ...: wrapped where they would touch, turned where they still would, and thinned out at last."""
    slot = panel_points(axes) / max(1, len(labels))
    if _touch(labels, slot):
        labels = [re.sub(r" (\D\S*)$", r"\n\1", label) for label in labels]
    turned = _touch(labels, slot)
    if turned:
        labels = [label.replace("\n", " ") for label in labels]
    places = list(range(0, len(labels), max(1, round(8 / slot)) if turned else 1))
    axes.set_xticks(places, [labels[i] for i in places])
    if turned:
        upright = slot < 14
        for tick in axes.get_xticklabels():
            tick.set(
                rotation=90 if upright else 40,
                ha="center" if upright else "right",
                rotation_mode="default" if upright else "anchor",
            )
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.5, len(labels) - 0.5)


def _touch(labels: Sequence[str], slot: float) -> bool:
    """Return whether labels side by side in slots of this many points would touch."""
    widths = [4.1 * max(map(len, label.split("\n"))) for label in labels]
    return any((a + b) / 2 + 3 > slot for a, b in itertools.pairwise(widths))


def panel_points(axes: Axes) -> float:
    """Return about how wide a panel's inside is, in points."""
    spec, figure = axes.get_subplotspec(), axes.get_figure(root=True)
    assert figure is not None
    return 72 * (figure.get_figwidth() / (spec.get_geometry()[1] if spec else 1) - 0.5)


def count_text(value: float, _: object = None) -> str:
    """Write a number of weights: 200, 5k, 1.2M; a mean below 1 as it is, 0.5."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:g}{prefix}"
    return f"{value:g}"


def count_axes(every: Sequence[Axes], which: str, least: float = 10) -> None:
    """Write an axis of several panels as counts, logarithmic on all of them if their values together span a factor of `least`."""
    low, high = np.inf, -np.inf
    for axes in every:
        first, last = (axes.xaxis if which == "x" else axes.yaxis).get_data_interval()
        low, high = min(low, first), max(high, last)
    log = 0 < low <= high and high >= least * low
    for axes in every:
        if log:
            (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        axis = axes.xaxis if which == "x" else axes.yaxis
        if log and high < 1e3 * low:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        if log:
            axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(count_text))


def one_scale(every: Sequence[Axes]) -> None:
    """Give panels of one quantity the same y axis, so that they are compared by eye; those without any data play no part."""
    limits = [axes.get_ylim() for axes in every if axes.has_data()]
    for axes in every if limits else ():
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
