"""How much the masks of two studies have in common, where they are over the same parameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import numpy as np

from modhook.cube import masks_from, weights_from
from modhook.errors import CubeError, DamageError
from modhook.findings.statistics import interval
from modhook.masks import chance
from modhook.report.beside import CONFIDENCE
from modhook.report.facts import Facts, Place, array, label, listed
from modhook.report.sides import Side, pairs, same_points, swept

Bits = dict[str, Any]
"""Masks of one stage: {parameter: bool array}."""
_MOST = 2**28
"""So many weights of either study are compared, to tell whether the networks are the same; a run is compared whole."""


@attrs.frozen
class Shared:
    """The IoU of two masks: mean over the `n` seeds that both studies have, its interval, and what chance would give."""

    iou: float
    chance: float
    n: int
    low: float = math.nan
    high: float = math.nan

    @property
    def text(self) -> str:
        """The mean; a dash where there is none."""
        return f"{self.iou:.3f}" if self.n else "\N{EN DASH}"

    @property
    def interval(self) -> str:
        """The interval of the mean; empty for one seed."""
        return f"{self.low:.3f}\N{EN DASH}{self.high:.3f}" if self.n > 1 else ""


@attrs.frozen
class Overlap:
    """The overlaps of two studies.

    Attributes:
        a, b: their names.
        sentences: over what they were counted, or why they were not; and whether the networks are the same.
        corner: what the rows are.
        columns: labels.
        rows: (label, cells); none where nothing was counted.
    """

    a: str
    b: str
    sentences: tuple[str, ...]
    corner: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, tuple[Shared, ...]], ...] = ()


def overlaps_beside(found: Sequence[Side]) -> list[Overlap]:
    """Return the overlaps of every two studies: every mask of the one against every mask of the other, seed by seed.

    With several points of a sweep, a row per point, and only masks of one name. A damaged cube raises `DamageError`.
    """
    return [_pair(a, b) for a, b in pairs(found)]


def _pair(a: Side, b: Side) -> Overlap:
    if lacking := [side.name for side in (a, b) if not side.facts.masked]:
        who = f"{listed(lacking)} has no masks" if len(lacking) == 1 else "neither study has masks"
        return Overlap(a.name, b.name, (f"Nothing to compare: {who}.",))
    points = same_points(a.facts, b.facts)
    if not points:
        return Overlap(a.name, b.name, ("Nothing to compare: no setting of their sweeps is in both studies.",))
    seeds = [seed for seed in a.facts.seeds if seed in b.facts.seeds]
    if not seeds:
        return Overlap(a.name, b.name, ("Nothing to compare: they have no seed in common.",))
    one = len(points) == 1
    common = [s for s in a.facts.masked if s in b.facts.masked]
    cells = [(s, t) for s in a.facts.masked for t in b.facts.masked] if one else [(s, s) for s in common]
    if not cells:
        return Overlap(a.name, b.name, ("Nothing to compare: they have no mask of one name.",))
    reader = _Reader(a, b, cells)
    rows = [reader.point(p, q, seeds) for p, q in points]
    said = [*reader.said(), *_left_out(a.facts, b.facts, points)]
    if not reader.compared:
        return Overlap(a.name, b.name, tuple(said))
    said += _same_networks(a, b, points, seeds)
    if one:
        at = _label(a, b, *points[0])
        said = [f"At {at}.", *said] if at else said
        columns = tuple(b.facts.masked)
        table = tuple((s, tuple(rows[0][s, t] for t in columns)) for s in a.facts.masked)
        return Overlap(a.name, b.name, tuple(said), f"{a.name} \\ {b.name}", columns, table)
    table = tuple((_label(a, b, p, q) or "all", tuple(row.values())) for (p, q), row in zip(points, rows, strict=True))
    return Overlap(a.name, b.name, tuple(said), "setting", tuple(common), table)


class _Reader:
    """Counts the overlaps of two studies, and remembers over which parameters."""

    def __init__(self, a: Side, b: Side, cells: Sequence[tuple[str, str]]) -> None:
        self.a, self.b, self.cells = a, b, cells
        self.compared = False
        self._reasons: dict[str, None] = {}

    def point(self, p: Place, q: Place, seeds: Sequence[int]) -> dict[tuple[str, str], Shared]:
        """Return what each two masks share at a point of either sweep."""
        found: dict[tuple[str, str], list[tuple[float, float]]] = {pair: [] for pair in self.cells}
        for seed in seeds:
            ours, theirs = _masks(self.a.facts, {"seed": seed, **p}), _masks(self.b.facts, {"seed": seed, **q})
            there = [pair for pair in self.cells if pair[0] in ours and pair[1] in theirs]
            if not there or not self._comparable(ours[there[0][0]], theirs[there[0][1]], {"seed": seed, **p}, {"seed": seed, **q}):
                continue
            for s, t in there:
                found[s, t].append(_iou(ours[s], theirs[t]))
        return {pair: _over_seeds(values) for pair, values in found.items()}

    def said(self) -> list[str]:
        """Return over what overlaps were counted, or why not."""
        return list(self._reasons)

    def _comparable(self, ours: Bits, theirs: Bits, p: Place, q: Place) -> bool:
        """Return whether two masks have parameters in common, and remember in words which are not."""
        units = [_units(side.facts, place) for side, place in ((self.a, p), (self.b, q))]
        if units[0] != units[1] and any(units):
            self._reasons["Nothing to compare: their masks are not over the same units."] = None
            return False
        common = _common(ours, theirs)
        if not common:
            only = [
                f"{side.name} has {listed([f'{n} {_shape(m)}' for n, m in bits.items()], 3)}"
                for side, bits in ((self.a, ours), (self.b, theirs))
            ]
            self._reasons[f"Nothing to compare: no masked parameter has one name and shape in both; {'; '.join(only)}."] = None
            return False
        left = list(dict.fromkeys(n for n in [*ours, *theirs] if n not in common))
        if left:
            self._reasons[
                f"Over {listed(common)} alone, which both mask in one shape; left out: {listed(left)}."
            ] = None
        self.compared = True
        return True


def _masks(facts: Facts, run: Place) -> dict[str, Bits]:
    """Return the masks of a run, of every stage that is done."""
    place = {k: v for k, v in run.items() if k != "seed"}
    return {
        stage: {n: m.numpy() for n, m in masks_from(facts.cube, run["seed"], stage, **place).items()}
        for stage in facts.masked
        if facts.finished(run, stage)
    }


def _common(a: Bits, b: Bits) -> list[str]:
    return [name for name, mask in a.items() if name in b and mask.shape == b[name].shape]


def _iou(a: Bits, b: Bits) -> tuple[float, float]:
    """Return |A and B| / |A or B| over the parameters of one shape, and its expectation for random masks of these sizes."""
    sizes, both = [], 0
    for name in _common(a, b):
        sizes.append((int(a[name].size), int(a[name].sum()), int(b[name].sum())))
        both += int((a[name] & b[name]).sum())
    kept = [sum(s[i] for s in sizes) for i in (1, 2)]
    laws = [chance.shared(*s) for s in sizes if s[0]]
    expected = chance.total(laws).iou(*kept) if laws else math.nan
    union = sum(kept) - both
    return both / union if union else math.nan, expected


def _over_seeds(values: Sequence[tuple[float, float]]) -> Shared:
    finite = [v for v in values if math.isfinite(v[0])]
    if not finite:
        return Shared(math.nan, math.nan, 0)
    mean, low, high = interval([v[0] for v in finite], CONFIDENCE)
    return Shared(mean, float(np.mean([v[1] for v in finite])), len(finite), max(0.0, low), min(1.0, high))


def _units(facts: Facts, run: Place) -> list[str]:
    """Return which units a run's masks are over, as the cube says it; nothing for masks of weights."""
    layout = facts.layout(run)
    return [str(t) for t in array(layout, "units").values.ravel()] if "units" in layout.data_vars else []


def _same_networks(a: Side, b: Side, points: Sequence[tuple[Place, Place]], seeds: Sequence[int]) -> Iterator[str]:
    """Say whether masks of one seed are masks of one trained network."""
    same = differ = read = 0
    for (p, q), seed in itertools.product(points, seeds):
        runs = ((a.facts, {"seed": seed, **p}), (b.facts, {"seed": seed, **q}))
        if read > _MOST or not all(facts.finished(run, facts.every_stage[0]) for facts, run in runs):
            continue
        try:
            one, two = (weights_from(facts.cube, seed, **at) for (facts, _), at in zip(runs, (p, q), strict=True))
        except DamageError:
            raise
        except CubeError:  # packed without them, or they change from stage to stage
            yield (
                "Whether the networks under the masks are the same is not known: "
                "the cubes do not both hold one set of trained weights for a run."
            )
            return
        read += sum(t.numel() for t in one.values())
        equal = one.keys() == two.keys() and all(t.shape == two[n].shape and bool((t == two[n]).all()) for n, t in one.items())
        same, differ = same + equal, differ + (not equal)
    if same and not differ:
        yield "Both masks of a seed are of one trained network: its weights are equal in the two studies."
    elif differ:
        where = f" in {differ} of {same + differ} runs" if same else ""
        yield (
            f"The networks were trained to other weights{where}: an entry of the one need not do what that entry does in the other, "
            "and an IoU near chance says nothing about the functions."
        )


def _left_out(a: Facts, b: Facts, points: Sequence[tuple[Place, Place]]) -> Iterator[str]:
    for facts, at in ((a, 0), (b, 1)):
        every, used = len(facts.points), len({tuple(pair[at].items()) for pair in points})
        if used < every:
            yield f"{every - used} of {every} settings of {listed(facts.sweep)} are in one of the studies alone."


def _label(a: Side, b: Side, p: Place, q: Place) -> str:
    at = {**swept(a.facts, p), **swept(b.facts, q)}
    return label(at)


def _shape(mask: Any) -> str:
    return "\N{MULTIPLICATION SIGN}".join(map(str, mask.shape)) or "scalar"
