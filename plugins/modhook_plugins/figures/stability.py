"""Mask stability (reference, section 7): how alike are two masks of one function?"""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr
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
    spreads,
    styled,
)
from modhook_plugins.figures.networks import layer_labels, networks


class Stability(Figure):
    """IoU of two masks of the same function: in total per function, and per layer over all functions. Cubes: CIFAR-10 mask
    stability, one row per network.
    """

    requires = ("stability/iou", "stability/iou_total", "stability/chance", "stability/chance_total")

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw both panels per network; the black marks are what independent masks of the same densities would give."""
        found, note = networks(cubes)
        shown: list[Spread] = []
        with styled():
            figure = MatplotlibFigure(figsize=(PAGE, 2.6 * len(found) + 0.3))
            grid = figure.subplots(len(found), 2, squeeze=False)
            figure.suptitle("IoU of two masks of the same function")
            for row, network in zip(grid, found, strict=True):
                for axes, name, dim in zip(row, ("_total", ""), ("function", "parameter"), strict=True):
                    iou, chance = network.values(f"stability/iou{name}"), network.values(f"stability/chance{name}")
                    if dim == "parameter":
                        # The spread is that of the seeds, not of the functions.
                        iou, chance = iou.mean("function"), chance.mean("function")
                    labels = layer_labels(iou[dim].values) if dim == "parameter" else [str(f) for f in iou[dim].values]
                    series = Series("two masks of one function", spreads(iou, dim))
                    grouped_bars(axes, labels, [series], "IoU (0 to 1)", 1, lambda v: f"{v:.2f}", 1.0,
                                 [Series("chance", spreads(chance, dim))])  # fmt: skip
                    axes.set_title(("all weights, per function" if dim == "function" else "per layer, mean over functions")
                                   + (f" ({network.label})" if len(found) > 1 else ""))  # fmt: skip
                    shown += series.values
            shared_legend(figure, grid[0, 0])
            say_seeds(figure, shown, seeds(found), note)
        return figure
