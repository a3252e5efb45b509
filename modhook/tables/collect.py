"""A cube's tables: every variable that declares itself tabulated, as mean and standard deviation over seeds.

Without a sweep a table has the variable's own dimensions. With several sweep points it is one wide table: a row per point, and a
column per label of the variable's dimensions; of a matrix that is symmetric, such as an overlap, each pair once.

A variable asks for it by its attribute `table`, "percent" or "number". One with two own dimensions is a matrix of its own, one
with more is one for each label of those before its last two; those with one are the columns of their group's table. A
variable whose attribute `complement_of` names another one is tabulated with it: its rows stand below the other's, as `not add`
below `add`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import xarray as xr

from modhook.errors import UserError, listing, near_miss
from modhook.tables.names import head, named, title
from modhook.tables.table import Table, lines_of, note
from modhook.tables.wide import wide_columns, wide_matrix

_ORDER = ("scores", "inverse", "overlap")


def tables(cube: xr.DataTree, name: str | None = None) -> list[Table]:
    """Return the tables of a cube; one with a row per sweep point where there are several.

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


def points(variable: xr.DataArray) -> Iterator[dict[str, Any]]:
    """Yield the coordinates of every sweep point."""
    keys = [str(d) for d in variable.dims if "." in str(d)]
    for values in itertools.product(*(variable[k].values for k in keys)):
        yield dict(zip(keys, values, strict=True))


def _nodes(cube: xr.DataTree) -> list[xr.DataTree]:
    return sorted(cube.subtree, key=lambda n: _ORDER.index(_path(n)) if _path(n) in _ORDER else len(_ORDER))


def _of_group(cube: xr.DataTree, node: xr.DataTree) -> Iterator[Table]:
    chosen = tabulated(node)
    every = list(points(next(iter(chosen.values())))) if chosen else []
    for places in [every] if len(every) > 1 else [[p] for p in every]:
        wide, at = len(places) > 1, "" if len(places) > 1 else _at(places[0])
        lists: dict[str, xr.DataArray] = {}
        for name, variable in chosen.items():
            path = f"{_path(node)}/{name}"
            variable, keys = named(path, variable), [str(d) for d in variable.dims if "." in str(d)]
            own = [d for d in variable.dims if d not in ("seed", *keys)]
            if len(own) < 2:
                lists[path] = variable if wide else variable.sel(places[0])
                continue
            other = variable.attrs.get("complement_of")
            for part, where in _parts(variable, own[:-2]):
                above = title(path, f"{at}{where}", part)
                if wide:
                    yield wide_matrix(above, path, part, places, "not " if other else "")
                    continue
                beside = _variable(cube, other, variable.dims[-1]) if other else None
                yield _matrix(above, path, part.sel(places[0]), None if beside is None else beside.sel(places[0]))
        if lists:
            yield (wide_columns(_path(node), lists, places) if wide else _columns(f"{_path(node)}{at}", lists))


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


def _parts(values: xr.DataArray, keys: Sequence[Any]) -> Iterator[tuple[xr.DataArray, str]]:
    """Yield every part of an array at one label of each of these dimensions, and its place."""
    for labels in itertools.product(*(values[k].values for k in keys)):
        at = dict(zip(keys, labels, strict=True))
        yield values.sel(at), "".join(f", {k} {v}" for k, v in at.items())


def _matrix(above: str, path: str, values: xr.DataArray, beside: xr.DataArray | None) -> Table:
    _, row, column = (str(d) for d in values.dims)
    lines, total = lines_of(values), values.sizes["seed"]
    if beside is not None:
        others = dict(lines_of(beside.sel({column: values[column].values})))
        pairs = [((label, others.get(label)), (f"not {label}", cells)) for label, cells in lines]
        lines = [(label, cells) for pair in pairs for label, cells in pair if cells is not None]
    columns = tuple(str(c) for c in values[column].values)
    return Table(above, note(lines, total), row, columns, tuple(lines), (path,))


def _columns(above: str, lists: Mapping[str, xr.DataArray]) -> Table:
    first = next(iter(lists.values()))
    row = str(first.dims[1])
    every = [dict(lines_of(values)) for values in lists.values()]
    lines = tuple((label, tuple(found[label][0] for found in every)) for label in every[0])
    columns = tuple(head(path, values) for path, values in lists.items())
    return Table(above, note(lines, first.sizes["seed"]), row, columns, lines, tuple(lists))
