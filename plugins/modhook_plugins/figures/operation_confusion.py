"""Which operation's result the network produces under each mask (reference, section 7)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure
from modhook_plugins.figures.common import PAGE, Spread, heat, say_seeds, seeds, spread, styled
from modhook_plugins.figures.networks import networks


class OperationConfusion(Figure):
    """Per stage a matrix: the operation that was asked for against the one whose result was produced. Cubes: add/mul, one row per
    network.
    """

    requires = ("operation_confusion/share",)
    tasks = ("addmul",)

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw one row of matrices per network, in percent of the problems of the operation that was asked for."""
        found, note = networks(cubes)
        shown: list[Spread] = []
        with styled():
            stages = [str(s) for s in found[0].cube["operation_confusion"]["stage"].values]
            figure = MatplotlibFigure(figsize=(PAGE, 1.75 * len(found) + 0.5))
            grid = figure.subplots(len(found), len(stages), squeeze=False)
            figure.suptitle("add/mul: which operation's result is produced, in % of the problems")
            for row, network in zip(grid, found, strict=True):
                share = network.values("operation_confusion/share")
                names = [[str(v) for v in share[d].values] for d in ("true", "produced")]
                for axes, stage in zip(row, stages, strict=True):
                    cells = [[spread(share.sel(stage=stage, true=t, produced=p)) for p in names[1]] for t in names[0]]
                    means = np.array([[c.mean for c in line] for line in cells])  # (true, produced)
                    heat(axes, means, names[0], names[1], 1.0, diverging=False)
                    for (i, j), mean in np.ndenumerate(means):
                        cell = cells[i][j]
                        number = "none" if not cell.count else f"{100 * mean:.1f}"
                        number += f"\n±{100 * cell.deviation:.1f}" if cell.count > 1 else ""
                        axes.text(
                            j,
                            i,
                            number,
                            ha="center",
                            va="center",
                            fontsize=6.5,
                            color="white" if mean > 0.55 else "black",
                        )
                    axes.set_title(f"{network.label}: mask {stage}" if len(found) > 1 else f"mask {stage}")
                    shown += [c for line in cells for c in line]
                row[0].set_ylabel("asked for")
            for axes in grid[-1]:
                axes.set_xlabel("result produced")
            say_seeds(figure, shown, seeds(found), note, bars="±")
        return figure
