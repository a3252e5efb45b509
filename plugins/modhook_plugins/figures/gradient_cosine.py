"""Gradient cosine (reference, section 6): do early layers still see the same gradient when late layers are masked?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure
from modhook_plugins.figures.common import (
    Series,
    Spread,
    gap,
    label_ends,
    lines,
    panels,
    say_seeds,
    seeds,
    spreads,
    styled,
)
from modhook_plugins.figures.networks import labels_of, layer_labels, networks
from modhook_plugins.figures.scales import one_scale

_MOST = 7


class GradientCosine(Figure):
    """Cosine of the loss gradients with and without masked layers, in total and per layer. Cubes: any with the analysis
    gradient_cosine; one panel per network and stage.
    """

    rank = 0
    requires = ("gradient_cosine/cosine", "gradient_cosine/cosine_total")

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw lines over how far down the mask is applied, one per weight matrix and one for all weights."""
        found, note = networks(cubes)
        places = [(n, s) for n in found for s in labels_of(n.cube, "gradient_cosine", "stage")][:8]
        shown: list[Spread] = []
        drawn: list[tuple[Axes, list[float], list[Series]]] = []
        with styled():
            labels = [f"{n.label}, mask without {s}" if s != "control" else f"{n.label}, control" for n, s in places]
            figure, every = panels(labels, "Cosine of loss gradients, unmasked network against masked", 2.6)
            for axes, (network, stage) in zip(every, places, strict=True):
                total = network.values("gradient_cosine/cosine_total").sel(stage=stage)
                each = network.values("gradient_cosine/cosine").sel(stage=stage)
                weights = [p for p in each["parameter"].values if not str(p).endswith("bias")][:_MOST]
                series = [Series("all weights", spreads(total, "masked"))] + [
                    Series(label, spreads(each.sel(parameter=p), "masked"))
                    for p, label in zip(weights, layer_labels(weights), strict=True)
                ]
                levels = [str(v) for v in total["masked"].values]
                x = [float(i) for i in range(len(levels))]
                axes.set_xticks(
                    x, [level if not i else f"+ {level}" for i, level in enumerate(levels)], rotation=30, ha="right"
                )
                known = [s for one in series for s in one.values if s.count]
                ends = [1.05 * (s.mean + side * np.nan_to_num(s.deviation)) for s in known for side in (-1, 1)]
                axes.set_ylim(min([0.0, *ends]), max([1.05, *ends]))
                axes.set_xlim(-0.3, len(levels) - 0.6)
                lines(axes, x, series, apart=0.05)
                drawn.append((axes, x, series))
                if not any(s.count for one in series for s in one.values):
                    gap(axes, "no run has finished yet")
                axes.set_xlabel("masked layers, from the output down")
                axes.set_ylabel("cosine (-1 to 1)")
                shown += [s for one in series for s in one.values]
            one_scale(every)
            for axes, x, series in drawn:
                label_ends(axes, [at + 0.25 for at in x], series)
            say_seeds(figure, shown, seeds(found), note)
        return figure
