"""How scores and kept weights go with what a study sweeps: the first thing to see of a sweep, before any table."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import matplotlib.figure
import numpy as np
import xarray as xr

from modhook.plotting.style import DASHES, MARKERS, Shown, colour, styled
from modhook.plugin.interfaces import Figure
from modhook.report.facts import Facts, Place, label
from modhook.report.scores import KEPT

NAME = "sweep_trend"
CAPTION = "Scores of each mask on its own split, and the weights that it keeps, against the swept setting"
_PANELS = 4
_WIDE = 10
"""From this ratio of the largest to the smallest value on, an axis is logarithmic."""


class Trend(Figure):
    """Score of each stage on the split of its name (others: the first split) and kept weights, along the key with most values; a column
    per value of the other keys.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.key = max(facts.sweep, key=lambda k: facts.status.sizes[k], default="")

    def lacks(self, cubes: Sequence[xr.DataTree]) -> str:
        """It needs a sweep and a score that is a share."""
        swept = bool(self.key) and self.facts.status.sizes[self.key] > 1
        return "" if swept and self.facts.metrics else "it needs a sweep, and a score that is a share"

    def draw(self, cubes: Sequence[xr.DataTree]) -> matplotlib.figure.Figure:
        """Draw scores above and kept weights below, means over seeds with standard deviations."""
        facts, metric = self.facts, self.facts.metrics[0]
        scores = facts.score(metric)
        assert scores is not None
        others = {k: facts.status[k].values.tolist() for k in facts.sweep if k != self.key}
        columns: list[Place] = [dict(zip(others, v, strict=True)) for v in itertools.product(*others.values())]
        shown = [columns[i] for i in np.unique(np.linspace(0, len(columns) - 1, _PANELS).round().astype(int))]
        order, at, numbers = self._places()
        with styled(fresh=True):
            figure = Shown(figsize=(max(3.8, 1.6 + 2.2 * len(shown)), 4.4 if facts.masked else 2.6))
            grid = figure.subplots(2 if facts.masked else 1, len(shown), squeeze=False, sharex=True, sharey="row")
            for column, place in enumerate(shown):
                for i, stage in enumerate(facts.stages):
                    split = stage if stage in facts.splits else facts.splits[0]
                    found = scores.sel({**place, "stage": stage, "split": split}).transpose("seed", self.key)
                    _line(grid[0, column], at, 100 * found[:, order], i, f"{_short(stage)}, on {_short(split)}")
                    if stage in facts.masked:
                        kept = facts.kept.sel({**place, "stage": stage}).transpose("seed", self.key)
                        _line(grid[1, column], at, 100 * kept[:, order], i, _short(stage))
                varied = {k: v for k, v in place.items() if len(others[k]) > 1}
                grid[0, column].set_title(_short(label(varied), 40))
                grid[-1, column].set_xlabel(_short(self.key, 40))
            for axes in grid.flat:
                axes.set_ylim(-2, 104)
                if not numbers:
                    names = [_short(str(facts.status[self.key].values[i])) for i in order]
                    axes.set_xticks(at, names, rotation=30 if max(map(len, names)) > 6 else 0)
                elif min(at) > 0 and max(at) / min(at) >= _WIDE:
                    axes.set_xscale("log")
            grid[0, 0].set_ylabel(f"{metric} [%]")
            if facts.masked:
                grid[1, 0].set_ylabel(f"{KEPT} [%]")
            handles, labels = grid[0, 0].get_legend_handles_labels()
            left = f"; {len(shown)} of {len(columns)} columns" if len(shown) < len(columns) else ""
            note = f"means over seeds, bars: standard deviation{left}"
            figure.legend(
                handles, labels, loc="outside lower center", ncols=min(4, len(labels)), title=note, title_fontproperties={"size": 6}
            )
        return figure

    def _places(self) -> tuple[list[int], list[float], bool]:
        """Return the values' order, where they stand along the axis, and whether they are numbers."""
        values: list[Any] = self.facts.status[self.key].values.tolist()
        if all(isinstance(v, (int, float)) for v in values):
            order = sorted(range(len(values)), key=values.__getitem__)
            return order, [float(values[i]) for i in order], True
        return list(range(len(values))), [float(i) for i in range(len(values))], False


def _short(text: str, most: int = 18) -> str:
    """Return a label of one line that leaves room for the figure, and that matplotlib does not take for a formula."""
    words = " ".join(text.split())
    return (words if len(words) <= most else f"{words[: most - 3]}...").replace("$", r"\$")


def _line(axes: Any, at: Sequence[float], values: xr.DataArray, i: int, name: str) -> None:
    """Draw means over seeds (seed, value) as a marked line, with bars of one standard deviation where there are two seeds or more."""
    data = np.asarray(values, dtype=float)
    known = np.isfinite(data)
    count = known.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, data, 0).sum(0) / count
        spread = np.sqrt((np.where(known, data - mean, 0) ** 2).sum(0) / (count - 1))
    axes.plot(at, mean, label=name, color=colour(i), marker=MARKERS[i % len(MARKERS)], linestyle=DASHES[i % len(DASHES)], markersize=4)
    if (count > 1).any():
        axes.errorbar(at, mean, np.where(count > 1, spread, np.nan), fmt="none", ecolor=colour(i), elinewidth=0.8)
