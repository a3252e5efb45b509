"""A whole network in one picture: the share of weights that each stage keeps, by layer and part, and by head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure, style
from modhook_plugins.figures.common import Spread, gap, panels, say_seeds, seeds, styled
from modhook_plugins.figures.networks import networks

_MOST = 6
"""Panels, one per stage."""


class _Map(Figure):
    """A panel per stage: rows and columns are a variable's last two dimensions."""

    title: ClassVar[str]

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw the first network, the mean over its seeds."""
        found, note = networks(cubes, limit=1)
        values = found[0].values(self.requires[0])  # (seed, stage, row, column)
        title = f"{self.title}: {found[0].label}" if found[0].label else self.title
        some = np.isfinite(values.values)
        count = Spread(0.0, 0.0, int(some.reshape(len(some), -1).any(1).sum()))
        rows, columns = some.any((0, 1, 3)), some.any((0, 1, 2))
        with styled():
            if not some.any():
                figure, every = panels([""], title)
                every[0].set_axis_off()
                gap(every[0], "no run has finished yet")
                say_seeds(figure, [], seeds(found))
                return figure
            stages, names, texts = (values[str(d)].values for d in values.dims[1:])
            shares = {str(s).replace("_", " "): _mean(values.values[:, i])[rows][:, columns] for i, s in enumerate(stages[:_MOST])}
            figure, common = style.share_maps(shares, [str(n) for n in names[rows]], [str(t) for t in texts[columns]], title)
            more = f"{_MOST} of {len(stages)} stages" if len(stages) > _MOST else ""
            grey = "grey: nothing to mask" if any(np.isnan(s).any() for s in shares.values()) else ""
            say_seeds(figure, [count], seeds(found), note, more, common, grey, bars="not shown")
        return figure


class LayerMap(_Map):
    """Share of weights that each stage keeps, by layer and part of it. Cubes: any with the analysis layers; the first network."""

    rank = 62
    requires = ("layers/density",)
    title = "Weights kept by layer"


class HeadMap(_Map):
    """Share of weights that each stage keeps, by attention and head. Cubes: any with the analysis heads; the first network."""

    rank = 63
    requires = ("heads/density",)
    title = "Weights kept by head"


def _mean(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the mean over the seeds (seed, rows, columns) that have values; NaN where none has."""
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(0)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)
