"""An answer for people: lines of text, and a page for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modhook.errors import listing, printable
from modhook.findings import VERDICTS, Finding, verdict
from modhook.findings.nothing import nothing
from modhook.plugin.manager import Plugins
from modhook.values import markup

if TYPE_CHECKING:
    from modhook.asking.answer import Answer

_FIGURES = 2
"""Figures that a notebook shows; the report has all."""
_SIGNS = {"yes": "yes", "no": "no", "cannot tell": "?"}
Judged = Mapping[str, Sequence[Finding]]


def lines(answer: Answer, judged: Judged) -> str:
    """Return the answer as lines: the verdicts, their words, the scores, where the cube is."""
    text = [f"Answer: {listing(answer.functions)}; seeds {listing(map(str, answer.seeds))}; {answer.where}"]
    text += [
        "",
        *_aligned(["function", *VERDICTS], [[n, *(verdict(f, v) for v in VERDICTS)] for n, f in judged.items()]),
    ]
    text += ["", *_untested(answer)] if answer.untested else []
    text += ["", *said] if (said := _nothing(judged)) else []
    for name, found in judged.items():
        text += ["", f"{name}:"]
        text += [f"  {finding.verdict} {_SIGNS[finding.answer]}: {finding.words}" for finding in found]
    head, rows = scores(answer)
    text += ["", *_aligned(head, rows)]
    text += [f"failed: {line}" for line in answer.failed]
    return printable("\n".join(text))


def page(answer: Answer, judged: Judged, plugins: Plugins) -> str:
    """Return the answer in HTML: verdicts, findings, scores, the first figures."""
    from modhook.report.pictures import pictures

    facts = (listing(answer.functions), f"seeds {listing(map(str, answer.seeds))}", answer.where)
    rows = [[name, *(verdict(found, v) for v in VERDICTS)] for name, found in judged.items()]
    numbers = [[f.function, f.verdict, f.answer, f.words, _p(f)] for found in judged.values() for f in found]
    head, table = scores(answer)
    drawn, _ = pictures([answer.cube], plugins, {})
    images = [
        markup.Markup(
            f'<img src="{p.source}" alt="{markup.escaped(p.caption)}" style="max-width:30em;background:white"/>'
        )
        for p in drawn[:_FIGURES]
    ]
    said = [markup.line("nothing there", one) for one in _nothing(judged)]
    failed = [markup.line("failed", one) for one in answer.failed]
    failed += [markup.line("tests", one) for one in _untested(answer)]
    return markup.box(
        markup.line("Answer", *facts),
        *said,
        markup.table(["function", *VERDICTS], rows),
        markup.table(["function", "verdict", "answer", "because", "p"], numbers),
        markup.table(head, table, "mean over seeds, in percent"),
        *images,
        *failed,
    )


def scores(answer: Answer) -> tuple[list[str], list[list[str]]]:
    """Return a small table: for each stage what its mask keeps, and its scores, means over seeds."""
    values, metrics = answer.scores, [str(m) for m in answer.scores["metric"].values]
    splits = [str(s) for s in values["split"].values]
    kept = _densities(answer)
    head = ["mask", "weights kept", *(f"{m} on {s}" if len(metrics) > 1 else s for m in metrics for s in splits)]
    rows = []
    for stage in (str(s) for s in values["stage"].values):
        cells = [_percent(_mean(values.sel(stage=stage, metric=m, split=s).values)) for m in metrics for s in splits]
        rows.append([stage, _percent(kept.get(stage, float("nan"))), *cells])
    return head, rows


def _untested(answer: Answer) -> list[str]:
    if not answer.untested:
        return []
    names = listing(map(repr, answer.untested))
    return [f"no held-out tests for {names}: measured on what their masks were learned on."]


def _nothing(judged: Judged) -> list[str]:
    return [said for name, found in judged.items() if (said := nothing(name, found))]


def _densities(answer: Answer) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for name, seed in answer.masks:
        found.setdefault(name, []).append(answer.masks[name, seed].density)
    return {name: float(np.mean(shares)) for name, shares in found.items()}


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    every = [list(head), *(list(map(str, row)) for row in rows)]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in every]


def _mean(values: Any) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f} %"


def _p(finding: Finding) -> str:
    return "" if np.isnan(finding.p) else f"{finding.p:.3g}"
