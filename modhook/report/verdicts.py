"""The verdicts of a report: what can be said of each function, and the sentences with the numbers."""

from __future__ import annotations

import attrs

from modhook.findings import VERDICTS, verdict
from modhook.report.facts import Facts


@attrs.frozen
class Verdicts:
    """One row per function (and point of a sweep), in the order of `names`, and what each rests on: (row, [(verdict, answer, words)])."""

    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    because: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...]


def verdicts(facts: Facts) -> Verdicts | None:
    """Return the verdicts of a cube that has something to compare with: controls of its masks; None without.

    Of a study with a sweep every point has verdicts of its own, and a row names the point before the function.
    """
    judged = facts.judged
    rows = tuple((name, tuple(verdict(found, v) for v in VERDICTS)) for name, found in judged)
    because = tuple((name, tuple((f.verdict, f.answer, f.words) for f in found)) for name, found in judged)
    return Verdicts(VERDICTS, rows, because) if rows else None
