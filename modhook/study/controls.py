"""`[controls]`: what a study's masks are compared with. Each control is off unless it is named.

Some score other masks on the same network: they are analyses of the same name. The others learn masks again, with everything as in the
study but one thing: they are further stages of each run, `add (shuffled)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import attrs
from annotated_types import Ge, Le, MinLen

from modhook.errors import listing, near_miss
from modhook.plugin.interfaces import Task
from modhook.study.problems import Problems
from modhook.study.sections import Name
from modhook.study.structure import structured, unknown_key
from modhook.values.text import Path, written

SCORED = ("random", "magnitude", "inverse", "own_removed")
"""Controls that are analyses."""
LEARNED = ("shuffled", "untrained", "nonsense", "seed_ceiling")
CEILING = "seed_ceiling"


@attrs.frozen
class LearnedAgain:
    """Options of a control that learns masks: of which stages; all of them unless said otherwise."""

    stages: Annotated[tuple[Name, ...], MinLen(1)] | None = None


@attrs.frozen
class SeedCeiling(LearnedAgain):
    """Options of `seed_ceiling`: `seeds` masks of each function on one network, the stage's own included."""

    seeds: Annotated[int, Ge(2), Le(100)] = 3


@attrs.frozen
class ControlsSection:
    """The controls of `[controls]` that learn masks; None is off. Those that score are among the study's analyses."""

    shuffled: LearnedAgain | None = None
    untrained: LearnedAgain | None = None
    nonsense: LearnedAgain | None = None
    seed_ceiling: SeedCeiling | None = None

    def kinds(self) -> Iterator[tuple[str, LearnedAgain]]:
        """Yield every kind of further stages, in the order in which they are computed, with its options."""
        for name in ("shuffled", "untrained", "nonsense"):
            if (options := getattr(self, name)) is not None:
                yield name, options
        if self.seed_ceiling is not None:
            for seed in range(2, self.seed_ceiling.seeds + 1):
                yield f"mask seed {seed}", self.seed_ceiling


@attrs.frozen
class ControlStage:
    """One stage of a control: its label in the cube, what kind it is, and of which stage it is the control."""

    label: str
    kind: str
    of: str


def control_label(stage: str, kind: str) -> str:
    """Return the label of a stage's control: `add (shuffled)`, `add (mask seed 2)`."""
    return f"{stage} ({kind})"


def control_stages(section: ControlsSection, masked: Sequence[str]) -> tuple[ControlStage, ...]:
    """Return the stages of the controls in the order in which they are computed; `masked` are the study's own."""
    return tuple(
        ControlStage(control_label(stage, kind), kind, stage)
        for kind, options in section.kinds()
        for stage in masked
        if options.stages is None or stage in options.stages
    )


def read_controls(table: Any, problems: Problems) -> tuple[ControlsSection, dict[str, Any]]:
    """Return the controls that learn masks, and the options of the analyses that `[controls]` asks for; without what is wrong."""
    if not isinstance(table, Mapping):
        problems.add(("controls",), f"{written(table)} is not a table; write [controls]")
        return ControlsSection(), {}
    learned: dict[str, Any] = {}
    scored: dict[str, Any] = {}
    for name, value in table.items():
        path: Path = ("controls", name)
        if name not in (*SCORED, *LEARNED):
            problems.add(path, unknown_key(name, [*SCORED, *LEARNED]), known=False)
        elif value is True or isinstance(value, Mapping):
            options = {} if value is True else value
            if name in SCORED:
                scored[name] = options
            else:
                learned[name] = structured(SeedCeiling if name == CEILING else LearnedAgain, options, path, problems)
        elif value is not False:
            problems.add(path, f"{written(value)} is no options; write {name} = true, or {name} = {{ ... }}")
    if (ceiling := learned.get(CEILING)) is not None:
        scored[CEILING] = {"seeds": ceiling.seeds}
    return ControlsSection(**learned), scored


def check_controls(
    section: ControlsSection,
    task: Task,
    protocol: Any,
    name: str,
    layout: Mapping[str, tuple[str, ...]],
    problems: Problems,
) -> None:
    """Note what stands in the way of learning a study's masks again: protocol, stages, a task without labels to permute."""
    stages, masked = layout["stages"], layout["masked stages"]
    for kind in LEARNED:
        options, path = getattr(section, kind), ("controls", kind)
        if options is None:
            continue
        if not masked:
            problems.add(path, f"the protocol {name!r} learns no masks that it could be compared with; leave it out")
        elif protocol.weights_per_stage or "unmasked" not in stages:
            problems.add(
                path, f"the protocol {name!r} has no frozen network on which masks could be learned again; leave it out"
            )
        elif kind == "nonsense" and not permutable(task):
            problems.add(
                path,
                f"the task {type(task).__name__} does not say what its labels are: give it label_name, or a method nonsense, "
                "or leave it out",
            )
        else:
            _check_stages(options, task, masked, path, problems)
    if taken := [s.label for s in control_stages(section, masked) if s.label in stages]:
        problems.add(("controls",), f"the task has a stage {taken[0]!r} of its own; rename it")


def permutable(task: Task) -> bool:
    """Return whether a task can be given labels that mean nothing."""
    return task.label_name is not None or type(task).nonsense is not Task.nonsense


def _check_stages(options: LearnedAgain, task: Task, masked: Sequence[str], path: Path, problems: Problems) -> None:
    chosen = options.stages
    if chosen is None:
        return
    for n, stage in enumerate(chosen):
        if stage not in masked:
            hint = near_miss(stage, masked) or f"; the stages with masks are {listing(masked)}"
            problems.add((*path, "stages", n), f"there is no {written(stage)}{hint}")
        elif stage in chosen[:n]:
            problems.add((*path, "stages", n), f"{written(stage)} is there already")
    first = task.stages[0].name
    if needs := [s.name for s in task.stages if s.copied and s.name in chosen and first not in chosen]:
        problems.add((*path, "stages"), f"{needs[0]!r} copies masks of {first!r}; add {written(first)}")
