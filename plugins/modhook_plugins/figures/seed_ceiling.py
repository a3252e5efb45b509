"""How alike masks of one function are over mask seeds, beside masks of two functions and chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure
from modhook_plugins.figures.common import (
    PAGE,
    Series,
    Spread,
    grouped_bars,
    legend_below,
    say_seeds,
    seeds,
    spread,
    spreads,
    styled,
)
from modhook_plugins.figures.networks import Network, labels_of, layer_labels, networks
from modhook_plugins.figures.scales import one_scale

_STAGES = 6


class SeedCeiling(Figure):
    """IoU of two masks of one function that differ in their mask seed, beside those of two functions and of random masks; per function and
    per tensor. Cubes: any with the control `seed_ceiling`, one row per network.
    """

    rank = 40
    requires = (
        "seed_ceiling/iou",
        "seed_ceiling/chance",
        "seed_ceiling/parameter_iou",
        "seed_ceiling/parameter_chance",
    )

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw both panels per network; the black marks are what random masks of the same sizes would have."""
        found, note = networks(cubes, limit=4)
        shown: list[Spread] = []
        with styled():
            figure = MatplotlibFigure(figsize=(PAGE, 2.6 * len(found) + 0.3))
            grid = figure.subplots(len(found), 2, squeeze=False, width_ratios=(2, 3))
            figure.suptitle("IoU of two masks of one function (seed ceiling)")
            left = 0
            for (total, tensors), network in zip(grid, found, strict=True):
                which = f" ({network.label})" if len(found) > 1 else ""
                every = labels_of(network.cube, "seed_ceiling", "stage")
                stages, left = every[:_STAGES], max(left, len(every) - _STAGES)
                pair = (network.values(f"seed_ceiling/{n}").sel(stage=stages) for n in ("iou", "chance"))
                bars = [_of_pairs(values, stages) for values in pair]  # [(own, others), ...]
                series = [Series(label, own) for label, own in zip(("the same function", "two functions"), bars[0], strict=True)]
                marks = [Series("chance", own) for own in bars[1]]
                grouped_bars(total, stages, series, "IoU (0 to 1)", 1, lambda v: f"{v:.2f}", 1.0, marks)
                total.set_title(f"all weights{which}")
                shown += bars[0][0]
                _tensors(tensors, network, stages)
                tensors.set_title(f"per tensor{which}")
            one_scale(grid.ravel().tolist())
            for axes, columns in zip(grid[-1], (2, 4), strict=True):  # the colours of the two panels mean different things
                legend_below(axes, columns, -0.12)
            say_seeds(figure, shown, seeds(found), note, f"{left} more functions" if left > 0 else "")
        return figure


def _of_pairs(values: xr.DataArray, stages: Sequence[str]) -> tuple[tuple[Spread, ...], tuple[Spread, ...]]:
    """Return, per function, the value of a function with itself, and the mean over the other functions; (seed, stage, other)."""
    own = tuple(spread(values.sel(stage=s, other=s)) for s in stages)
    return own, tuple(spread(values.sel(stage=s).drop_sel(other=s).mean("other")) for s in stages)


def _tensors(axes: object, network: Network, stages: Sequence[str]) -> None:
    iou, chance = (network.values(f"seed_ceiling/parameter_{n}").sel(stage=stages) for n in ("iou", "chance"))
    known = np.isfinite(iou.values).any(tuple(range(iou.ndim - 1)))  # (P,)
    iou, chance = (v.isel(parameter=np.flatnonzero(known) if known.any() else slice(None)) for v in (iou, chance))
    series = [Series(stage.replace("_", " "), spreads(iou.sel(stage=stage), "parameter")) for stage in stages]
    marks = [Series("chance", spreads(chance.sel(stage=stage), "parameter")) for stage in stages]
    grouped_bars(axes, layer_labels(iou["parameter"].values), series, "", 1, lambda v: f"{v:.2f}", 1.0, marks)  # type: ignore[arg-type]
