"""The headlines of a report: what the masks say, one sentence each, with the numbers that matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import xarray as xr

from modhook.findings.nothing import nothing
from modhook.report.facts import Facts, known, listed, mean

MOST = 4
NBSP = "\N{NO-BREAK SPACE}"


@attrs.frozen
class Finding:
    """A sentence in pieces; those that are numbers or names stand out."""

    parts: tuple[tuple[str, bool], ...]

    def __str__(self) -> str:
        return "".join(text for text, _ in self.parts)


def percent(value: float, digits: int | None = None) -> str:
    """Write a share in percent: `98.1 %`; without `digits`, about two figures: `21 %`, `3.4 %`, `0.05 %`."""
    if digits is None:
        digits = 0 if value >= 0.095 or value == 0 else 1 if value >= 0.0095 else 2
    return f"{100 * value:.{digits}f}{NBSP}%"


def findings(facts: Facts) -> list[Finding]:
    """Return the headlines, the most telling first: in which functions there is nothing, functions, their overlap, the control."""
    metric = facts.metrics[0] if facts.metrics else ""
    scores = facts.score(metric) if metric else None
    if not (facts.status == 1).any() or scores is None:
        return [sentence("No run has finished yet.")]
    told = [s for s in facts.functions if s in facts.masked and known(facts.kept.sel(stage=s))]
    sentences = {s: _function(facts, scores, s) for s in told}
    # With many functions, those whose masks tell their own data from the others' best.
    chosen = sorted(told, key=lambda s: -_contrast(facts, scores, s))[:MOST] if len(told) > MOST else told
    found = [*headlines_of_nothing(facts), *(sentences[s] for s in told if s in chosen)]
    if len(told) > MOST:
        found.append(sentence(f"{len(told) - MOST} more functions are in the table of scores."))
    if known(facts.overlap):
        both, pair = len(facts.functions) == 2, listed(facts.functions)
        who: list[Any] = ["The masks of ", (pair, True)] if both else ["Any two functions' masks"]
        what = f" of the weights that {'either keeps' if both else 'either keeps, on average'} (IoU)"
        random: list[Any] = []
        if facts.chance is not None and known(facts.chance):
            random = ["; random masks of the same sizes would share ", (range_of(facts.chance), True)]
        found.append(sentence(*who, " share ", (range_of(facts.overlap), True), what, *random, "."))
    found += _control(facts, scores)
    if len(facts.points) > 1:
        found.append(sentence(f"Ranges run over {len(facts.points)} settings of {listed(facts.sweep)}."))
    return found or [sentence("No mask has been learned yet.")]


def headlines_of_nothing(facts: Facts) -> list[Finding]:
    """Return what is to be said before anything else: of which functions nothing was found."""
    said = [text for name, judged in facts.judged if (text := nothing(name, judged))]
    more = [f"So it is with {len(said) - MOST} more functions; see the verdicts."] if len(said) > MOST else []
    return [sentence(text) for text in (*said[:MOST], *more)]


def _function(facts: Facts, scores: xr.DataArray, stage: str) -> Finding:
    own, others = _splits(facts, stage)
    at = scores.sel(stage=stage)
    parts: list[Any] = [
        "The mask for ",
        (stage, True),
        " keeps ",
        (range_of(facts.kept.sel(stage=stage)), True),
        " of the weights",
    ]
    rest: list[Any] = []
    shown = own + others if len(others) <= 2 else own
    for split in shown:
        if known(at.sel(split=split)):
            rest += [", " if rest else "; ", (range_of(at.sel(split=split), _score), True), f" on {split}"]
    if len(others) > 2 and known(at.sel(split=others)):
        average = at.sel(split=others).mean("split")
        rest += [", " if rest else "; ", (range_of(average, _score), True), f" on average on the {len(others)} others"]
    return sentence(*parts, *rest, ".")


def _control(facts: Facts, scores: xr.DataArray) -> list[Finding]:
    """Compare the network with its control, on the first split: by the tasks' convention the whole task's."""
    split = facts.splits[0]
    found: list[Finding] = []
    before = scores.sel(stage="unmasked", split=split) if "unmasked" in facts.stages else xr.DataArray(np.nan)
    after = scores.sel(stage="control", split=split) if "control" in facts.masked else xr.DataArray(np.nan)
    if known(after):
        parts: list[Any] = ["The mask of the ", ("control", True), " keeps "]
        parts += [(range_of(facts.kept.sel(stage="control")), True), " of the weights; ", (range_of(after, _score), True)]
        parts += [f" on {split}"]
        if known(before):
            parts += [", where the unmasked network has ", (range_of(before, _score), True)]
        found.append(sentence(*parts, "."))
    elif known(before):
        found.append(
            sentence("The network reaches ", (range_of(before, _score), True), f" on {split} before any masking.")
        )
    return found


def _splits(facts: Facts, stage: str) -> tuple[list[str], list[str]]:
    """Return the stage's own split (none if no split has its name) and those of the other functions, or else the first."""
    own = [s for s in facts.splits if s == stage]
    others = [s for s in facts.splits if s in facts.functions and s != stage]
    return (own, others) if own else (facts.splits[:1], [])


def _contrast(facts: Facts, scores: xr.DataArray, stage: str) -> float:
    own, others = _splits(facts, stage)
    at = scores.sel(stage=stage)
    value = mean(at.sel(split=own)) - (mean(at.sel(split=others)) if others else 0.0)
    return value if np.isfinite(value) else -np.inf


def range_of(values: xr.DataArray, write: Any = percent) -> str:
    """Write the mean over seeds; over a sweep, the smallest and the largest of these means."""
    means = values.mean("seed").values if "seed" in values.dims else values.values
    finite = known(means)
    low, high = write(min(finite)), write(max(finite))
    return low if low == high else f"{low.removesuffix(f'{NBSP}%')}\N{EN DASH}{high}"


def _score(value: float) -> str:
    return percent(value, 1)


def sentence(*parts: str | tuple[str, bool]) -> Finding:
    """Return a finding of these pieces; what is a pair is a number or a name and stands out if its second is true."""
    pieces: Sequence[tuple[str, bool]] = [(p, False) if isinstance(p, str) else p for p in parts]
    return Finding(tuple(pieces))
