"""The scores of a report: a row per stage, or, over a sweep, a row per sweep point."""

from __future__ import annotations

import attrs
import numpy as np
import xarray as xr

from modhook.report.facts import Facts, Place, known, mean
from modhook.report.findings import percent


@attrs.frozen
class Cell:
    """A number in a table: its text, its spread over seeds, and its share from 0 to 20 for the shade (None: unknown)."""

    text: str
    spread: str = ""
    shade: int | None = None
    kept: bool = False
    """Whether it is the share of the weights that a mask keeps, and no score."""


@attrs.frozen
class ScoreRow:
    """What stands before the numbers, in words below it, and the numbers."""

    label: str
    doc: str
    cells: tuple[Cell, ...]


@attrs.frozen
class ScoreTable:
    """The scores of one metric. `over` are labels above neighbouring columns, with their number; none in a table of stages."""

    title: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[ScoreRow, ...]
    over: tuple[tuple[str, int], ...] = ()


KEPT = "weights kept"


def score_tables(facts: Facts, docs: dict[str, str]) -> list[ScoreTable]:
    """Return one table per metric; `docs` says in words what the stages are."""
    made = []
    for metric in facts.metrics:
        values = facts.score(metric)
        assert values is not None
        wide = len(facts.points) > 1
        made.append(_wide(facts, metric, values) if wide else _stages(facts, metric, values, docs))
    return made


def _stages(facts: Facts, metric: str, values: xr.DataArray, docs: dict[str, str]) -> ScoreTable:
    rows = []
    for stage in facts.stages:
        cells = _numbers(facts, values, stage, facts.points[0])
        kept = cells if stage in facts.masked else (Cell("", kept=True), *cells)
        rows.append(ScoreRow(stage, docs.get(stage, ""), kept))
    return ScoreTable(metric, "stage", (KEPT, *facts.splits), tuple(rows))


def _wide(facts: Facts, metric: str, values: xr.DataArray) -> ScoreTable:
    columns, over = [], []
    for stage in facts.stages:
        names = [*([KEPT] if stage in facts.masked else []), *facts.splits]
        columns += names
        over.append((stage, len(names)))
    rows = [
        ScoreRow(
            ", ".join(map(str, point.values())),
            "",
            tuple(c for s in facts.stages for c in _numbers(facts, values, s, point)),
        )
        for point in facts.points
    ]
    return ScoreTable(metric, ", ".join(facts.sweep), tuple(columns), tuple(rows), tuple(over))


def _numbers(facts: Facts, values: xr.DataArray, stage: str, point: Place) -> tuple[Cell, ...]:
    """Return what a stage's mask keeps, if it has one, and its scores."""
    at = values.sel({**point, "stage": stage})
    scores = tuple(_cell(at.sel(split=split), 1) for split in facts.splits)
    if stage not in facts.masked:
        return scores
    return (attrs.evolve(_cell(facts.kept.sel({**point, "stage": stage}), None), kept=True), *scores)


def _cell(values: xr.DataArray, digits: int | None) -> Cell:
    finite = known(values)
    if not finite:
        return Cell("\N{EN DASH}")
    average = mean(finite)
    spread = f"± {100 * float(np.std(finite, ddof=1)):.1f}" if len(finite) > 1 else ""
    text = percent(average, digits).removesuffix("\N{NO-BREAK SPACE}%")
    return Cell(text, spread, min(20, max(0, round(20 * average))))
