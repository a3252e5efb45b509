"""What a cube is to hold: its plan, and the variables that every cube has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import evolve, field, frozen

from modhook.errors import CubeError
from modhook.plugin.variables import Variable

FORMAT = 2
"""Version of the layout on disk, the root attribute `modhook_format`; 1 had no checksum of the metadata."""
STATUSES = ("pending", "done", "failed")

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
    Variable(
        "runs/digest", (), "str", "What each finished stage and analysis wrote: JSON with a digest of every file."
    ),
    Variable("runs/layout", (), "str", "Group below `masks` that holds the masks and weights of this run."),
    Variable("timing/seconds", ("stage",), "float64", "Time that the stage took.", units="s"),
    Variable("timing/ended", ("stage",), "str", "When the stage was done, UTC: 2026-01-31T23:59:59Z."),
    Variable("timing/processor", ("stage",), "str", "The processor that computed the stage, and with how many threads."),
)
"""The variables that every cube has."""


def _tuple(variables: Iterable[Variable]) -> tuple[Variable, ...]:
    return tuple(variables)


@frozen
class Plan:
    """Everything that a new cube is laid out for.

    Args:
        attrs: attributes of the root, JSON-able: the resolved study, versions, the data's fingerprint.
        run_dims: the run's dimensions in order, `{"seed": [1, 2, 3], "masks.beta": [1e-5, 3e-5]}`.
        variables: declarations; the `RUN_VARIABLES` are added.
        labels: group -> dimension -> labels, which become that group's coordinates.
        sizes: group -> dimension -> length, for dimensions without labels.
    """

    attrs: Mapping[str, Any]
    run_dims: Mapping[str, Sequence[Any]]
    variables: tuple[Variable, ...] = field(converter=_tuple)
    labels: Mapping[str, Mapping[str, Sequence[Any]]] = field(factory=dict)
    sizes: Mapping[str, Mapping[str, int]] = field(factory=dict)


def with_run_variables(plan: Plan) -> Plan:
    """Add the variables that every cube has; their stages are those of `runs` or else of `scores`."""
    known = {v.name for v in plan.variables}
    stages = plan.labels.get("runs", {}).get("stage") or plan.labels.get("scores", {}).get("stage")
    if not stages:
        raise CubeError("a cube needs stages: give labels['runs']['stage'] or labels['scores']['stage'].")
    labels = {g: {"stage": stages, **plan.labels.get(g, {})} for g in ("runs", "timing")}
    variables = (*(v for v in RUN_VARIABLES if v.name not in known), *plan.variables)
    return evolve(plan, variables=variables, labels={**plan.labels, **labels})
