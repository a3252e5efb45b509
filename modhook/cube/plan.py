"""What a cube will hold, checked as a whole before anything is written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from attrs import evolve, field, frozen

from modhook.cube.labels import Label, labels_of
from modhook.errors import CubeError, listing
from modhook.variables import Variable

FORMAT = 1
"""Version of the layout on disk, the root attribute `modhook_format`."""
STATUSES = ("pending", "done", "failed")
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

RUN_VARIABLES = (
    Variable(
        "runs/status",
        ("stage",),
        "uint8",
        "How far each stage of each run is; counts and masks of a stage are valid only where it is done.",
        attrs={"flag_values": [0, 1, 2], "flag_meanings": " ".join(STATUSES)},
    ),
    Variable("runs/reason", ("stage",), "str", "Why a stage failed; empty otherwise."),
    Variable("runs/route", ("stage",), "str", "How the executor ran each submodule of the network in this stage."),
    Variable("runs/threads", ("stage",), "int32", "Number of threads that computed the stage; 0 if not known."),
    Variable("runs/layout", (), "str", "Group below `masks` that holds the masks and weights of this run."),
    Variable("timing/seconds", ("stage",), "float64", "Time that the stage took.", units="s"),
)
"""The variables that every cube has."""


class Part(Protocol):
    """Variables together with the labels, sizes and constant values of their dimensions; `Layout` is one."""

    @property
    def variables(self) -> tuple[Variable, ...]: ...  # noqa: D102
    @property
    def labels(self) -> Mapping[str, Mapping[str, Sequence[Any]]]: ...  # noqa: D102
    @property
    def sizes(self) -> Mapping[str, Mapping[str, int]]: ...  # noqa: D102
    @property
    def values(self) -> Mapping[str, Any]: ...  # noqa: D102


@frozen
class Plan:
    """Everything that a new cube is laid out for.

    Args:
        attrs: attributes of the root, JSON-able: the resolved study, versions, the data's fingerprint.
        run_dims: the run's dimensions in order, `{"seed": [1, 2, 3], "masks.beta": [1e-5, 3e-5]}`.
        variables: declarations; the `RUN_VARIABLES` are added.
        labels: group -> dimension -> labels, which become that group's coordinates.
        sizes: group -> dimension -> length, for dimensions without labels.
        values: variable name -> array, for variables with `per_run=False` that are known from the start.
    """

    attrs: Mapping[str, Any]
    run_dims: Mapping[str, Sequence[Any]]
    variables: tuple[Variable, ...] = field(converter=tuple)
    labels: Mapping[str, Mapping[str, Sequence[Any]]] = field(factory=dict)
    sizes: Mapping[str, Mapping[str, int]] = field(factory=dict)
    values: Mapping[str, Any] = field(factory=dict)

    def including(self, *parts: Part) -> Plan:
        """Return the plan with these parts added."""
        plan = self
        for part in parts:
            plan = evolve(
                plan,
                variables=(*plan.variables, *part.variables),
                labels=_merged(plan.labels, part.labels),
                sizes=_merged(plan.sizes, part.sizes),
                values={**plan.values, **part.values},
            )
        return plan


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
    values: dict[str, np.ndarray[Any, Any]]


def with_run_variables(plan: Plan) -> Plan:
    """Add the variables that every cube has; their stages are those of `runs` or else of `scores`."""
    known = {v.name for v in plan.variables}
    stages = plan.labels.get("runs", {}).get("stage") or plan.labels.get("scores", {}).get("stage")
    if not stages:
        raise CubeError("a cube needs stages: give labels['runs']['stage'] or labels['scores']['stage'].")
    labels = _merged(
        plan.labels,
        {"runs": {"stage": stages}, "timing": {"stage": plan.labels.get("timing", {}).get("stage", stages)}},
    )
    return evolve(plan, variables=(*(v for v in RUN_VARIABLES if v.name not in known), *plan.variables), labels=labels)


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
    values: Mapping[str, Any],
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
    shapes = {s.variable.name: s for s in slots}
    for name in values:
        if name not in shapes or shapes[name].variable.per_run:
            raise CubeError(f"values are given for {name!r}, which is no declared variable with per_run=False.")
    return Resolved(slots, clean, {n: np.asarray(v) for n, v in values.items()})


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
    leading = dict(run_dims) if variable.per_run else {}
    shape = (*(len(v) for v in leading.values()), *(own[d] for d in variable.dims))
    return Slot(variable, (*leading, *variable.dims), shape)


def _check_names(slots: Sequence[Slot], labels: Mapping[str, Mapping[str, Any]], run_dims: Mapping[str, Any]) -> None:
    groups = {a for g in {*labels, *(s.variable.group for s in slots)} for a in ancestors(g)}
    for group in groups:
        for part in group.split("/"):
            _check_name(part, f"the group {group!r}")
    taken = {f"{g}/{d}" for g in groups for d in (*run_dims, *labels.get(g, {}))} | groups | set(run_dims)
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
    if clash := {g for g in groups if g in run_dims}:
        raise CubeError(f"{clash.pop()!r} is both a group and a dimension of the run; rename one.")


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


def _merged(
    first: Mapping[str, Mapping[str, Any]], second: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    merged = {g: dict(d) for g, d in first.items()}
    for group, dims in second.items():
        for dim, new in dims.items():
            old = merged.setdefault(group, {}).setdefault(dim, new)
            if (old != new) if isinstance(new, int) else (list(old) != list(new)):
                raise CubeError(f"dimension {dim!r} of group {group!r} is given twice, with different labels or sizes.")
    return merged
