"""Puts together what a report on several studies shows: how they differ, what stands side by side, and each one by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modhook import __version__
from modhook.plugin.interfaces import Figure
from modhook.plugin.manager import Plugins
from modhook.report.beside import CONFIDENCE, Beside, scores_beside, verdicts_beside
from modhook.report.collect import collect, undrawn
from modhook.report.facts import known, listed
from modhook.report.findings import MOST, Finding, headlines_of_nothing, percent, range_of, sentence
from modhook.report.pictures import pictures
from modhook.report.settings import Settings, settings
from modhook.report.shared import Overlap, overlaps_beside
from modhook.report.sides import Side


def collect_several(found: Sequence[Side], plugins: Plugins, further: Mapping[str, type[Figure]]) -> dict[str, Any]:
    """Return everything that the template of several studies names."""
    told, scores, overlaps = settings(found), scores_beside(found), overlaps_beside(found)
    studies = [collect(side.facts, plugins, further) for side in found]
    drawn, failed = pictures([side.facts.cube for side in found], plugins, further)
    return {
        "names": [side.name for side in found],
        "title": listed([side.name for side in found], 4),
        "studies": [{**study, "own_name": side.name} for side, study in zip(found, studies, strict=True)],
        "findings": _headlines(found, told, overlaps),
        "unfinished": [line for side, study in zip(found, studies, strict=True) if (line := unfinished(side, study))],
        "settings": told,
        "scores": scores,
        "seeds": _seeds(scores),
        "confidence": f"{100 * CONFIDENCE:.0f} %",
        "verdicts": verdicts_beside(found),
        "overlaps": overlaps,
        "pictures": drawn,
        "cautions": [undrawn(failed)] if failed else [],
        "words": _words(studies),
        "split_words": list(dict.fromkeys(w for study in studies for w in study["words"])),
        "modhook": __version__,
    }


def unfinished(side: Side, study: Mapping[str, Any]) -> str:
    """Return the sentence that a study is not finished; an empty text of one that is."""
    return "" if study["finished"] else f"{side.name} is not finished: {study['progress']}, and what is shown of it is of those alone."


def _headlines(found: Sequence[Side], told: Settings, overlaps: Sequence[Overlap]) -> list[Finding]:
    changed, versions = told.changed, [name for name, _ in told.differ if name not in told.changed]
    parts: list[Any] = ["The studies differ in ", (listed(changed, 8), True)] if changed else ["The studies have the same settings"]
    others = {"data": [n for n in versions if n.startswith("data")], "code": [n for n in versions if n.startswith("code")]}
    apart = [what for what, names in others.items() if names] + [n for n in versions if n.startswith("version")]
    if apart:
        parts += ["; they have other ", (listed([a.replace("version of", "versions of") for a in apart]), True)]
    lines = [sentence(*parts, ".")]
    lines += [sentence((side.name, True), ": ", str(said)) for side in found for said in headlines_of_nothing(side.facts)]
    functions = [f for f in found[0].facts.functions if all(f in side.facts.functions for side in found)]
    lines += [line for f in functions[:MOST] if (line := _function(found, f)) is not None]
    for overlap in overlaps:
        shared = [
            (stage, cell)
            for stage, cells in overlap.rows
            for column, cell in zip(overlap.columns, cells, strict=True)
            if stage == column and stage in functions and cell.n
        ]
        for stage, cell in shared[:MOST]:
            who: list[Any] = ["The masks for ", (stage, True), f" of {overlap.a} and {overlap.b} share "]
            random: list[Any] = ["; random masks of the same sizes would share ", (percent(cell.chance), True)]
            lines.append(sentence(*who, (percent(cell.iou), True), " of the weights that either keeps (IoU)", *random, "."))
    return lines


def _function(found: Sequence[Side], function: str) -> Finding | None:
    """Say what the mask for one function keeps and scores in each study, where its split has its name."""
    parts: list[Any] = []
    for side in found:
        facts = side.facts
        metric = facts.metrics[0] if facts.metrics else ""
        scores = facts.score(metric) if metric else None
        kept = facts.kept.sel(stage=function) if function in facts.masked else None
        if scores is None or kept is None or not known(kept):
            return None
        split = function if function in facts.splits else facts.splits[0]
        at = scores.sel(stage=function, split=split)
        parts += ["; " if parts else "", (range_of(kept), True), " of the weights"]
        parts += [", ", (range_of(at, lambda x: percent(x, 1)), True), f" on {split}"] if known(at) else []
        parts += [f" in {side.name}"]
    return sentence("The mask for ", (function, True), " keeps ", *parts, ".")


def _seeds(scores: Sequence[Beside]) -> int | None:
    """Return the number of seeds that every number of the tables stands for; None where they differ."""
    counts = {number.n for table in scores for _, _, numbers in table.rows for number in numbers if number.n}
    return counts.pop() if len(counts) == 1 else None


def _words(studies: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return in words what tasks, networks and stages are, each once."""
    every = (
        (title, words)
        for study in studies
        for what, title, words in [*study["asked"], *study["stage_words"]]
        if words and what in ("Task", "Network", "Protocol", "Stage")
    )
    return list(dict.fromkeys(every))


