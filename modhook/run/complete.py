"""What a protocol must leave behind: every stage that it declares, with scores, and with masks where it says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modhook.cube import Cube
from modhook.errors import RunError, listing, near_miss
from modhook.plugin.contract import StageRecord
from modhook.plugin.interfaces import Task
from modhook.run.failure import require_finite


def check_record(record: StageRecord, cube: Cube, task: Task) -> None:
    """Raise `RunError` for a stage whose record lacks what its cube has a place for; controls are filled by modhook itself."""
    stage = record.stage
    require_finite(record.logits or {}, f"the logits of stage {stage!r} for")
    for metric in task.metrics:
        if stage not in cube.labels(f"scores/{metric}")["stage"]:
            return
        found = record.scores.get(metric, {})
        if lacking := [split for split in task.splits if split not in found]:
            raise RunError(
                f"stage {stage!r} left no {metric} of {listing(lacking)}; its protocol needs a repair: record.scores = context.score(...)."
            )
    masked = "history/trust" in cube.variables and stage in cube.labels("history/trust")["stage"]
    if masked and record.logits is None:
        raise RunError(f"stage {stage!r} left no masks; its protocol needs a repair: record.masks and record.logits.")


def check_stages(protocol: str, declared: Sequence[str], states: Mapping[str, str]) -> None:
    """Raise `RunError` where a protocol has ended and a stage that it declares is not done."""
    if left := [stage for stage in declared if states[stage] != "done"]:
        raise RunError(
            f"the protocol {protocol!r} ended without computing {listing(left)}, which it declares; its plugin needs a repair."
        )


def known_stage(stage: str, cube: Cube) -> None:
    """Raise `RunError` for a stage that the cube has no place for."""
    stages = [str(s) for s in cube.labels("runs/status")["stage"]]
    if stage not in stages:
        raise RunError(f"the stage {stage!r}{near_miss(stage, stages)} is none that its protocol declares: {listing(stages)}.")
