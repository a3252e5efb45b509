"""Scores and verdicts of several studies side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import attrs
import xarray as xr

from modhook.findings import VERDICTS
from modhook.findings.statistics import interval
from modhook.report.facts import known
from modhook.report.findings import NBSP, percent
from modhook.report.scores import KEPT
from modhook.report.sides import Network, Side, networks
from modhook.report.verdicts import verdicts

CONFIDENCE = 0.95
_COLUMNS = 6
"""Up to so many networks have a column each; more of them, the points of sweeps, have a row each."""


@attrs.frozen
class Number:
    """A mean over the `n` seeds that have a value, as text, with the interval of the mean (empty for one seed)."""

    text: str
    interval: str = ""
    n: int = 0


@attrs.frozen
class Beside:
    """One metric of several networks.

    Attributes:
        title: the metric and its unit.
        networks: their labels.
        rows: (stage, what is measured, the number of each network).
        wide: whether there are so many networks that each should have a row.
    """

    title: str
    networks: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[Number, ...]], ...]

    @property
    def wide(self) -> bool:
        """Whether there are too many networks for a column each."""
        return len(self.networks) > _COLUMNS

    @property
    def grouped(self) -> list[tuple[str, list[tuple[str, tuple[Number, ...]]]]]:
        """The rows by their stages."""
        found: dict[str, list[tuple[str, tuple[Number, ...]]]] = {}
        for stage, what, numbers in self.rows:
            found.setdefault(stage, []).append((what, numbers))
        return list(found.items())


@attrs.frozen
class VerdictRows:
    """Verdicts: (function, [(study, its answers in the order of `names`)]), and why a study has none: (study, reason)."""

    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, tuple[str, ...]], ...]], ...]
    without: tuple[tuple[str, str], ...]


def scores_beside(found: Sequence[Side]) -> list[Beside]:
    """Return one table per metric: a row per stage and split, or per what is left without a stage's weights, that any study has."""
    every = networks(found)
    metrics = list(dict.fromkeys(m for side in found for m in side.facts.tabulated))
    return [_metric(metric, every) for metric in metrics]


def _metric(metric: str, every: Sequence[Network]) -> Beside:
    facts = [network.side.facts for network in every]
    share = any(metric in f.metrics for f in facts)
    splits = list(dict.fromkeys(split for f in facts for split in f.splits))
    rows = []
    for stage in dict.fromkeys(s for f in facts for s in f.stages):
        if any(stage in f.masked for f in facts):
            kept = tuple(_kept(network, stage) for network in every)
            rows.append((stage, f"{KEPT} [%]", kept))
        rows += [(stage, split, cells) for split, cells in _scored(metric, "", stage, splits, every, share)]
        rows += [(f"not {stage}", split, cells) for split, cells in _scored(metric, f"scores/{metric}", stage, splits, every, share)]
    return Beside(f"{metric} [%]" if share else metric, tuple(n.label for n in every), tuple(rows))


def _scored(
    metric: str, complement_of: str, stage: str, splits: Sequence[str], every: Sequence[Network], share: bool
) -> Iterator[tuple[str, tuple[Number, ...]]]:
    """Yield (split, numbers) of what any network has of a stage's scores, or of those that are left without its weights."""
    for split in splits:
        values = [_values(n, _source(n, metric, complement_of), stage, split) for n in every]
        if any(v is not None for v in values):
            yield split, tuple(_number(v, share, 1) for v in values)


def _source(network: Network, metric: str, complement_of: str) -> xr.DataArray | None:
    """Return a metric of a network, or what declares itself the complement of that variable; None where it has none."""
    facts = network.side.facts
    if not complement_of:
        return facts.score(metric) if metric in facts.tabulated else None
    for group, node in facts.cube.children.items():
        for name, variable in node.data_vars.items():
            if variable.attrs.get("complement_of") == complement_of:
                return facts.score(str(name), group)
    return None


def _values(network: Network, values: xr.DataArray | None, stage: str, split: str) -> list[float] | None:
    """Return one value per seed that has one; None where the study measures no such thing."""
    if values is None or stage not in values["stage"].values or split not in values["split"].values:
        return None
    at = {**network.point, "stage": stage}
    done = network.side.facts.status.sel(at) == 1  # what was measured of a stage that is to be computed again is still there
    return known(values.sel({**at, "split": split}).where(done))


def _kept(network: Network, stage: str) -> Number:
    facts = network.side.facts
    values = known(facts.kept.sel({**network.point, "stage": stage})) if stage in facts.masked else None
    return _number(values, True, None)


def _number(values: Sequence[float] | None, share: bool, digits: int | None) -> Number:
    if not values:
        return Number("\N{EN DASH}")
    mean, low, high = interval(values, CONFIDENCE)
    if share:
        low, high = max(0.0, low) if min(values) >= 0 else low, min(1.0, high) if max(values) <= 1 else high

    def write(x: float) -> str:
        return percent(x, digits).removesuffix(f"{NBSP}%") if share else f"{x:.3g}"

    bounds = "" if math.isnan(low) or math.isnan(high) or len(values) < 2 else f"{write(low)}\N{EN DASH}{write(high)}"
    return Number(write(mean), bounds, len(values))


def verdicts_beside(found: Sequence[Side]) -> VerdictRows | None:
    """Return the verdicts of all studies, a row per function and study; None where none has any."""
    rows: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    without = []
    for side in found:
        judged = verdicts(side.facts)
        if judged is None:
            without.append((side.name, "no controls to compare with"))
            continue
        for function, answers in judged.rows:
            rows.setdefault(function, []).append((side.name, answers))
    return VerdictRows(VERDICTS, tuple((f, tuple(each)) for f, each in rows.items()), tuple(without)) if rows else None
