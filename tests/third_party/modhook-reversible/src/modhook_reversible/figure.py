"""The answer as a picture: two directions that are separate lose only what is taken from them."""

import numpy as np
from matplotlib.figure import Figure as Drawing

from modhook import Figure
from modhook_reversible.automaton import BACKWARD, FORWARD


class DirectionsFigure(Figure):
    """Accuracy of both directions, a group of bars per part of the weights that is taken out; every seed is a dot."""

    requires = ("directions/without",)
    tasks = ("reversible",)
    rank = 5

    def draw(self, cubes):
        """Return the figure of the first cube; a sweep's points are averaged."""
        without = cubes[0]["directions"]["without"]
        others = [d for d in without.dims if d not in ("part", "split")]
        stacked = without.stack(run=others)
        drawing = Drawing(figsize=(4, 2.6), layout="constrained")
        axes = drawing.subplots()
        at = np.arange(stacked.sizes["part"])
        for number, split in enumerate((FORWARD, BACKWARD)):
            values = stacked.sel(split=split).transpose("part", "run").values  # (parts, runs)
            done = np.isfinite(values).all(0)
            x = at + 0.4 * (number - 0.5)
            if done.any():
                axes.bar(x, values[:, done].mean(1), 0.36, label=split)
                axes.plot(np.repeat(x, done.sum()), values[:, done].ravel(), "k.", ms=3)
        axes.axhline(0.5, color="0.5", lw=0.8, ls=":")
        axes.set_xticks(at, [f"without\n{part}" for part in stacked["part"].values])
        axes.set_ylim(0, 1.05)
        axes.set_ylabel("share of cells right")
        if axes.containers:
            axes.legend()
        return drawing
