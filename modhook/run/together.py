"""Runs in one process: one after the other, or several whose masks are learned at once.

Each run of a group goes its own way (stages, checkpoints, failures) up to its next mask step, and waits there for the others:
the backward passes of all are one stacked pass, where that gives the numbers of one by one to the last bit (`modhook.fit.joint`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import attrs

from modhook.cube import computing
from modhook.errors import listing
from modhook.fit.joint import Joint
from modhook.plugin.interfaces import Task, Tracker
from modhook.plugin.tracker import told_of
from modhook.run.failure import stops_the_study
from modhook.run.live import Live
from modhook.run.one import PATIENCE, Done, Run, Work, compute_held, compute_run, missing
from modhook.run.trackers import EVENTS, Trackers
from modhook.steps.lockstep import Lockstep
from modhook.steps.ranks import spread

MOST = 8
"""Runs at once for `together = true`, and for `auto` where it takes any."""
SMALL = 130_000
"""Most weights, those of all samples of a step counted, of the runs that `auto` takes together (docs/scale.md has what was measured)."""
BATCH = 128
"""Largest mask batch that `auto` takes together: above it the products, which are the same at once, take most of the time."""


def in_turn(work: Work, runs: Sequence[Run]) -> Iterator[Done]:
    """Compute runs in this process, in order: one after the other, or in groups as `[run] together` says."""
    group: list[Run] = []
    for run in runs:
        if not missing(work, run):
            yield compute_run(work, run)
            continue
        if group and not (len(group) < at_once(work, group[0]) and _same_network(work, group[0], run)):
            yield from _grouped(work, group)
            group = []
        group.append(run)
    if group:
        yield from _grouped(work, group)


def at_once(work: Work, run: Run) -> int:
    """Return how many runs like this one are computed at once. `auto` is a fixed rule, never the clock, so that runs repeat."""
    study, layout = work.prepared.points[run.index].study, work.prepared.layouts[run.index]
    asked = study.run.together
    if spread() or asked is False or not study.masked_stages or type(work.prepared.tasks[run.index]).state_dict is not Task.state_dict:
        return 1  # a task that remembers, remembers what one run drew
    if asked != "auto":
        return MOST if asked is True else int(asked)
    shapes = [shape for shape, dtype in layout.state.values() if "float" in dtype or "complex" in dtype]
    stacked = study.masks.executor in ("auto", "vmap") and study.masks.mode == "eval" and not layout.units
    if work.device.type != "cpu" or not stacked or study.mask_batch > BATCH or any(len(shape) > 2 for shape in shapes):
        return 1
    weights = study.masks.samples * sum(prod(shape) for shape in shapes)
    return MOST if weights <= SMALL else 1


def _grouped(work: Work, runs: Sequence[Run]) -> Iterator[Done]:
    """Compute runs that may go together; `auto` takes as many as it wants or none, since waiting for each other costs time, too."""
    if work.prepared.points[runs[0].index].study.run.together == "auto" and len(runs) < MOST:
        yield from (compute_run(work, run) for run in runs)
    else:
        yield from _computed(work, runs)


def _same_network(work: Work, one: Run, other: Run) -> bool:
    prepared = work.prepared
    return (
        prepared.layouts[one.index].name == prepared.layouts[other.index].name
        and prepared.points[one.index].study.masks.samples == prepared.points[other.index].study.masks.samples
        and at_once(work, one) == at_once(work, other)
    )


def _computed(work: Work, runs: Sequence[Run]) -> Iterator[Done]:
    if len(runs) == 1:
        yield compute_run(work, runs[0])
        return
    people = work.people or work.tracker
    rest, own = people.divided(len(runs)) if isinstance(people, Trackers) else (people, [Trackers({}) for _ in runs])
    turns = Turns(rest, len(runs))
    people.message(f"{len(runs)} runs together: {listing([run.text for run in runs], MOST)}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(computing(work.cube.path, [run.text for run in runs], PATIENCE))
        functions = []
        for number, run in enumerate(runs):
            live = stack.enter_context(contextlib.closing(Live(work.cube.path)))
            told = {"tracker": turns.of(number), "own": stack.enter_context(contextlib.closing(own[number]))}
            tracker = Trackers(told if work.people is None else {**told, "live": live})
            functions.append(partial(_one, attrs.evolve(work, tracker=tracker), run, turns, number))
        lockstep = Lockstep(Joint(people.message), _ends_all, people.message)
        outcomes = lockstep.run(functions)
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    yield from (outcome.value for outcome in outcomes)
    if lockstep.interrupted:
        raise KeyboardInterrupt


def _one(work: Work, run: Run, turns: Turns, number: int) -> Done:
    try:
        return compute_held(work, run)
    finally:
        turns.ended(number)


def _ends_all(error: BaseException) -> bool:
    return isinstance(error, Exception) and stops_the_study(error)


class Turns:
    """The events of runs at once, for trackers that cannot tell runs apart: those of one run after those of the other.

    The first run that has not ended is told as it goes; what the others tell meanwhile is kept, with the time.
    """

    def __init__(self, tracker: Tracker, runs: int) -> None:
        self._tracker = tracker
        self._kept: list[list[tuple[str, tuple[Any, ...], float]]] = [[] for _ in range(runs)]
        self._over = [False] * runs
        self._front = 0

    def of(self, number: int) -> Tracker:
        """Return the tracker of one run."""
        return _Turn(self, number)

    def tell(self, number: int, event: str, arguments: tuple[Any, ...]) -> None:
        """Pass an event on, or keep it; of steps with nothing to tell, the latest."""
        if number == self._front:
            getattr(self._tracker, event)(*arguments)
            return
        kept = self._kept[number]
        if kept and event == "step" == kept[-1][0] and not kept[-1][1][1]:
            kept.pop()
        kept.append((event, arguments, time.monotonic()))

    def ended(self, number: int) -> None:
        """Tell what the next runs have told up to now."""
        self._over[number] = True
        while self._front < len(self._over) and self._over[self._front]:
            self._front += 1
            if self._front < len(self._over):
                kept, self._kept[self._front] = self._kept[self._front], []
                for event, arguments, at in kept:
                    with told_of(at):
                        getattr(self._tracker, event)(*arguments)


class _Turn(Tracker):
    """What one run tells."""

    def __init__(self, turns: Turns, number: int) -> None:
        self._turns, self._number = turns, number


def _passing_on(event: str) -> Any:
    def tell(self: _Turn, *arguments: Any) -> None:
        kept = tuple(dict(a) if isinstance(a, Mapping) else a for a in arguments)
        self._turns.tell(self._number, event, kept)

    return tell


for _event in EVENTS:
    setattr(_Turn, _event, _passing_on(_event))
