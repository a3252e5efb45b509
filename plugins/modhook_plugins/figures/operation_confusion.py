"""Which operation's result the network produces under each mask and without its weights (reference, section 7)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure
from modhook_plugins.figures.common import PAGE, Spread, heat, say_seeds, seeds, spread, styled
from modhook_plugins.figures.networks import labels_of, networks


class OperationConfusion(Figure):
    """Per stage a matrix: the operation that was asked for against the one whose result was produced; below it the same without the
    weights that the stage keeps. Cubes: add/mul, two rows per network.
    """

    rank = 10
    requires = ("operation_confusion/share",)
    tasks = ("addmul",)

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw two rows of matrices per network, in percent of the problems of the operation that was asked for."""
        found, note = networks(cubes)
        shown: list[Spread] = []
        notes = [note]
        with styled():
            kinds = (("share", ""), ("inverse_share", "not "))
            rows = [(n, name, prefix) for n in found for name, prefix in kinds if n.has(f"operation_confusion/{name}")]
            if len(rows) < 2 * len(found):
                notes.append("a cube of an earlier version has no inverse masks")
            if len(rows) > len(found):
                notes.append('"not add": without the weights of the mask add')
            stages = labels_of(found[0].cube, "operation_confusion", "stage")
            figure = MatplotlibFigure(figsize=(PAGE, 1.75 * len(rows) + 0.5))
            grid = figure.subplots(len(rows), len(stages), squeeze=False)
            figure.suptitle("add/mul: which operation's result is produced, in % of the problems")
            for line, (network, name, prefix) in zip(grid, rows, strict=True):
                share = network.values(f"operation_confusion/{name}")
                for axes, stage in zip(line, stages, strict=True):
                    shown += _matrix(axes, share.sel(stage=stage))
                    title = f"{prefix}{stage}" if prefix else f"mask {stage}"
                    axes.set_title(f"{network.label}: {title}" if len(found) > 1 else title)
                line[0].set_ylabel("asked for")
            for axes in grid[-1]:
                axes.set_xlabel("result produced")
            say_seeds(figure, shown, seeds(found), *notes, bars="\N{PLUS-MINUS SIGN}")
        return figure


def _matrix(axes: Axes, share: xr.DataArray) -> list[Spread]:
    """Draw one matrix (seed, true, produced) with its numbers, and return them."""
    names = [[str(v) for v in share[d].values] for d in ("true", "produced")]
    cells = [[spread(share.sel(true=t, produced=p)) for p in names[1]] for t in names[0]]
    means = np.array([[c.mean for c in line] for line in cells])  # (true, produced)
    heat(axes, means, names[0], names[1], 1.0, diverging=False)
    for (i, j), mean in np.ndenumerate(means):
        cell = cells[i][j]
        number = "none" if not cell.count else f"{100 * mean:.1f}"
        number += f"\n\N{PLUS-MINUS SIGN}{100 * cell.deviation:.1f}" if cell.count > 1 else ""
        axes.text(j, i, number, ha="center", va="center", fontsize=6.5, color="white" if mean > 0.55 else "black")
    return [c for line in cells for c in line]
