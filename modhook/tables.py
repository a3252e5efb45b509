"""A cube's tables as text: every variable that declares itself tabulated, as mean and standard deviation over seeds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
import xarray as xr
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

_ORDER = ("scores", "inverse", "overlap")


@attrs.frozen
class Table:
    """One table: text cells with row and column labels."""

    title: str
    note: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def tables(cube: xr.DataTree) -> list[Table]:
    """Return the tables of a cube, one set per sweep point: means over the seeds that have a value, ± standard deviation (n - 1)."""
    found: list[Table] = []
    for node in sorted(cube.subtree, key=lambda n: _ORDER.index(n.name) if n.name in _ORDER else len(_ORDER)):
        chosen = {str(n): v for n, v in node.data_vars.items() if "table" in v.attrs}
        for point, title in _points(next(iter(chosen.values()))) if chosen else ():
            lists: list[tuple[str, xr.DataArray]] = []
            for name, variable in chosen.items():
                values = variable.sel(point)
                full = f"{node.name}/{name}{title}"
                if len(values.dims) >= 3:  # seed and two of its own; one matrix for each label of further ones
                    found += [_matrix(f"{full}{at}", part) for part, at in _parts(values)]
                else:
                    lists.append((name, values))
            if lists:
                found.append(_columns(f"{node.name}{title}", lists))
    return found


def print_tables(cube: xr.DataTree, console: Console | None = None) -> None:
    """Print the tables of a cube."""
    console = console or Console()
    for table in tables(cube):
        console.print(
            f"[bold]{escape(table.title)}[/bold]" + (f"  [dim]{escape(table.note)}[/dim]" if table.note else ""),
            soft_wrap=True,
        )
        shown = RichTable(box=SIMPLE_HEAD, pad_edge=False)
        shown.add_column(table.corner, no_wrap=True)
        for column in table.columns:
            shown.add_column(column, justify="right", no_wrap=True)
        for label, cells in table.rows:
            shown.add_row(label, *cells)
        console.print(shown)


def _points(variable: xr.DataArray) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield every sweep point and its title."""
    keys = [str(d) for d in variable.dims if "." in str(d)]
    for values in itertools.product(*(variable[k].values for k in keys)):
        point = dict(zip(keys, values, strict=True))
        text = ", ".join(f"{k} = {v}" for k, v in point.items())
        yield point, f" at {text}" if text else ""


def _parts(values: xr.DataArray) -> Iterator[tuple[xr.DataArray, str]]:
    """Yield every matrix (seed, row, column) of an array, and its place along the dimensions before those."""
    keys = [str(d) for d in values.dims[1:-2]]
    for labels in itertools.product(*(values[k].values for k in keys)):
        at = dict(zip(keys, labels, strict=True))
        yield values.sel(at), "".join(f", {k} {v}" for k, v in at.items())


def _matrix(title: str, values: xr.DataArray) -> Table:
    _, row, column = (str(d) for d in values.dims)
    cells, note = _cells(values)
    rows = tuple((str(label), tuple(cells[i])) for i, label in enumerate(values[row].values))
    return Table(f"{title} ({_unit(values)})", note, row, tuple(str(c) for c in values[column].values), rows)


def _columns(title: str, lists: list[tuple[str, xr.DataArray]]) -> Table:
    first = lists[0][1]
    row = str(first.dims[1])
    every = [_cells(values) for _, values in lists]
    rows = tuple((str(label), tuple(cells[i] for cells, _ in every)) for i, label in enumerate(first[row].values))
    return Table(title, every[0][1], row, tuple(name for name, _ in lists), rows)


def _unit(values: xr.DataArray) -> str:
    return (
        "%" if values.attrs["table"] == "percent" else values.attrs.get("units", "1").replace("1", "share") or "share"
    )


def _cells(values: xr.DataArray) -> tuple[Any, str]:
    """Return text cells (own dims) and a note on how many seeds they stand for."""
    data = np.asarray(values.values, dtype=float)  # (seed, ...)
    percent = values.attrs["table"] == "percent"
    known = np.isfinite(data)
    count = known.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, data, 0).sum(0) / count
        spread = np.sqrt((np.where(known, data - mean, 0) ** 2).sum(0) / (count - 1))
    scale, digits = (100, 1) if percent else (1, 3)
    cells = np.empty(mean.shape, dtype=object)
    for index in np.ndindex(mean.shape):
        if not count[index]:
            cells[index] = "-"
        elif count[index] == 1:
            cells[index] = f"{scale * mean[index]:.{digits}f}"
        else:
            cells[index] = f"{scale * mean[index]:.{digits}f} ± {scale * spread[index]:.{digits}f}"
    most, fewest = int(count.max(initial=0)), int(count[count > 0].min(initial=10**9))
    if most == 0:
        return cells, "no run has finished yet"
    seeds = f"{most} of {data.shape[0]} seeds" if fewest == most else f"{fewest} to {most} of {data.shape[0]} seeds"
    return cells, seeds + ("; one seed: no spread" if most == 1 else "; mean ± standard deviation")
