"""CIFAR-10 (reference, section 7): how much a class loses under the mask that never saw it, and how much the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure
from modhook_plugins.figures.class_removal import removed
from modhook_plugins.figures.common import (
    GREY,
    PAGE,
    SMALL,
    Series,
    Spread,
    colour,
    gap,
    grouped_bars,
    say_seeds,
    seeds,
    shared_legend,
    spread,
    spreads,
    styled,
)
from modhook_plugins.figures.networks import Network, networks
from modhook_plugins.figures.scales import group_ticks


class ClassDrops(Figure):
    """Per removed class: its relative drop of accuracy, and the largest drop of another class over it (at least 0). Cubes: CIFAR-10
    class removal, one colour per network (the paper has three).
    """

    rank = 0
    requires = ("class_removal/target_drop", "class_removal/other_share")

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw the drops above, the ratios below, one group of bars per class."""
        found, note = networks(cubes)
        shown: list[Spread] = []
        with styled():
            stages = list(dict.fromkeys(s for n in found for s in removed(n)))
            figure = MatplotlibFigure(figsize=(PAGE, 4.4))
            above, below = figure.subplots(2, 1)
            figure.suptitle("What a mask without a class loses")
            drops = _series(found, "target_drop", stages)
            grouped_bars(above, stages, drops, "relative drop of\nthe removed class [%]")
            _down_to_the_least(above, drops, 100)
            ratios = _series(found, "other_share", stages)
            grouped_bars(
                below, stages, ratios, "largest other drop /\nthat of the removed class", 1, lambda v: f"{v:.2f}", None
            )
            below.set_xlabel("removed class")
            shown += [s for one in (*drops, *ratios) for s in one.values]
            shared_legend(figure, above)
            say_seeds(figure, shown, seeds(found), note)
        return figure


class DropStatistics(Figure):
    """Drops of the removed class and of the other one that loses most (at least 0), over all removed classes: in points of accuracy,
    and relative. Cubes: CIFAR-10 class removal, one group per network.
    """

    rank = 5
    requires = ("class_removal/difference", "class_removal/drop")

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw per network the mean over classes (bars of deviation: over seeds) and, in grey, every class' own mean."""
        found, note = networks(cubes)
        shown: list[Spread] = []
        with styled():
            figure = MatplotlibFigure(figsize=(PAGE, 2.6))
            every = figure.subplots(1, 2)
            figure.suptitle("Drops of accuracy over all removed classes")
            for axes, relative in zip(every, (False, True), strict=True):
                axes.set_title("relative to the control" if relative else "in points of accuracy")
                axes.set_ylabel("relative drop [%]" if relative else "drop [percentage points]")
                shown += _dots(axes, found, relative)
            shared_legend(figure, *every)
            say_seeds(figure, shown, seeds(found), note, "crosses: classes")
        return figure


def _dots(axes: Axes, found: Sequence[Network], relative: bool) -> list[Spread]:
    """Draw both kinds of drops of every network; return the means over classes."""
    kinds = (("removed class", "o"), ("largest other", "s"))
    group_ticks(axes, [n.label for n in found])
    axes.axhline(0, color="0.15", linewidth=0.6)
    shown, missing = [], []
    for i, (label, marker) in enumerate(kinds):
        axes.plot([], [], marker, color=colour(i), markersize=4, label=label)
    for at, network in enumerate(found):
        for i, (values, (_, marker)) in enumerate(zip(drops(network, relative), kinds, strict=True)):
            x = at + (i - 0.5) * 0.36
            mean = spread(values.mean("stage"))
            shown.append(mean)
            if not mean.count:
                missing.append(x)
                continue
            classes = 100 * values.mean("seed").values
            axes.plot(x + np.linspace(-0.05, 0.05, len(classes)), classes, "x", color="0.55", markersize=3, zorder=1)
            axes.errorbar(
                [x + 0.1], [100 * mean.mean], yerr=[100 * mean.deviation] if mean.count > 1 else None,
                marker=marker, color=colour(i), markersize=4, linestyle="none",
            )  # fmt: skip
            written = f"{100 * mean.mean:.0f}".replace("-", "\N{MINUS SIGN}")
            axes.annotate(
                written,
                (x + 0.1, 100 * mean.mean),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=SMALL,
                va="center",
            )
    if len(missing) == len(shown):
        gap(axes, "no run has finished yet")
    else:
        for x in missing:
            axes.annotate("none", (x, 0), rotation=90, fontsize=SMALL, ha="center", va="bottom", color=GREY)
    return shown


def drops(network: Network, relative: bool) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the drop of the removed class and the largest of another one, at least 0: (seed, stage) each, as shares."""
    stages = removed(network)
    if relative:
        every = network.values("class_removal/drop").sel(stage=stages)  # (seed, stage, true)
    else:
        square = network.values("class_removal/difference").sel(stage=stages)  # (seed, stage, true, predicted)
        every = xr.concat([-square.isel(true=i, predicted=i, drop=True) for i in range(square.sizes["true"])], "true")
        every = every.assign_coords(true=square["true"].values).transpose("seed", "stage", "true")
    classes = [str(c) for c in every["true"].values]
    target, other = (np.full(every.shape[:2], np.nan) for _ in range(2))
    for i, stage in enumerate(stages):
        c = classes.index(stage)
        rest = np.delete(every.values[:, i], c, axis=1)  # (seed, true)
        target[:, i] = every.values[:, i, c]
        known = np.isfinite(rest).any(1)
        other[known, i] = np.maximum(np.nanmax(rest[known], axis=1), 0) if known.any() else np.nan
    return tuple(xr.DataArray(v, dims=("seed", "stage")) for v in (target, other))  # type: ignore[return-value]


def _series(found: Sequence[Network], name: str, stages: Sequence[str]) -> list[Series]:
    """Return one series per network over the stages; a class that a network keeps has none."""
    return [
        Series(n.label, spreads(n.values(f"class_removal/{name}").reindex(stage=list(stages)), "stage")) for n in found
    ]


def _down_to_the_least(axes: Axes, series: Sequence[Series], scale: float) -> None:
    """Make room for negative bars."""
    ends = [scale * (s.mean - np.nan_to_num(s.deviation)) for one in series for s in one.values if s.count]
    low = min([0.0, *ends])
    axes.set_ylim(bottom=1.1 * low)
