"""A cube's tables: every variable that declares itself tabulated, as mean and standard deviation over seeds.

A variable asks for it by its attribute `table`, "percent" or "number". One with two own dimensions is a matrix of its own, one
with more is one for each label of those before its last two; those with one are the columns of their group's table. A
variable whose attribute `complement_of` names another one is tabulated with it: its rows stand below the other's, as `not add`
below `add`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import numpy as np
import xarray as xr

from modhook.errors import UserError, listing, near_miss

_ORDER = ("scores", "inverse", "overlap")


@attrs.frozen
class Cell:
    """Mean and standard deviation (n - 1) over the n seeds that have a value, in the variable's own unit."""

    mean: float
    deviation: float
    count: int
    percent: bool

    def text(self, plus_minus: str = "±", missing: str = "-") -> str:
        """Return it for people, in percent where it is a share of items: `84.2 ± 0.3`."""
        scale, digits = (100, 1) if self.percent else (1, 3)
        if not self.count:
            return missing
        mean = f"{scale * self.mean:.{digits}f}"
        return mean if self.count == 1 else f"{mean} {plus_minus} {scale * self.deviation:.{digits}f}"


@attrs.frozen
class Table:
    """One table: cells with row and column labels, and the cube's variables that they come from."""

    title: str
    note: str
    corner: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Cell, ...]], ...]
    variables: tuple[str, ...]
    """`group/name` of each."""

    @property
    def group(self) -> str:
        """The group of the cube that it shows."""
        return self.variables[0].rpartition("/")[0]

    @property
    def rows(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Label and cells of every row, as text."""
        return tuple((label, tuple(cell.text() for cell in cells)) for label, cells in self.lines)


def tables(cube: xr.DataTree, name: str | None = None) -> list[Table]:
    """Return the tables of a cube, one set per sweep point.

    Args:
        cube: from `modhook.open_cube`; a half-finished one gives what it has.
        name: only the tables of this group or variable, `"overlap"` or `"scores/accuracy"`.

    Raises:
        UserError: the cube has no such table.
    """
    found = [table for node in _nodes(cube) for table in _of_group(cube, node)]
    if name is None:
        return found
    known = table_names(cube)
    if name not in known:
        raise UserError(f"there is no table {name!r}{near_miss(name, known)}; this cube has: {listing(known)}.")
    return [t for t in found if name == t.group or name in t.variables]


def table_names(cube: xr.DataTree) -> list[str]:
    """Return what `tables` takes as a name: every group with a table, and every tabulated variable."""
    return [
        name
        for node in _nodes(cube)
        if (chosen := tabulated(node))
        for name in (_path(node), *(f"{_path(node)}/{variable}" for variable in chosen))
    ]


def tabulated(node: xr.DataTree) -> dict[str, xr.DataArray]:
    """Return a group's variables that are tabulated, by name."""
    return {str(n): v for n, v in node.data_vars.items() if "table" in v.attrs}


def summary(values: xr.DataArray) -> tuple[np.ndarray[Any, Any], ...]:
    """Return mean, standard deviation (n - 1) and number of the seeds that have a value, over the first dimension."""
    data = np.asarray(values.values, dtype=float)  # (seed, ...)
    known = np.isfinite(data)
    count = known.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, data, 0).sum(0) / count
        spread = np.sqrt((np.where(known, data - mean, 0) ** 2).sum(0) / (count - 1))
    return mean, np.where(count > 1, spread, np.nan), count


def points(variable: xr.DataArray) -> Iterator[dict[str, Any]]:
    """Yield the coordinates of every sweep point."""
    keys = [str(d) for d in variable.dims if "." in str(d)]
    for values in itertools.product(*(variable[k].values for k in keys)):
        yield dict(zip(keys, values, strict=True))


def _nodes(cube: xr.DataTree) -> list[xr.DataTree]:
    return sorted(cube.subtree, key=lambda n: _ORDER.index(n.name) if n.name in _ORDER else len(_ORDER))


def _of_group(cube: xr.DataTree, node: xr.DataTree) -> Iterator[Table]:
    chosen = tabulated(node)
    for point in points(next(iter(chosen.values()))) if chosen else ():
        at = _at(point)
        lists: dict[str, xr.DataArray] = {}
        for name, variable in chosen.items():
            values, path = variable.sel(point), f"{_path(node)}/{name}"
            if len(values.dims) < 3:  # seed and one of its own
                lists[path] = values
                continue
            other = variable.attrs.get("complement_of")
            beside = _variable(cube, other, variable.dims[-1]) if other else None
            for part, where in _parts(values):
                yield _matrix(f"{path}{at}{where}", path, part, None if beside is None else beside.sel(point))
        if lists:
            yield _columns(f"{_path(node)}{at}", lists)


def _variable(cube: xr.DataTree, path: str, last: Any) -> xr.DataArray | None:
    """Return a variable of the cube that ends in the same dimension, or None where there is none."""
    group, _, name = path.rpartition("/")
    if group not in cube.children or name not in cube[group].data_vars:
        return None
    found = cube[path]
    return found if isinstance(found, xr.DataArray) and found.dims[-1] == last else None


def _path(node: xr.DataTree) -> str:
    return str(node.path).strip("/")


def _at(point: Mapping[str, Any]) -> str:
    text = ", ".join(f"{k} = {v}" for k, v in point.items())
    return f" at {text}" if text else ""


def _parts(values: xr.DataArray) -> Iterator[tuple[xr.DataArray, str]]:
    """Yield every matrix (seed, row, column) of an array, and its place along the dimensions before those."""
    keys = [str(d) for d in values.dims[1:-2]]
    for labels in itertools.product(*(values[k].values for k in keys)):
        at = dict(zip(keys, labels, strict=True))
        yield values.sel(at), "".join(f", {k} {v}" for k, v in at.items())


def _matrix(title: str, path: str, values: xr.DataArray, beside: xr.DataArray | None) -> Table:
    _, row, column = (str(d) for d in values.dims)
    lines, total = _lines(values), values.sizes["seed"]
    if beside is not None:
        others = dict(_lines(beside.sel({column: values[column].values})))
        pairs = [((label, others.get(label)), (f"not {label}", cells)) for label, cells in lines]
        lines = [(label, cells) for pair in pairs for label, cells in pair if cells is not None]
    unit = "%" if _percent(values) else values.attrs.get("units", "1").replace("1", "share") or "share"
    columns = tuple(str(c) for c in values[column].values)
    return Table(f"{title} ({unit})", _note(lines, total), row, columns, tuple(lines), (path,))


def _columns(title: str, lists: Mapping[str, xr.DataArray]) -> Table:
    first = next(iter(lists.values()))
    row = str(first.dims[1])
    every = [dict(_lines(values)) for values in lists.values()]
    lines = tuple((label, tuple(found[label][0] for found in every)) for label in every[0])
    columns = tuple(path.rpartition("/")[2] for path in lists)
    return Table(title, _note(lines, first.sizes["seed"]), row, columns, lines, tuple(lists))


def _lines(values: xr.DataArray) -> list[tuple[str, tuple[Cell, ...]]]:
    """Return label and cells of every row of an array (seed, row) or (seed, row, column)."""
    percent = _percent(values)
    mean, deviation, count = (part.reshape(values.shape[1], -1) for part in summary(values))  # (rows, columns)
    return [
        (
            str(label),
            tuple(
                Cell(float(m), float(d), int(n), percent)
                for m, d, n in zip(mean[i], deviation[i], count[i], strict=True)
            ),
        )
        for i, label in enumerate(values[str(values.dims[1])].values)
    ]


def _percent(values: xr.DataArray) -> bool:
    return bool(values.attrs["table"] == "percent")


def _note(lines: Any, total: int) -> str:
    """Say how many seeds the cells stand for."""
    counts = [cell.count for _, cells in lines for cell in cells]
    most, fewest = max(counts, default=0), min((n for n in counts if n), default=0)
    if not most:
        return "no run has finished yet"
    seeds = f"{most} of {total} seeds" if fewest == most else f"{fewest} to {most} of {total} seeds"
    return seeds + ("; one seed: no spread" if most == 1 else "; mean ± standard deviation")
