"""How the control's keep-probabilities are distributed (reference, section 7)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure
from modhook_plugins.figures.common import (
    DASHES,
    PAGE,
    Spread,
    colour,
    gap,
    say_seeds,
    seeds,
    shared_legend,
    spread,
    styled,
)
from modhook_plugins.figures.networks import networks, setting

_PANELS = (
    ("all", False, "all weights", "density [1 / probability]"),
    ("above", False, "above 0.0002 only", "density among those [1 / probability]"),
    ("all", True, "all weights, log density", "density [1 / probability]"),
)


class MaskHistogram(Figure):
    """Density of sigmoid(logit) of the control stage in 500 bins: all, those above 2e-4, all on a log axis. Cubes: any with the
    analysis mask_histogram; one line per network (the paper has four).
    """

    rank = 75
    requires = ("mask_histogram/all", "mask_histogram/above")

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw three panels; the band around a line is the standard deviation over seeds."""
        found, note = networks(cubes)
        shown: list[Spread] = []
        with styled():
            figure = MatplotlibFigure(figsize=(PAGE, 2.6))
            every = figure.subplots(1, len(_PANELS))
            figure.suptitle("Keep-probabilities of the control's weights")
            several = len({setting(n.cube, "task.name") for n in found}) > 1
            for axes, (name, log, title, label_y) in zip(every, _PANELS, strict=True):
                missing = []
                for i, network in enumerate(found):
                    label = (
                        f"{setting(network.cube, 'task.name')}: {network.label}"
                        if several and str(setting(network.cube, "task.name")) not in network.label
                        else network.label
                    )
                    counts = network.values(f"mask_histogram/{name}")  # (seed, bin)
                    total = counts.sum("bin", min_count=1)
                    shown.append(spread(total))
                    if not shown[-1].count:
                        missing.append(label)
                        continue
                    density = counts.sizes["bin"] * counts / total.where(total > 0)  # its integral over 0..1 is 1
                    mean = density.mean("seed").values
                    if log:
                        mean = np.where(mean > 0, mean, np.nan)
                    axes.plot(
                        counts["bin"],
                        mean,
                        color=colour(i),
                        linestyle=DASHES[i % len(DASHES)],
                        linewidth=0.9,
                        label=label,
                    )
                    if shown[-1].count > 1 and not log:
                        error = density.std("seed", ddof=1).values
                        axes.fill_between(
                            counts["bin"], mean - error, mean + error, color=colour(i), alpha=0.25, linewidth=0
                        )
                if len(missing) == len(found):
                    gap(axes, "no run has finished yet")
                elif missing:
                    axes.text(
                        0.5,
                        0.97,
                        "none yet: " + "\n".join(missing),
                        transform=axes.transAxes,
                        ha="center",
                        va="top",
                        fontsize=5.5,
                    )
                axes.set_title(title)
                axes.set_xlabel("keep-probability")
                axes.set_ylabel(label_y)
                axes.set_xlim(0, 1)
                axes.set_yscale("log") if log else axes.set_ylim(0)
            shared_legend(figure, *every)
            say_seeds(figure, shown, seeds(found), note, bars="band")
        return figure
