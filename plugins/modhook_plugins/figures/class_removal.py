"""CIFAR-10 (reference, section 7): what a mask that never saw a class does to it and to the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.patches import Rectangle

from modhook import Figure
from modhook_plugins.figures.common import (
    COLUMN,
    MARKERS,
    PAGE,
    Series,
    Spread,
    colour,
    gap,
    group_ticks,
    grouped_bars,
    heat,
    panels,
    say_seeds,
    seeds,
    shared_legend,
    spread,
    spreads,
    styled,
)
from modhook_plugins.figures.networks import Network, networks

_ACROSS = 5


def _removed(network: Network) -> list[str]:
    """Return the stages that each lack a class."""
    return [str(s) for s in network.cube["class_removal"]["stage"].values if s != "control"]


class ClassConfusion(Figure):
    """Confusion under each mask minus that under the control's, one matrix per removed class. Cubes: CIFAR-10 class removal; rows
    of matrices per network.
    """

    requires = ("class_removal/difference",)

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw the matrices in percentage points; the removed class' own cell is framed, its number is in the title."""
        found, note = networks(cubes, limit=4)
        places = [(n, s) for n in found for s in _removed(n)]
        shown: list[Spread] = []
        with styled():
            columns = min(_ACROSS, max(len(_removed(n)) for n in found))
            rows = [
                [(n, s) for s in stages[i : i + columns]]
                for n in found
                for stages in [_removed(n)]
                for i in range(0, len(stages), columns)
            ]
            width = PAGE if columns > 2 else COLUMN
            height = ((width - 1.3) / columns + 0.25) * len(rows) + 0.9
            figure = MatplotlibFigure(figsize=(width, height), layout="compressed")
            grid = figure.subplots(len(rows), columns, squeeze=False)
            figure.suptitle("Confusion under the mask without a class, minus the control's")
            loaded = {n.label: n.values("class_removal/difference") for n in found}
            means = {(n.label, s): loaded[n.label].sel(stage=s).mean("seed").values for n, s in places}
            limit = max([0.01, *(np.nanmax(np.abs(m)) for m in means.values() if np.isfinite(m).any())])
            image = None
            for line, row in zip(grid, rows, strict=True):
                for axes in line[len(row) :]:
                    axes.set_axis_off()
                for at, (axes, (network, stage)) in enumerate(zip(line, row, strict=False)):
                    values = loaded[network.label].sel(stage=stage)
                    names = [str(c) for c in values["true"].values]
                    image = heat(axes, means[network.label, stage], names, names, limit, diverging=True)
                    axes.tick_params(labelsize=4.8, pad=1)
                    axes.tick_params(axis="x", rotation=90)
                    if at:
                        axes.set_yticklabels([])
                    if line is not grid[-1] and row is not rows[-1]:
                        axes.set_xticklabels([])
                    own = (
                        spread(values.sel(true=stage, predicted=stage)) if stage in names else Spread(np.nan, np.nan, 0)
                    )
                    shown.append(own)
                    _frame(axes, names, stage, own)
                    if len(found) > 1 and not at:
                        axes.set_ylabel(f"{network.label}\ntrue class", fontsize=6)
                    elif not at:
                        axes.set_ylabel("true class", fontsize=6)
            for axes in grid[-1]:
                axes.set_xlabel("taken for", fontsize=6)
            if image is not None:
                figure.colorbar(image, ax=grid, shrink=0.7, aspect=30, pad=0.01).set_label(
                    "percentage points", fontsize=6
                )
            say_seeds(figure, shown, seeds(found), note, "framed: the removed class", bars="±")
        return figure


def _frame(axes: Axes, names: Sequence[str], stage: str, own: Spread) -> None:
    """Frame the removed class' cell and write its difference into the title."""
    if not own.count:
        axes.set_title(f"{stage}: none", fontsize=6.5)
        return
    c = names.index(stage)
    axes.add_patch(Rectangle((c - 0.5, c - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1))
    axes.set_title(
        f"{stage}: {100 * own.mean:.0f}" + (f" ± {100 * own.deviation:.0f}" if own.count > 1 else ""), fontsize=6.5
    )


class ClassDrops(Figure):
    """Relative drop of the removed class and largest drop of another one, per class. Cubes: CIFAR-10 class removal, one panel per
    network (the paper has three).
    """

    requires = ("class_removal/target_drop", "class_removal/other_drop")

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw one panel per network, in percent of the control's accuracy on that class."""
        found, note = networks(cubes)
        shown: list[Spread] = []
        with styled():
            most = max(len(_removed(n)) for n in found)
            figure, every = panels(
                [n.label for n in found], "Accuracy lost without a class", 2.4, 1 if most > 5 else 2, wide=most > 5
            )
            for axes, network in zip(every, found, strict=True):
                stages = _removed(network)
                series = [
                    Series(label, spreads(network.values(f"class_removal/{name}").sel(stage=stages), "stage"))
                    for label, name in (
                        ("the removed class", "target_drop"),
                        ("the other class that loses most", "other_drop"),
                    )
                ]
                grouped_bars(axes, stages, series, "relative drop [%]")
                low = min(
                    [
                        0.0,
                        *(100 * (s.mean - np.nan_to_num(s.deviation)) for one in series for s in one.values if s.count),
                    ]
                )
                axes.set_ylim(bottom=1.1 * low)
                axes.set_xlabel("removed class")
                shown += [s for one in series for s in one.values]
            shared_legend(figure, *every)
            say_seeds(figure, shown, seeds(found), note)
        return figure


class DropStatistics(Figure):
    """Drops over all removed classes: of the class itself, of the other that loses most, and the second as a share of the first.
    Cubes: CIFAR-10 class removal, one group per network.
    """

    requires = ("class_removal/target_drop", "class_removal/other_drop", "class_removal/other_share")

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw per network the mean over classes (bars of deviation: over seeds) and, in grey, every class' own mean."""
        found, note = networks(cubes)
        kinds = (("removed class", "target_drop"), ("largest other", "other_drop"), ("other / removed", "other_share"))
        shown: list[Spread] = []
        missing: list[float] = []
        with styled():
            figure = MatplotlibFigure(figsize=(COLUMN if len(found) <= 2 else PAGE, 2.6))
            axes = figure.subplots()
            axes.set_title("Drops over all removed classes")
            group_ticks(axes, [n.label for n in found])
            for i, (label, name) in enumerate(kinds):
                axes.plot([], [], MARKERS[i], color=colour(i), markersize=4, label=label)
                for at, network in enumerate(found):
                    values = network.values(f"class_removal/{name}").sel(stage=_removed(network))
                    x = at + (i - 1) * 0.27
                    mean = spread(values.mean("stage"))
                    shown.append(mean)
                    if not mean.count:
                        missing.append(x)
                        continue
                    classes = 100 * values.mean("seed").values
                    axes.plot(
                        x + np.linspace(-0.05, 0.05, len(classes)), classes, "x", color="0.55", markersize=3, zorder=1
                    )
                    axes.errorbar(
                        [x + 0.1], [100 * mean.mean], yerr=[100 * mean.deviation] if mean.count > 1 else None,
                        marker=MARKERS[i], color=colour(i), markersize=4, linestyle="none",
                    )  # fmt: skip
                    axes.annotate(f"{100 * mean.mean:.0f}", (x + 0.1, 100 * mean.mean), xytext=(4, 0), textcoords="offset points",
                                  fontsize=5.5, va="center")  # fmt: skip
            if len(missing) == len(shown):
                gap(axes, "no run has finished yet")
            else:
                for x in missing:
                    axes.annotate("none", (x, 0), rotation=90, fontsize=5.5, ha="center", va="bottom", color="0.35")
            axes.axhline(0, color="0.15", linewidth=0.6)
            axes.set_ylabel("drop, or share of it [%]")
            shared_legend(figure, axes)
            say_seeds(figure, shown, seeds(found), note, "crosses: classes")
        return figure
