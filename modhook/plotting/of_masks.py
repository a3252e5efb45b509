"""The share of weights that masks keep, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from modhook.masks import Masks
from modhook.masks.overlap import aligned
from modhook.plotting.style import HATCHES, MARKERS, Shown, below, colour, styled

_NAMED = 60
"""Up to so many tensors, each has a bar and its name; more are marks over their places."""


def density(masks: Masks | Mapping[str, Masks]) -> Shown:
    """Return the figure; see `Plot.density`. Raises `UserError`, `MaskError`."""
    group = aligned({"masks": masks} if isinstance(masks, Masks) else masks, "same")
    shares = 100 * group.kept / np.maximum(group.size, 1)  # (F, P)
    whole = 100 * group.kept.sum(1) / max(1.0, group.size.sum())
    labels = [f"{f}: {w:.3g} % in all" for f, w in zip(group.functions, whole, strict=True)]
    alone = len(labels) == 1
    with styled(fresh=True):
        count = len(group.parameters)
        draw = _bars if count <= _NAMED else _marks
        figure = draw(group.parameters, shares, labels)
        axes = figure.axes[0]
        axes.set_title(f"Weights kept: {labels[0].removeprefix('masks: ')}" if alone else "Weights kept")
        below(figure, f"{count} tensors, {int(group.size.sum()):,} weights", 0 if alone else min(2, len(labels)))
    return figure


def _bars(names: tuple[str, ...], shares: np.ndarray[Any, Any], labels: list[str]) -> Shown:
    """Draw a bar per tensor and function, the first tensor on top."""
    functions, count = shares.shape
    thick = 0.8 / functions
    figure = Shown(figsize=(5, min(12, 0.9 + count * max(0.17, 0.09 * functions))))
    axes = figure.subplots()
    for i, label in enumerate(labels):
        y = np.arange(count) + (i - (functions - 1) / 2) * thick
        axes.barh(
            y,
            shares[i],
            thick * 0.94,
            label=label,
            color=colour(i),
            hatch=HATCHES[i % len(HATCHES)],
            edgecolor="white",
            linewidth=0,
        )
        if functions == 1:
            for at, value in zip(y, shares[i], strict=True):
                axes.annotate(
                    f"{value:.3g}", (value, at), xytext=(2, 0), textcoords="offset points", va="center", fontsize=5.5
                )
    axes.set_yticks(range(count), [n if len(n) <= 48 else f"...{n[-45:]}" for n in names])
    axes.set_ylim(count - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, labelsize=6 if count > 20 else 7)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.set_xlim(0, max(1e-9, 1.08 * float(shares.max(initial=0))))
    axes.set_xlabel("share of the tensor's weights [%]")
    return figure


def _marks(names: tuple[str, ...], shares: np.ndarray[Any, Any], labels: list[str]) -> Shown:
    """Draw a mark per tensor over the places of very many, and name some of them."""
    figure = Shown(figsize=(7, 3.2))
    axes = figure.subplots()
    places = np.arange(len(names))
    for i, label in enumerate(labels):
        axes.plot(
            places, shares[i], label=label, color=colour(i), linestyle="none", marker=MARKERS[i % len(MARKERS)], markersize=2.5,
        )  # fmt: skip
    some = np.unique(np.linspace(0, len(names) - 1, 12).round().astype(int))
    short = [n if len(n) <= 30 else f"...{n[-27:]}" for n in names]
    axes.set_xticks(some, [short[i] for i in some], rotation=40, ha="right", rotation_mode="anchor", fontsize=5.5)
    axes.set_ylim(0, None)
    axes.set_ylabel("share of the tensor's weights [%]")
    return figure
