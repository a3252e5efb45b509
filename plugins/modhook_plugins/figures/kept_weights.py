"""How many weights each stage's mask keeps, layer by layer (reference, section 7)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure
from modhook_plugins.figures.common import (
    GREY,
    MARKERS,
    Series,
    Spread,
    colour,
    panels,
    say_seeds,
    seeds,
    shared_legend,
    spreads,
    styled,
)
from modhook_plugins.figures.networks import layer_labels, networks
from modhook_plugins.figures.scales import count_axes, group_ticks, panel_points


class KeptWeights(Figure):
    """Kept weights per layer and stage on a logarithmic axis, beside the layer's size. Cubes: any with masks, one panel per network."""

    rank = 65
    requires = ("overlap/kept", "overlap/size")

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw one panel per network."""
        found, note = networks(cubes)
        shown: list[Spread] = []
        means: list[float] = []
        sizes: list[float] = []
        with styled():
            most = max(len(n.cube["overlap"]["parameter"]) for n in found)
            crowded = most * max(n.cube["overlap"].sizes["stage"] for n in found) > 40
            columns = 1 if crowded else 2
            figure, every = panels([n.label for n in found], "Weights kept per layer", 2.4, columns, wide=crowded)
            for axes, network in zip(every, found, strict=True):
                kept, size = network.values("overlap/kept"), network.values("overlap/size")
                here = np.isfinite(size.values).any(0) | np.isnan(size.values).all()  # (P,)
                names = kept["parameter"].values[here]
                series = [
                    Series(str(s).replace("_", " "), spreads(kept.sel(stage=s)[..., here], "parameter"))
                    for s in kept["stage"].values
                ]
                _dots(axes, series, Series("all weights", spreads(size[..., here], "parameter")))
                group_ticks(axes, layer_labels(names))
                means += [s.mean for one in series for s in one.values if s.count and s.mean > 0]
                sizes += [float(np.nanmax(size.values))] if np.isfinite(size.values).any() else []
                axes.set_ylabel("weights kept [number]")
                shown += [s for one in series for s in one.values]
            count_axes(every, "y")
            for axes in every:
                axes.set_ylim(0.4 * min(means, default=1), 1.6 * max(sizes) if means else 10)
            shared_legend(figure, *every)
            say_seeds(figure, shown, seeds(found), note)
        return figure


def _dots(axes: Axes, series: Sequence[Series], size: Series) -> None:
    """Draw each stage's means side by side, and the layer's size as a grey line."""
    places = np.arange(len(size.values))
    axes.hlines(size.means, places - 0.45, places + 0.45, color="0.6", linewidth=1.2, label=size.label)
    width = 0.7 / max(1, len(series))
    narrow = panel_points(axes) * width / max(1, len(places)) < 6  # for a word at every mark
    said = [""] * len(places)
    for i, one in enumerate(series):
        x = places + (i - (len(series) - 1) / 2) * width
        errors = one.deviations
        axes.errorbar(
            x,
            one.means,
            # A bar below 0 has no end on a logarithmic axis.
            yerr=[np.minimum(errors, 0.999 * np.nan_to_num(one.means)), errors] if errors.any() else None,
            linestyle="none",
            marker=MARKERS[i % len(MARKERS)],
            markersize=3.2 if len(series) <= 6 else 2.2,
            markerfacecolor=colour(i) if i < len(MARKERS) else "white",
            color=colour(i),
            elinewidth=0.8,
            label=one.label,
        )
        # What a logarithmic axis cannot show.
        words = ["none" if np.isnan(mean) else "0" if mean == 0 else "" for mean in one.means]
        for at, word, before in zip(x, words, said, strict=True):
            if word and not (narrow and word == before):
                axes.annotate(
                    word,
                    (at, 0.02),
                    xycoords=("data", "axes fraction"),
                    rotation=90,
                    fontsize=5,
                    ha="center",
                    color=GREY,
                )
        said = words
