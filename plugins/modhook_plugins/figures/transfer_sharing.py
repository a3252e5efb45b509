"""Transfer (reference, section 7): how much of a new task's mask are weights that earlier tasks use?"""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure
from modhook_plugins.figures.common import (
    Series,
    Spread,
    grouped_bars,
    panels,
    say_seeds,
    seeds,
    shared_legend,
    spreads,
    styled,
)
from modhook_plugins.figures.networks import layer_labels, networks


class TransferSharing(Figure):
    """Share of reused weights in each layer's mask, for tasks 2, 4, 6, 8, 10. Cubes: transfer, one panel per initialisation (the
    paper has three).
    """

    requires = ("transfer_sharing/reused",)

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw one panel per network and one group of bars per layer; biases, which are few, are left out."""
        found, note = networks(cubes)
        shown: list[Spread] = []
        with styled():
            figure, every = panels(
                [n.label for n in found], "Reused weights in each new mask", columns=3 if len(found) > 2 else 2
            )
            for axes, network in zip(every, found, strict=True):
                reused = network.values("transfer_sharing/reused")
                weights = [p for p in reused["parameter"].values if not str(p).endswith("bias")]
                stages = list(range(2, reused.sizes["stage"], 2)) or [reused.sizes["stage"] - 1]
                series = [
                    Series(f"task {s}", spreads(reused.isel(stage=s).sel(parameter=weights), "parameter"))
                    for s in stages
                ]
                grouped_bars(axes, layer_labels(weights), series, "reused [% of the mask]")
                shown += [s for one in series for s in one.values]
            shared_legend(figure, *every)
            say_seeds(figure, shown, seeds(found), note)
        return figure
