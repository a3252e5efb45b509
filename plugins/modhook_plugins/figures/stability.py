"""Mask stability (reference, section 7): how alike are two masks of one function?"""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure
from modhook_plugins.figures.common import (
    PAGE,
    Series,
    Spread,
    grouped_bars,
    say_seeds,
    seeds,
    shared_legend,
    spread,
    spreads,
    styled,
)
from modhook_plugins.figures.networks import layer_labels, networks
from modhook_plugins.figures.scales import one_scale


class Stability(Figure):
    """IoU of two masks of the same function: in total, pooled and per function, and per layer over all functions. Cubes: CIFAR-10
    mask stability, one row per network.
    """

    rank = 0
    requires = ("stability/iou", "stability/iou_total", "stability/chance", "stability/chance_total")

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw both panels per network; the black marks are what independent masks of the same densities would give.

        The first bar pools all pairs of masks, over functions and seeds: their mean and deviation, as the reference gives them.
        """
        found, note = networks(cubes)
        shown: list[Spread] = []
        pairs: list[Spread] = []
        with styled():
            figure = MatplotlibFigure(figsize=(PAGE, 2.6 * len(found) + 0.3))
            grid = figure.subplots(len(found), 2, squeeze=False)
            figure.suptitle("IoU of two masks of the same function")
            for (total, layers), network in zip(grid, found, strict=True):
                iou, chance = (
                    network.values(f"stability/{name}_total") for name in ("iou", "chance")
                )  # (seed, function)
                functions = [str(f) for f in iou["function"].values]
                bars, marks = spreads(iou, "function"), spreads(chance, "function")
                pairs.append(spread(iou))
                _draw(total, ["all", *functions], (pairs[-1], *bars), (spread(chance), *marks))
                # The spread is that of the seeds, not of the functions.
                iou, chance = (network.values(f"stability/{name}").mean("function") for name in ("iou", "chance"))
                each = spreads(iou, "parameter")
                _draw(layers, layer_labels(iou["parameter"].values), each, spreads(chance, "parameter"))
                which = f" ({network.label})" if len(found) > 1 else ""
                total.set_title(f"all weights, per function{which}")
                layers.set_title(f"per layer, mean over functions{which}")
                shown += (*bars, *each)
            one_scale(grid.ravel().tolist())
            shared_legend(figure, grid[0, 0])
            pooled = "; ".join(
                f"all: {p.mean:.3f}"
                + (
                    f" \N{PLUS-MINUS SIGN} {p.deviation:.3f} over {p.count} pairs of masks"
                    if p.count > 1
                    else " of one pair"
                )
                for p in pairs
                if p.count
            )
            say_seeds(figure, shown, seeds(found), note, pooled)
        return figure


def _draw(axes: Axes, labels: Sequence[str], iou: Sequence[Spread], chance: Sequence[Spread]) -> None:
    series, marks = Series("two masks of one function", tuple(iou)), Series("chance", tuple(chance))
    grouped_bars(axes, labels, [series], "IoU (0 to 1)", 1, lambda v: f"{v:.2f}", 1.0, [marks])
