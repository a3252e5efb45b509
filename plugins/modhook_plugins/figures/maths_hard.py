"""Mathematics (reference, section 7): does a mask that was learned on easy questions answer hard ones?"""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure
from modhook_plugins.figures.common import (
    COLUMN,
    PAGE,
    Series,
    grouped_bars,
    legend_below,
    say_seeds,
    seeds,
    spread,
    styled,
)
from modhook_plugins.figures.networks import labels_of, networks, setting


class MathsHard(Figure):
    """Accuracy on hard questions before masking, under the control's mask, under the easy mask. Cubes: mathematics, one group per
    study (the paper has five).
    """

    rank = 0
    requires = ("scores/accuracy",)
    tasks = ("mathematics",)

    def lacks(self, cubes: Sequence[xr.DataTree]) -> str:
        """Every cube must have the split and the stages."""
        for cube in cubes:
            stages, splits = (set(labels_of(cube, "scores", d)) for d in ("stage", "split"))
            if not {"control", "easy"} <= stages or "hard" not in splits:
                return "it needs the stages control and easy and the split hard"
        return ""

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw one group of three bars per study."""
        found, note = networks(cubes, limit=12)
        with styled():
            figure = MatplotlibFigure(figsize=(COLUMN if len(found) <= 4 else PAGE, 2.6))
            axes = figure.subplots()
            axes.set_title("Mathematics: accuracy on hard questions")
            accuracy = [n.values("scores/accuracy").sel(split="hard") for n in found]
            series = [
                Series(label, tuple(spread(a.sel(stage=stage)) for a in accuracy))
                for label, stage in (
                    ("before masking", "unmasked"),
                    ("control's mask", "control"),
                    ("easy mask", "easy"),
                )
            ]
            names = [
                str(setting(n.cube, "study.name", n.label)).removeprefix("maths_").replace("_", " ") for n in found
            ]
            labels = [n if names.count(n) == 1 else f"{n}\n{f.label}" for n, f in zip(names, found, strict=True)]
            grouped_bars(axes, labels, series)
            legend_below(axes, 3)
            say_seeds(figure, [s for one in series for s in one.values], seeds(found), note)
        return figure
