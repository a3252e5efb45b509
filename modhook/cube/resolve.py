"""Checks a plan as a whole, before anything is written, and works out shapes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from modhook.cube.labels import Label, labels_of
from modhook.errors import CubeError, listing
from modhook.plugin.variables import Variable

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# xarray gives these attributes a meaning and would change what is read.
_TAKEN_ATTRS = {
    "_FillValue",
    "missing_value",
    "scale_factor",
    "add_offset",
    "coordinates",
    "calendar",
    "dtype",
    "_Unsigned",
    "grid_mapping",
}
_TIME_UNITS = {"days", "hours", "minutes", "seconds", "milliseconds", "microseconds", "nanoseconds"}


@frozen
class Slot:
    """One variable with its full dimensions and shape."""

    variable: Variable
    dims: tuple[str, ...]
    shape: tuple[int, ...]


@frozen
class Resolved:
    """A checked plan: `slots` to create, and the labels of every group that they need."""

    slots: tuple[Slot, ...]
    labels: dict[str, dict[str, tuple[Label, ...]]]


def checked_run_dims(run_dims: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Label, ...]]:
    """Return the run's dimensions with clean labels. Raises `CubeError`."""
    if next(iter(run_dims), None) != "seed":
        raise CubeError(f"the first dimension of a run must be 'seed', not {listing(run_dims)}.")
    checked = {}
    for name, values in run_dims.items():
        _check_name(name, "the dimension")
        checked[name] = labels_of(values, f"dimension {name!r}")
        if not checked[name]:
            raise CubeError(f"dimension {name!r} has no labels; give at least one value.")
    return checked


def checked_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return root attributes as plain JSON values. Raises `CubeError`."""
    if taken := [k for k in attrs if k.startswith("modhook_")]:
        raise CubeError(
            f"the attribute {taken[0]!r} is the cube's own; choose a name that does not begin with 'modhook_'."
        )
    try:
        plain = json.loads(json.dumps(dict(attrs), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise CubeError(f"the attributes of a cube must be plain JSON values: {error}.") from error
    assert isinstance(plain, dict)
    return plain


def resolve(
    variables: Iterable[Variable],
    labels: Mapping[str, Mapping[str, Sequence[Any]]],
    sizes: Mapping[str, Mapping[str, int]],
    run_dims: Mapping[str, Sequence[Label]],
) -> Resolved:
    """Work out dimensions and shapes of all variables, and check that xarray can open the result. Raises `CubeError`."""
    variables = tuple(variables)
    clean = {g: {d: labels_of(v, f"dimension {d!r} of {g!r}") for d, v in dims.items()} for g, dims in labels.items()}
    lengths: dict[str, dict[str, int]] = {g: {d: len(v) for d, v in dims.items()} for g, dims in clean.items()}
    for group, dims in sizes.items():
        for dim, size in dims.items():
            if lengths.setdefault(group, {}).setdefault(dim, size) != size:
                raise CubeError(f"dimension {dim!r} of {group!r} has {lengths[group][dim]} labels but size {size}.")
    slots = tuple(_slot(v, lengths, run_dims) for v in variables)
    _check_names(slots, clean, run_dims)
    _check_nesting(clean, lengths)
    return Resolved(slots, clean)


def ancestors(group: str) -> list[str]:
    """Return a group and the groups above it, the outermost first, without the root."""
    parts = group.split("/")
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _slot(
    variable: Variable, lengths: Mapping[str, Mapping[str, int]], run_dims: Mapping[str, Sequence[Label]]
) -> Slot:
    own = lengths.get(variable.group, {})
    if clash := [d for d in variable.dims if d in run_dims]:
        raise CubeError(f"{variable.name} declares the dimension {clash[0]!r}, which every run has; leave it out.")
    if len(set(variable.dims)) < len(variable.dims):
        raise CubeError(
            f"{variable.name} has a dimension twice ({', '.join(variable.dims)}); give the second one another name."
        )
    if missing := [d for d in variable.dims if d not in own]:
        raise CubeError(
            f"dimension {missing[0]!r} of {variable.name} has neither labels nor a size in group {variable.group!r}; "
            f"known there: {listing(own)}."
        )
    if taken := sorted(_TAKEN_ATTRS & set(variable.attrs)):
        raise CubeError(
            f"{variable.name} has the attribute {taken[0]!r}, by which xarray would change its values; rename it."
        )
    if variable.units in _TIME_UNITS or " since " in variable.units:
        raise CubeError(
            f"{variable.name} has the units {variable.units!r}, which xarray would read as times; write 's', 'ms', 'h'."
        )
    if variable.value is not None and variable.per_run:
        raise CubeError(f"{variable.name} declares its value, but each run has its own; declare it with per_run=False.")
    leading = dict(run_dims) if variable.per_run else {}
    shape = (*(len(v) for v in leading.values()), *(own[d] for d in variable.dims))
    return Slot(variable, (*leading, *variable.dims), shape)


def _check_names(slots: Sequence[Slot], labels: Mapping[str, Mapping[str, Any]], run_dims: Mapping[str, Any]) -> None:
    groups = {a for g in {*labels, *(s.variable.group for s in slots)} for a in ancestors(g)}
    for group in groups:
        for part in group.split("/"):
            _check_name(part, f"the group {group!r}")
    coordinates = {f"{g}/{d}" for g in groups for d in (*run_dims, *labels.get(g, {}))} | set(run_dims)
    if clash := sorted(groups & coordinates):
        raise CubeError(f"{clash[0]!r} is both a group and a coordinate; rename one.")
    taken = coordinates | groups
    for slot in slots:
        name = slot.variable.name
        _check_name(slot.variable.short, f"the variable {name!r}")
        if name in taken:
            raise CubeError(
                f"{name!r} is declared as a variable but is also another variable, a coordinate or a group; rename one."
            )
        taken.add(name)
    for group, dims in labels.items():
        for dim in dims:
            _check_name(dim, f"the dimension {dim!r} of {group!r}")
            if dim in run_dims:
                raise CubeError(f"group {group!r} gives labels for {dim!r}, which is a dimension of the run.")


def _check_nesting(labels: Mapping[str, Mapping[str, Any]], lengths: Mapping[str, Mapping[str, int]]) -> None:
    """In a tree a group inherits the coordinates above it, so xarray refuses a child that differs from its parent."""
    for group, dims in lengths.items():
        for above in ancestors(group)[:-1]:
            for dim in dims:
                same = (
                    labels.get(above, {}).get(dim) == labels.get(group, {}).get(dim)
                    and lengths.get(above, {}).get(dim) == dims[dim]
                )
                if dim in lengths.get(above, {}) and not same:
                    raise CubeError(
                        f"dimension {dim!r} of group {group!r} differs from that of {above!r} above it; rename one of them."
                    )


def _check_name(name: str, what: str) -> None:
    if not _NAME.fullmatch(name) or name.startswith("__") or name == "zarr.json":
        raise CubeError(f"{what} has the name {name!r}; names are made of letters, digits, '_', '-' and '.'.")
