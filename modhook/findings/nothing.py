"""The sentence that comes before all others where nothing of a function was found."""

from __future__ import annotations

from collections.abc import Sequence

from modhook.errors import listing
from modhook.findings.judge import ABILITY, verdict
from modhook.findings.records import REAL, Finding


def nothing(function: str, findings: Sequence[Finding]) -> str:
    """Return what is to be said first of a function whose verdict *real* is `no`; empty for any other answer.

    Either the network does not do the function, so that no mask of it means anything, or masks of what cannot do it are as good.
    """
    if verdict(findings, "real") != "no":
        return ""
    unable = [f.measure.removeprefix(ABILITY) for f in findings if f.measure.startswith(ABILITY) and f.answer == "no"]
    if unable:
        why = f"without a mask the network scores little more than its control ({listing(unable)}), in one seed at least"
        return f"Nothing of {function} is there to be found: {why}, so that its mask and its scores say nothing."
    beside = [kind for kind in REAL if verdict([f for f in findings if f" over {kind} as " in f.measure], "real") == "no"]
    return f"Nothing of {function} was found: the masks of its control ({listing(beside)}) are as good as its own."
