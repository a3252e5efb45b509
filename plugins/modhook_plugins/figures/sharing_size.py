"""Sharing against the network's size (reference, section 7)."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure
from modhook_plugins.figures.common import COLUMN, Series, Spread, gap, lines, say_seeds, seeds, spread, styled
from modhook_plugins.figures.networks import Network, networks, setting, text
from modhook_plugins.figures.scales import count_axes


class SharingSize(Figure):
    """Share of a function's weights that the other one keeps too, against the number of masked weights. Cubes: add/mul of several
    sizes, or a sweep over them.
    """

    rank = 5
    requires = ("overlap/shared_total", "overlap/size")
    tasks = ("addmul",)

    def lacks(self, cubes: Sequence[xr.DataTree]) -> str:
        """One size alone is no comparison."""
        several = len({_model(n) for n in networks(cubes, limit=1000)[0]}) > 1
        return (
            ""
            if several
            else "it compares networks of several sizes: give several cubes, or one that sweeps model.hidden"
        )

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw one line per function, and what chance would give for masks of the same densities."""
        found, note = networks(cubes, limit=24)
        sized = sorted(((_size(n), n) for n in found), key=lambda pair: pair[0])
        known = [(size, n) for size, n in sized if np.isfinite(size)]
        notes = [
            note,
            "no run has finished: " + ", ".join(n.label for s, n in sized if np.isnan(s))
            if len(known) < len(sized)
            else "",
        ]
        shown: list[Spread] = []
        with styled():
            figure = MatplotlibFigure(figsize=(COLUMN, 2.7))
            axes = figure.subplots()
            axes.set_title("Shared weights against network size")
            x = [size for size, _ in known]
            # A line joins networks that differ in size alone; other ones (an LSTM, another beta) are points.
            join = len({_but_size(n) for _, n in known}) == 1
            for i, stage in enumerate(("add", "mul")):
                series = Series(
                    f"of the weights for {stage}", tuple(_total(n, "shared_total", stage) for _, n in known)
                )
                chance = Series(f"{stage}, by chance", tuple(_total(n, "shared_chance_total", stage) for _, n in known))
                lines(axes, x, [series], 100, first=i, join=join, under=1 - i)
                if np.isfinite(chance.means).any():
                    axes.plot(
                        x,
                        100 * chance.means,
                        color="black",
                        marker="x+"[i],
                        markersize=4,
                        linestyle=":" if join else "none",
                        linewidth=0.8,
                        label=chance.label,
                    )
                else:
                    notes.append("chance: run `modhook analyse CUBE sharing`")
                shown += series.values
            if known:
                count_axes([axes], "x", least=1)
                axes.set_xlim(min(x) / 2.5, max(x) * 2.5)
                _name_sizes(axes, known)
                axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, columnspacing=1)
            else:
                gap(axes, "no run has finished yet")
            axes.set_ylim(0, 128)
            axes.set_yticks(range(0, 101, 20))
            axes.set_xlabel("masked weights [number]")
            axes.set_ylabel("shared with the other [%]")
            say_seeds(figure, shown, seeds(found), *dict.fromkeys(notes))
        return figure


def _size(network: Network) -> float:
    """Return the number of masked weights, of the first finished seed; NaN before that."""
    totals = network.values("overlap/size").sum("parameter", min_count=1).values
    totals = totals[np.isfinite(totals)]
    return float(totals[0]) if len(totals) else float("nan")


def _model(network: Network) -> str:
    """Return the network's settings, those of the sweep point too."""
    swept = {k.removeprefix("model."): v for k, v in network.point.items() if k.startswith("model.")}
    return str(sorted({k: text(v) for k, v in (dict(setting(network.cube, "model", {})) | swept).items()}.items()))


def _but_size(network: Network) -> str:
    """Return what tells networks apart other than their size."""
    rest = {k: v for k, v in network.point.items() if k != "model.hidden"}
    return f"{network.kind} {rest} {setting(network.cube, 'masks.beta')}"


def _total(network: Network, name: str, stage: str) -> Spread:
    if not network.has(f"overlap/{name}"):
        return Spread(float("nan"), float("nan"), 0)
    return spread(network.values(f"overlap/{name}").sel(stage=stage))


def _name_sizes(axes: mpl.axes.Axes, known: Sequence[tuple[float, Network]]) -> None:
    """Write each network's name above its size, once per size, at two heights in turn."""
    for i, size in enumerate(dict.fromkeys(size for size, _ in known)):
        name = next(n.label for s, n in known if s == size).partition(",")[0]
        axes.annotate(
            name,
            (size, 0.99 - 0.07 * (i % 2)),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="top",
            fontsize=5.5,
            color="0.35",
        )
