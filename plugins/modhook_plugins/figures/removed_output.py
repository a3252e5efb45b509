"""Which output tokens' weights a mask drops (reference, section 7)."""

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
from modhook_plugins.figures.networks import networks
from modhook_plugins.figures.scales import one_scale


class RemovedOutput(Figure):
    """Share of the control's output-layer weights that a split's mask drops, per output token. Cubes: SCAN with masks, one panel per
    network; the paper shows the mask for jump.
    """

    rank = 10
    requires = ("removed_output/removed",)
    tasks = ("scan",)

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw one panel per network and one bar per token and split."""
        found, note = networks(cubes)
        shown: list[Spread] = []
        with styled():
            figure, every = panels(
                [n.label for n in found], "SCAN: the control's output weights that a split's mask drops", 2.7
            )
            for axes, network in zip(every, found, strict=True):
                removed = network.values("removed_output/removed")
                series = [
                    Series(f"mask {str(s).replace('_', ' ')}", spreads(removed.sel(stage=s), "token"))
                    for s in removed["stage"].values
                    if s != "control"
                ]
                tokens = [str(t).removeprefix("I_").replace("_", " ").lower() for t in removed["token"].values]
                grouped_bars(axes, tokens, series, "dropped weights [%]")
                axes.set_xlabel("output token")
                shown += [s for one in series for s in one.values]
            one_scale(every)
            shared_legend(figure, *every)
            say_seeds(figure, shown, seeds(found), note)
        return figure
