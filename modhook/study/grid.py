"""The grid of a sweep: every value and every combination is checked before anything runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Container, Mapping, Sequence
from copy import deepcopy
from typing import Any

import attrs

from modhook.study.build import Built
from modhook.study.labels import check_value, labels
from modhook.study.problems import Problem, Problems, line
from modhook.study.study import Label, Point, Study
from modhook.study.tables import put
from modhook.values.bounds import Rejected
from modhook.values.text import Path, written

SWEEPABLE = ("task", "model", "train", "masks", "sampler")
MOST_POINTS = 10_000

Builder = Callable[[Mapping[str, Any], Problems], Built | None]


def points(study: Study) -> list[Point]:
    """Return the grid of a study, the last swept key running fastest; without a sweep, one point that has no labels."""
    return list(study.grid) if study.sweep else [Point({}, study)]


def check_sweep(sweep: Mapping[str, Any], problems: Problems) -> dict[str, list[Any]]:
    """Return the keys of a sweep that are in order, and note what is wrong with the others."""
    good = {}
    for key, values in sweep.items():
        path: Path = ("sweep", key)
        section, _, rest = key.partition(".")
        if section not in SWEEPABLE or not rest or key == "task.name":
            problems.add(
                path, f'cannot be swept; write a key of {", ".join(SWEEPABLE)} (task.name aside), such as "masks.beta"'
            )
        elif not isinstance(values, list):
            problems.add(path, f"{written(values)} is not a list of values")
        elif not values:
            problems.add(path, "an empty list; give at least one value, or leave the key out")
        elif _values_in_order(path, values, problems):
            good[key] = values
    if (size := math.prod(len(v) for v in good.values())) > MOST_POINTS:
        problems.add(("sweep",), f"a grid of {size} points; at most {MOST_POINTS} are allowed")
        return {}
    return good


def _values_in_order(path: Path, values: list[Any], problems: Problems) -> bool:
    before = len(list(problems))
    for n, value in enumerate(values):
        try:
            check_value(value)
        except Rejected as error:
            problems.add((*path, n), str(error))
    if len(list(problems)) > before:
        return False
    seen: dict[Label, int] = {}
    for n, label in enumerate(labels(values)):
        first = seen.setdefault(label, n)
        if first != n:
            same = "is there already" if values[first] == values[n] else f"has the same label, {label}, as the value"
            problems.add((*path, n), f"{written(values[n])} {same} at [{first}]")
    return len(list(problems)) == before


def expand(
    table: Mapping[str, Any], sweep: Mapping[str, list[Any]], builder: Builder, problems: Problems
) -> Study | None:
    """Return the study with its grid, or None after noting what is wrong with any of its values or points.

    The sections of a study with a sweep are those of the grid's first point: the file's own values of swept keys are
    never run, so they are not looked at.
    """
    if not sweep:
        built = builder(table, problems)
        return built.study if built else None
    size = {key: len(values) for key, values in sweep.items()}
    first = dict.fromkeys(sweep, 0)
    base, found = _point(table, sweep, first, builder)
    _note(sweep, first, found, problems)
    for key in sweep:
        for n in range(1, size[key]):
            others = _point(table, sweep, first | {key: n}, builder)[1]
            _note(sweep, first | {key: n}, others, problems, known=set(found))
    if problems or base is None:
        return None
    names = {key: labels(values) for key, values in sweep.items()}
    grid = []
    for place in itertools.product(*(range(n) for n in size.values())):
        at = dict(zip(sweep, place, strict=True))
        built, found = _point(table, sweep, at, builder)
        if built and (text := _other_layout(built, base)):
            found.add((), text)
        _note(sweep, at, found, problems)
        if built:
            grid.append(Point({key: names[key][n] for key, n in at.items()}, built.study))
    if problems:
        return None
    return attrs.evolve(base.study, sweep={k: _frozen(v) for k, v in sweep.items()}, grid=tuple(grid))


def _point(
    table: Mapping[str, Any], sweep: Mapping[str, list[Any]], at: Mapping[str, int], builder: Builder
) -> tuple[Built | None, Problems]:
    """Build one point of the grid, and return its problems beside it."""
    values, found = deepcopy(dict(table)), Problems()
    for key, n in at.items():
        if wrong := put(values, key.split("."), sweep[key][n]):
            found.add(tuple(key.split(".")), wrong, known=False)
    built = builder(values, found)
    return built, found


def _note(
    sweep: Mapping[str, list[Any]],
    at: Mapping[str, int],
    found: Problems,
    problems: Problems,
    known: Container[Problem] = (),
) -> None:
    """Note the problems of one point: at the sweep's value where one is to blame, or else saying which point it is.

    `known` problems were noted at the first point; one at a value that moved away from it is noted all the same.
    """
    problems.cause = problems.cause or found.cause
    moved = {key: n for key, n in at.items() if n}
    for problem in found:
        blamed = next((key for key in at if problem.path[: key.count(".") + 1] == tuple(key.split("."))), None)
        if problem in known and blamed not in moved:
            continue
        if blamed:
            inner = problem.path[blamed.count(".") + 1 :]
            place: Path = ("sweep", blamed, at[blamed], *inner) if problem.known else ("sweep", blamed)
            problems.add(place, problem.text, known=problem.known)
        elif not moved:
            problems.add(problem.path, problem.text, known=problem.known)
        elif len(moved) == 1:
            ((key, n),) = moved.items()
            problems.add(("sweep", key, n), line(problem))
        else:
            where = ", ".join(f"{key} = {written(sweep[key][n])}" for key, n in at.items())
            problems.add(("sweep",), f"at the point {where}: {line(problem)}")


def _other_layout(one: Built, base: Built) -> str:
    for what, first in base.layout.items():
        if one.layout[what] != first:
            here = f"the task's {what} are {', '.join(one.layout[what])} here and {', '.join(first)} at the first point"
            return f"{here}; one cube needs the same in all its runs"
    return ""


def _frozen(value: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(_frozen(v) if isinstance(v, list) else v for v in value)
