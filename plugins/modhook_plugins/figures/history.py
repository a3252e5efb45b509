"""How training and mask stages went: loss, density, accuracy on the way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.ticker import LogLocator

from modhook import Figure
from modhook_plugins.figures.common import (
    DASHES,
    MARKERS,
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
from modhook_plugins.figures.networks import Network, has, networks
from modhook_plugins.figures.scales import one_scale

_MOST = 8
# variable, axis of steps, y label, scale, logarithmic
_PANELS = (
    ("train_loss", "train_step", "training loss", 1, True),
    ("loss", "step", "mask stage: loss", 1, True),
    ("density", "step", "mask stage: weights kept [%]", 100, False),
    ("gradient_norm", "step", "mask stage: gradient norm", 1, True),
)


class History(Figure):
    """Training loss, and per mask stage loss, kept weights and gradient norm, over the steps. Cubes: any; one row per network."""

    rank = 90

    def lacks(self, cubes: Sequence[xr.DataTree]) -> str:
        """Something must have been recorded."""
        recorded = all(any(has(c, f"history/{name}") for name, *_ in _PANELS) for c in cubes)
        return "" if recorded else "it needs a history, which a study without any training step does not have"

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw one row of panels per network; the band around a line is the standard deviation over seeds."""
        found, note = networks(cubes, limit=6)
        shown: list[Spread] = []
        with styled():
            # What no network has recorded needs no panel: base training where weights learn with the masks, masks of a baseline.
            chosen = [p for p in _PANELS if any(_recorded(n, p[0]) for n in found)] or _PANELS
            figure = MatplotlibFigure(figsize=(PAGE, 1.9 * len(found) + 0.6))
            grid = figure.subplots(len(found), len(chosen), squeeze=False)
            figure.suptitle("History" if len(found) > 1 else f"History: {found[0].label}")
            wide = {name: log and _wide(found, name) for name, *_, log in chosen}
            for row, network in zip(grid, found, strict=True):
                for axes, (name, steps, label, scale, _) in zip(row, chosen, strict=True):
                    if _recorded(network, name):
                        shown += _draw(axes, network, name, steps, scale, wide[name])
                    else:
                        gap(axes, "nothing recorded (yet)")
                    axes.set_title(label, fontsize=7)
                    axes.tick_params(labelsize=6)
                row[0].set_ylabel(network.label.replace(", ", "\n").replace(" (", "\n(") if len(found) > 1 else "")
            for column in grid.T:
                one_scale(column)
                column[-1].set_xlabel("step")
            shared_legend(figure, *grid.ravel())
            say_seeds(figure, shown, seeds(found), note, bars="band")
        return figure


def _recorded(network: Network, name: str) -> bool:
    return network.has(f"history/{name}") and bool(np.isfinite(network.values(f"history/{name}").values).any())


def _wide(found: Sequence[Network], name: str) -> bool:
    """Return whether the means of all networks together are positive and span a factor of more than 100."""
    every = [n.values(f"history/{name}").mean("seed").values.ravel() for n in found if _recorded(n, name)]
    means = np.concatenate([v[np.isfinite(v)] for v in every]) if every else np.zeros(1)
    return bool(means.min() > 0 and means.max() > 100 * means.min())


def _draw(axes: Axes, network: Network, name: str, steps: str, scale: float, log: bool) -> list[Spread]:
    """Draw one line per stage, or one in all; many stages are grey lines and their mean."""
    values = scale * network.values(f"history/{name}")  # (seed, [stage,] step)
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
        axes.minorticks_off()
    x = values[steps].values
    if "stage" not in values.dims:
        return [_line(axes, x, values, "training", 0, "0.25")]
    stages = [str(s) for s in values["stage"].values]
    if len(stages) > _MOST:
        axes.plot(x, values.mean("seed").transpose(steps, "stage").values, color="0.75", linewidth=0.5)
        return [_line(axes, x, values.mean("stage"), f"mean of {len(stages)} stages", 0)]
    return [_line(axes, x, values.sel(stage=s), s.replace("_", " "), i) for i, s in enumerate(stages)]


def _line(
    axes: Axes, x: np.ndarray[tuple[int], np.dtype[np.float64]], values: xr.DataArray, label: str, i: int, ink: str = ""
) -> Spread:
    """Draw the mean over seeds (NaN: not finished) and its band; return how many seeds have values."""
    known = np.isfinite(values.values)  # (seed, step)
    at = known.any(0)
    count = Spread(np.nan, np.nan, int(known.any(1).sum()))
    if not count.count:
        axes.plot([], [], color=ink or colour(i), linestyle=DASHES[i % len(DASHES)], label=f"{label}: none yet")
        return spread(values.isel({values.dims[1]: 0}))
    data = values.values[:, at]
    mean = np.nanmean(data, axis=0)
    alone = MARKERS[i % len(MARKERS)] if len(mean) == 1 else None  # a line of one point would not be seen
    ink, dash = ink or colour(i), DASHES[i % len(DASHES)]
    alone = MARKERS[i % len(MARKERS)] if len(mean) == 1 else ""  # a line of one point would not be seen
    axes.plot(x[at], mean, color=ink, linestyle=dash, marker=alone, markersize=3, linewidth=1, label=label)
    if count.count > 1:
        error = np.sqrt(np.nansum((data - mean) ** 2, axis=0) / np.maximum(1, np.isfinite(data).sum(0) - 1))
        low = np.maximum(mean - error, 0.5 * np.nanmin(data)) if axes.get_yscale() == "log" else mean - error
        axes.fill_between(x[at], low, mean + error, color=ink, alpha=0.2, linewidth=0)
    return count
