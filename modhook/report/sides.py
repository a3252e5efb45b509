"""The studies of a report on several: what they are called, which settings of theirs belong together, and what cannot be compared."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import xarray as xr

from modhook.cube import Where, place_of, stem
from modhook.errors import CubeError, UserError, listing
from modhook.report.facts import Facts, Place, label


@attrs.frozen
class Side:
    """One study among several. `name` tells it from the others."""

    name: str
    facts: Facts

    @property
    def source(self) -> Path:
        """The cube's path."""
        return self.facts.source


@attrs.frozen
class Network:
    """One study at one point of its sweep; `label` tells it from all others."""

    label: str
    side: Side
    point: Place


def sides(cubes: Sequence[tuple[xr.DataTree, Path]]) -> list[Side]:
    """Return the studies, named after their cubes; of equal names each has its number."""
    names = [stem(source.name) for _, source in cubes]
    numbered = [f"{n} ({names[: i + 1].count(n)})" if names.count(n) > 1 else n for i, n in enumerate(names)]
    return [Side(name, Facts(cube, source)) for name, (cube, source) in zip(numbered, cubes, strict=True)]


def refuse_twice(cubes: Sequence[Where]) -> None:
    """Raise `UserError` where two of these are one cube, whichever way it is written."""
    for a, b in itertools.combinations(cubes, 2):
        one, two = place_of(a).path, place_of(b).path
        local = isinstance(one, Path) and isinstance(two, Path) and one.exists() and two.exists()
        if one == two or (local and os.path.samefile(one, two)):
            again = "" if str(a) == str(b) else f", the same as {a}"
            raise UserError(f"{b} is given twice{again}; name each cube once.")


def refuse_incomparable(found: Sequence[Side], given: Sequence[Where]) -> None:
    """Raise `CubeError` for a study in which nothing is done yet, and for one that shares no score with any of the others."""
    for side, where in zip(found, given, strict=True):
        if not bool((side.facts.status == 1).any()):
            raise CubeError(
                f"{where} has no finished stage yet, so that nothing in it can be compared; run its study first, or leave it out."
            )
    measured = [_measured(side.facts) for side in found]
    for i, (one, where) in enumerate(zip(measured, given, strict=True)):
        others = set().union(*(m for j, m in enumerate(measured) if j != i))
        if not one & others:
            rest = listing(sorted({f"{metric} on {split}" for metric, split in others}), 6)
            own = listing([f"{metric} on {split}" for metric, split in sorted(one)], 6)
            raise CubeError(
                f"{where} cannot be compared with the others: it has {own}, and they have {rest}; write a report of its own."
            )


def networks(found: Sequence[Side]) -> list[Network]:
    """Return every study at every point of its sweep."""
    return [
        Network(", ".join(filter(None, [side.name, label(swept(side.facts, point))])), side, point)
        for side in found
        for point in side.facts.points
    ]


def swept(facts: Facts, point: Place) -> Place:
    """Return a point without the keys that have one value alone."""
    return {k: v for k, v in point.items() if facts.status.sizes[k] > 1}


def same_points(a: Facts, b: Facts) -> list[tuple[Place, Place]]:
    """Return which points of two sweeps belong together: those that agree in every key that either sweeps.

    A key that only one of them sweeps is a setting of the other. Where nothing agrees, a study of one point is put beside every point
    of the other.
    """
    keys = dict.fromkeys([*a.sweep, *b.sweep])
    agreeing = [
        (p, q)
        for p, q in itertools.product(a.points, b.points)
        if all(value(a, p, key) == value(b, q, key) for key in keys)
    ]
    alone = len(a.points) == 1 or len(b.points) == 1
    return agreeing or (list(itertools.product(a.points, b.points)) if alone else [])


def value(facts: Facts, point: Place, key: str) -> Any:
    """Return what a setting is at a point, as the label of a sweep; None where the study does not have it."""
    from modhook.cube.labels import label_of

    if key in point:
        return point[key]
    at: Any = facts.table
    for part in key.split("."):
        if not isinstance(at, dict) or part not in at:
            return None
        at = at[part]
    try:
        return label_of(at)
    except CubeError:
        return None


def pairs(found: Sequence[Side]) -> Iterator[tuple[Side, Side]]:
    """Yield every two studies."""
    yield from itertools.combinations(found, 2)


def _measured(facts: Facts) -> set[tuple[str, str]]:
    """Return which metrics are measured on which splits."""
    return {(metric, split) for metric in facts.tabulated for split in facts.splits}
