"""Tables of a sweep: a row per sweep point, so that many points stay one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from modhook.tables.names import head
from modhook.tables.table import Table, lines_of, note

Place = Mapping[str, Any]
"""A sweep point's coordinates."""


def wide_matrix(title: str, path: str, values: xr.DataArray, places: Sequence[Place], before: str) -> Table:
    """Return one table of the matrices (seed, sweep..., row, column) of all points; of a symmetric one each pair once.

    Args:
        title: what stands above it.
        path: the variable, `group/name`.
        values: (seed, sweep..., row, column).
        places: the sweep points, one row each.
        before: put before a row's label, such as "not ".
    """
    row, column = (str(d) for d in values.dims[-2:])
    labels = [[str(x) for x in values[d].values] for d in (row, column)]
    chosen = [(i, j) for i in range(len(labels[0])) for j in range(len(labels[1]))]
    if labels[0] == labels[1] and len(labels[0]) > 1 and _symmetric(values):
        chosen = [(i, j) for i, j in chosen if i < j]
    lines = []
    for place in places:
        cells = [cells for _, cells in lines_of(values.sel(place))]
        lines.append((_label(place), tuple(cells[i][j] for i, j in chosen)))
    return Table(
        title,
        note(lines, values.sizes["seed"]),
        ", ".join(places[0]),
        tuple(labels[1][j] for _, j in chosen),
        tuple(lines),
        (path,),
        tuple(before + labels[0][i] for i, _ in chosen),
    )


def wide_columns(title: str, lists: Mapping[str, xr.DataArray], places: Sequence[Place]) -> Table:
    """Return one table of several variables (seed, sweep..., row), by `group/name`: each row label stands over the variables."""
    first = next(iter(lists.values()))
    labels = [str(x) for x in first[str(first.dims[-1])].values]
    names = [head(path, values) for path, values in lists.items()]
    lines = []
    for place in places:
        every = [dict(lines_of(values.sel(place))) for values in lists.values()]
        lines.append((_label(place), tuple(found[label][0] for label in labels for found in every)))
    return Table(
        title,
        note(lines, first.sizes["seed"]),
        ", ".join(places[0]),
        tuple(names * len(labels)),
        tuple(lines),
        tuple(lists),
        tuple(label for label in labels for _ in names),
    )


def _label(place: Place) -> str:
    return ", ".join(str(v) for v in place.values())


def _symmetric(values: xr.DataArray) -> bool:
    """Return whether every matrix of an array is its own transpose."""
    return bool(np.array_equal(values.values, np.swapaxes(values.values, -1, -2), equal_nan=True))
