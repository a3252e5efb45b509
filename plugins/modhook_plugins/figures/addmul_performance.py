"""add/mul (reference, section 7): accuracy on additions and on multiplications under each mask and its inverse."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure
from modhook_plugins.figures.common import Series, grouped_bars, say_seeds, spread, styled, sweep_points


class AddMulPerformance(Figure):
    """Groups full, add, not add, mul, not mul; one bar for each operation's problems."""

    requires = ("scores/accuracy", "inverse/accuracy")
    tasks = ("addmul",)

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw one panel per sweep point of the first cube."""
        scores, inverse = cubes[0]["scores"]["accuracy"], cubes[0]["inverse"]["accuracy"]
        places = [
            ("full", scores, "control"),
            ("add", scores, "add"),
            ("not add", inverse, "add"),
            ("mul", scores, "mul"),
            ("not mul", inverse, "mul"),
        ]
        points = sweep_points(scores)
        with styled():
            figure = MatplotlibFigure(figsize=(3.5, 2.4 * len(points)))
            shown: list[Series] = []
            for axes, point in zip(figure.subplots(len(points), squeeze=False)[:, 0], points, strict=True):
                series = [
                    Series(
                        f"{label} problems",
                        tuple(spread(a.sel(point).sel(stage=stage, split=split)) for _, a, stage in places),
                    )
                    for label, split in (("add", "add"), ("mul", "mul"))
                ]
                grouped_bars(axes, [name for name, *_ in places], series)
                axes.set_xlabel("weights kept")
                axes.set_title(", ".join(f"{k} = {v}" for k, v in point.items()) or "add/mul: accuracy under each mask")
                axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
                shown += series
            say_seeds(figure, shown, scores.sizes["seed"])
        return figure
