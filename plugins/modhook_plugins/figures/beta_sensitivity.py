"""What the regulariser's strength does to accuracy and sharing (reference, section 7)."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure
from modhook_plugins.figures.common import (
    COLUMN,
    PAGE,
    Series,
    Spread,
    gap,
    label_ends,
    lines,
    say_seeds,
    seeds,
    spreads,
    styled,
)
from modhook_plugins.figures.networks import networks

BETA = "masks.beta"


class BetaSensitivity(Figure):
    """Accuracy of each mask on its own problems, and shared weights, against beta. Cubes: add/mul with a sweep of masks.beta; one
    column per network.
    """

    rank = 4
    requires = ("scores/accuracy", "overlap/shared_total")
    tasks = ("addmul",)

    def lacks(self, cubes: Sequence[xr.DataTree]) -> str:
        """Every cube must sweep beta."""
        swept = all(BETA in c.attrs.get("modhook_run_dims", ()) and c.sizes.get(BETA, 0) > 1 for c in cubes)
        return "" if swept else "it needs a study that sweeps masks.beta (studies/addmul_beta.toml)"

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw accuracy above, sharing below."""
        found, note = networks(cubes, pool=(BETA,), limit=4)
        shown: list[Spread] = []
        with styled():
            figure = MatplotlibFigure(figsize=(COLUMN if len(found) == 1 else PAGE, 4.2))
            grid = figure.subplots(2, len(found), squeeze=False, sharex="col", sharey="row")
            figure.suptitle("Sensitivity to beta", fontsize=mpl.rcParams["axes.titlesize"] + 1)
            for column, network in enumerate(found):
                accuracy, shared = (network.values(n).sortby(BETA) for n in ("scores/accuracy", "overlap/shared_total"))
                beta = [float(b) for b in accuracy[BETA].values]
                above = [
                    Series(label, spreads(accuracy.sel(stage=stage, split=split), BETA))
                    for label, stage, split in (
                        ("add", "add", "add"),
                        ("mul", "mul", "mul"),
                        ("control", "control", "iid"),
                    )
                ]
                below = [Series(s, spreads(shared.sel(stage=s), BETA)) for s in ("add", "mul")]
                for axes, series in ((grid[0, column], above), (grid[1, column], below)):
                    if len(beta) > 1 and min(beta) > 0:
                        axes.set_xscale("log")
                    axes.set_ylim(0, 105)
                    lines(axes, beta, series, 100)
                    label_ends(axes, beta, series, 100)
                    shown += [s for one in series for s in one.values]
                    if not any(s.count for one in series for s in one.values):
                        gap(axes, "no run has finished yet")
                grid[0, column].set_title(network.label)
                grid[1, column].set_xlabel("beta [loss per logit]")
            grid[0, 0].set_ylabel("accuracy [%]")
            grid[1, 0].set_ylabel("shared weights [%]")
            say_seeds(figure, shown, seeds(found), note)
        return figure
