"""CIFAR-10 (reference, section 7): what a mask that never saw a class takes each class for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.patches import Rectangle

from modhook import Figure
from modhook_plugins.figures.common import PAGE, Spread, heat, say_seeds, seeds, spread, styled
from modhook_plugins.figures.networks import Network, labels_of, networks

_ACROSS = 3


def removed(network: Network) -> list[str]:
    """Return the stages that each lack a class."""
    return [s for s in labels_of(network.cube, "class_removal", "stage") if s != "control"]


class ClassConfusion(Figure):
    """The control's confusion, and per removed class the confusion under its mask minus the control's; every cell with its deviation
    over seeds. Cubes: CIFAR-10 class removal; rows of matrices per network.
    """

    rank = 10
    requires = ("class_removal/confusion", "class_removal/difference")

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw the matrices, the control's in % of the true class, the others in percentage points; the removed class is framed."""
        found, note = networks(cubes, limit=4)
        shown: list[Spread] = []
        with styled():
            confusion = [n.values("class_removal/confusion") for n in found]
            difference = [n.values("class_removal/difference") for n in found]
            # (network, stage) of every matrix; each network begins a row
            places = [[(i, stage) for stage in ["control", *removed(n)]] for i, n in enumerate(found)]
            rows = [line[i : i + _ACROSS] for line in places for i in range(0, len(line), _ACROSS)]
            figure = MatplotlibFigure(figsize=(PAGE, 2.45 * len(rows) + 0.5))
            grid = figure.subplots(len(rows), _ACROSS, squeeze=False)
            figure.suptitle(
                "Confusion under the control (blue, in %), and under the mask without a class minus that (points)"
            )
            largest = [np.nanmax(np.abs(d.mean("seed").values)) for d in difference if np.isfinite(d.values).any()]
            limit = max([0.01, *largest])
            for line, row in zip(grid, rows, strict=True):
                for axes in line[len(row) :]:
                    axes.set_axis_off()
                for at, (axes, (i, stage)) in enumerate(zip(line, row, strict=False)):
                    control = stage == "control"
                    values = (confusion if control else difference)[i].sel(stage=stage)
                    own = _matrix(axes, values, 1.0 if control else limit, not control)
                    names = [str(c) for c in values["true"].values]
                    if stage in names:
                        c = names.index(stage)
                        axes.add_patch(Rectangle((c - 0.5, c - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1))
                        title = f"without {stage}: {_number(own[c][c], 'none', ' ')}"
                    else:
                        title = stage if len(found) == 1 else f"{found[i].label}: {stage}"
                    shown += [cell for cells in own for cell in cells]
                    axes.set_title(title, fontsize=6.5)
                    if not at:
                        axes.set_ylabel("true class", fontsize=6)
                    if row is rows[-1]:
                        axes.set_xlabel("taken for", fontsize=6)
            say_seeds(figure, shown, seeds(found), note, "numbers below 0.5 are left out", bars="\N{PLUS-MINUS SIGN}")
        return figure


def _matrix(axes: Axes, values: xr.DataArray, limit: float, diverging: bool) -> list[list[Spread]]:
    """Draw one matrix (seed, true, predicted) with its numbers in percent, and return them as shares."""
    names = [str(c) for c in values["true"].values]
    cells = [[spread(values.isel(true=t, predicted=p)) for p in range(len(names))] for t in range(len(names))]
    means = np.array([[c.mean for c in line] for line in cells])  # (true, predicted)
    heat(axes, means, names, names, limit, diverging)
    axes.tick_params(labelsize=4.8, pad=1)
    axes.tick_params(axis="x", rotation=90)
    for (t, p), mean in np.ndenumerate(means):
        axes.text(
            p, t, _number(cells[t][p], "", "\n"), ha="center", va="center", fontsize=3.6, linespacing=0.9,
            color="white" if abs(mean) > 0.6 * limit else "black",
        )  # fmt: skip
    return cells


def _number(cell: Spread, missing: str, between: str) -> str:
    """Write a mean and its deviation in whole percent; nothing where both are 0."""
    if not cell.count:
        return missing
    mean, deviation = round(100 * cell.mean), round(100 * cell.deviation) if cell.count > 1 else 0
    if not mean and not deviation:
        return "0" if missing else ""
    sign = "\N{MINUS SIGN}" if mean < 0 else ""
    return f"{sign}{abs(mean)}" + (f"{between}\N{PLUS-MINUS SIGN}{deviation}" if cell.count > 1 else "")
