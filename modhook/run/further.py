"""Controls that join a cube that is there: their stages are laid out behind those that it has, and computed like any others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modhook.cube import Cube
from modhook.errors import CubeError, listing
from modhook.plugin.interfaces import Tracker
from modhook.run.control_plan import GROUP
from modhook.run.layout import Prepared, plan
from modhook.study import ControlStage

_ANALYSIS = "seed_ceiling"
"""The analysis that looks at masks of controls; what it has computed without the new ones is no longer all of it."""


def add_controls(cube: Cube, prepared: Prepared, tracker: Tracker) -> None:
    """Lay out the stages of a study's controls that its cube does not have, with nothing recomputed.

    A stage keeps its place in the files, so that the order of a cube that was extended is another one than that of a cube that was laid
    out at once; the labels are the same.

    Raises `CubeError` for a cube whose layout of the controls is another one.
    """
    wanted, there = prepared.controls(prepared.tasks[0]), control_stages_of(cube)
    known = {control.label for control in there}
    new = [control for control in wanted if control.label not in known]
    if not new:
        return
    labels = [control.label for control in new]
    if taken := [label for label in labels if label in cube.labels("runs/status")["stage"]]:
        raise CubeError(f"{cube.path} has a stage {taken[0]!r} of its own, which a control is called here; rename it.")
    whole = plan(prepared, (1,), {}, controls=(*there, *new))
    groups = {g for g in whole.labels if g == GROUP or g.startswith(f"{GROUP}/")}
    masks = [f"masks/{name}" for name in prepared.distinct()]
    grown = ["runs", "timing", *masks, *(sorted(groups) if there else ())]
    cube.add_variables(
        [v for v in whole.variables if v.group in groups],
        {group: whole.labels[group] for group in groups},
        stages=dict.fromkeys(grown, labels),
    )
    tracker.message(f"the cube gets the controls {listing(labels, 8)}")
    if any(control.kind.startswith("mask seed") for control in new) and f"runs/{_ANALYSIS}" in cube.variables:
        for run in cube.runs():
            if int(cube.read(f"runs/{_ANALYSIS}", run)):
                cube.reset(run, (), [_ANALYSIS])


def control_stages_of(cube: Cube) -> tuple[ControlStage, ...]:
    """Return the stages of controls that a cube has, in its order."""
    if f"{GROUP}/kind" not in cube.variables:
        return ()
    labels = cube.labels(f"{GROUP}/kind")["stage"]
    kinds, of = (cube.read(f"{GROUP}/{name}", {}).tolist() for name in ("kind", "of"))
    return tuple(ControlStage(str(label), str(kind), str(whose)) for label, kind, whose in zip(labels, kinds, of, strict=True))


def continued(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of a study as its cube is to record it: analyses and controls that the cube has and the study does not ask for
    stay on record, because they say how what is in the cube was computed."""
    record = dict(new)
    record["analyses"] = dict(sorted({**old.get("analyses", {}), **new["analyses"]}.items()))
    controls = {**old.get("controls", {}), **new.get("controls", {})}
    for kind, options in controls.items():
        before, now = old.get("controls", {}).get(kind), new.get("controls", {}).get(kind)
        if before is not None and now is not None:
            controls[kind] = {**options, "stages": _either(before.get("stages"), now.get("stages"))}
    if controls:
        record["controls"] = controls
    # What only a control takes part in (ask's `nonsense`) stays as the control has it.
    if "nonsense" in old.get("controls", {}) and "nonsense" not in new.get("controls", {}) and "nonsense" in old.get("task", {}):
        record["task"] = {**new["task"], "nonsense": old["task"]["nonsense"]}
    return record


def _either(one: list[str] | None, other: list[str] | None) -> list[str] | None:
    """Return the stages that one of two controls is learned for; None is all of them."""
    return None if one is None or other is None else list(dict.fromkeys([*one, *other]))
