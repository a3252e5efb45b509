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
from modhook_plugins.figures.scales import one_scale


class TransferSharing(Figure):
    """Share of reused weights in each layer's mask, for tasks 2, 4, 6, 8, 10: permutations 1, 3, 5, 7, 9, counted from 0. Cubes:
    transfer, one panel per initialisation (the paper has three).
    """

    rank = 0
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
                series = [
                    Series(f"task {s + 1}", spreads(reused.isel(stage=s).sel(parameter=weights), "parameter"))
                    for s in range(1, reused.sizes["stage"], 2) or [0]
                ]
                grouped_bars(axes, layer_labels(weights), series, "reused weights [%]")
                shown += [s for one in series for s in one.values]
            one_scale(every)
            shared_legend(figure, *every)
            say_seeds(figure, shown, seeds(found), note, "task n learns permutation n \N{MINUS SIGN} 1")
        return figure
