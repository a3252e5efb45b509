"""Files of a cube that are lost or in the place of others: found before anything is computed, and computed again on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modhook.cube import Cube, computing
from modhook.errors import DamageError
from modhook.plugin.code import short
from modhook.plugin.interfaces import Tracker
from modhook.run.layout import Prepared
from modhook.run.one import PATIENCE, Run


def check(cube: Cube, prepared: Prepared, runs: Sequence[Run], repair: bool, tracker: Tracker) -> None:
    """Compare every file of some runs with its record; with `repair`, make pending what is damaged.

    What is computed again is, of each run, the first stage that is damaged, the stages after it, because they may have been
    learned on what it left (with `masks.clip_over = "all"`: every stage), and all analyses; or the damaged analyses alone.
    The claim on the runs must be held.

    Raises `DamageError`, which names run, stage and file, if something is damaged and is not to be repaired.
    """
    _tables(cube)
    found = {run.text: (run, damage) for run in runs if (damage := cube.survey(run.labels))}
    if found and not repair:
        told = [one.text for _, damage in found.values() for one in damage]
        raise _damaged(cube, told)
    for run, damage in found.values():
        own, names = prepared.stages(prepared.tasks[run.index]), _analyses(cube, prepared)
        stages = list(dict.fromkeys([*own, *map(str, cube.labels("runs/status")["stage"])]))  # also controls that nobody asks for now
        wrong = [stages.index(one.name) for one in damage if not one.analysis and one.name in stages]
        # What clipping over all parameters takes from stage to stage is kept only until the next one is done.
        linked = prepared.points[run.index].study.masks.clip_over == "all"
        again = stages[0 if linked else min(wrong) :] if wrong else []
        late = names if wrong else [one.name for one in damage if one.analysis]
        with computing(cube.path, run.text, PATIENCE):
            cube.reset(run.labels, again, late)
        for one in damage:
            tracker.message(f"repair: {one.text}")
        tracker.message(f"repair: {run.text}: {', '.join([*again, *late])} will be computed again")


def _damaged(cube: Cube, told: Sequence[str]) -> DamageError:
    """Return the error that names the first damage, and how many more there are."""
    more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
    return DamageError(
        f"{cube.path} is damaged: {told[0]}{more}; compute it again with `modhook run STUDY --repair`, or restore that file from a "
        "copy."
    )


def _tables(cube: Cube) -> None:
    """Read what says where each tensor lies in the masks, written once for all runs. Raises `DamageError` if it is lost."""
    for name in cube.tables:
        if not cube.written(name, {}):
            raise DamageError(
                f"{cube.path} is damaged: a file of {name}, which all runs share, is missing; restore it from a copy, or start the study "
                "over with --fresh."
            )
        cube.read(name, {})


def _analyses(cube: Cube, prepared: Prepared) -> list[str]:
    """Return every analysis that the cube has room for, those of `modhook analyse` too."""
    recorded: Mapping[str, object] = cube.attrs.get("study", {}).get("analyses", {})
    return [n for n in dict.fromkeys([*prepared.analyses, *map(short, recorded)]) if f"runs/{n}" in cube.variables]


def survey(cube: Cube) -> int:
    """Read every file of a cube and compare it with its run's record; return how many runs were looked at.

    Raises `DamageError` that names the first run and stage, and how many more, and `CubeError` for a cube without records.
    """
    cube.require_records("it cannot be verified")
    _tables(cube)
    runs = cube.runs()
    told = [one.text for run in runs for one in cube.survey(run)]
    if told:
        raise _damaged(cube, told)
    return len(runs)
