"""Compares what is measured now with what is stored for the same processor, ratio by ratio: worse, better, or the same within noise.

A ratio has a value per process; it is worse where the least of now is above the most of then, and better the other way round. Processes
of one day differ less than days: the least and the most are at least a twentieth from the median.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

LEAST = 0.05
"""The least spread to each side, as a share of the median."""
OURS = ("auto", "vmap", "loop")
"""The columns of the main table that are mask steps of ours, in plain steps."""
BUSY = "; CPU time"
"""What the name of a processor ends with where CPU time was measured."""
Ratios = dict[str, list[float]]


def stored_for(stored: Mapping[str, Any], processor: str) -> Mapping[str, Any]:
    """Return what is stored for a processor. Raises `LookupError` with a sentence for people where nothing is."""
    if processor not in stored:
        known = "; ".join(stored) or "none"
        raise LookupError(
            f"nothing is stored for this processor, {processor}; stored are: {known}. `nox -s bench` measures and stores it."
        )
    found: Mapping[str, Any] = stored[processor]
    return found


def by_processor(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of docs/benchmarks.json by processor and threads; a file of before has one, and says which under "machine"."""
    if "table" not in content:
        return dict(content)
    machine = str(content["machine"])
    return {machine.partition(", Python")[0] + BUSY * ("CPU time" in machine): content}


def ratios(results: Mapping[str, Any]) -> Ratios:
    """Return {what: one ratio per process} of stored or new results; where only a row of text is stored, its least and most."""
    found: Ratios = {name: list(values) for name, values in results.get("ratios", {}).items()}
    if found:
        return found
    for network, row in results.get("table", {}).items():
        for column in OURS:
            if row.get(column, "-") != "-":
                spread = row["least to most"].split("-") if column == "auto" else [row[column]]
                found[f"{network}: {column}"] = [float(value) for value in spread]
    return found


def compared(then: Ratios, now: Ratios) -> list[dict[str, str]]:
    """Return a line for every ratio that both have: what, then, now, and "worse", "better" or "same"; the worse ones first."""
    order = {"worse": 0, "better": 1, "same": 2}
    lines = []
    for name in (n for n in now if n in then):
        old, new = _band(then[name]), _band(now[name])
        verdict = "worse" if new[0] > old[1] else "better" if new[1] < old[0] else "same"
        lines.append({"ratio": name, "then": _shown(then[name]), "now": _shown(now[name]), "verdict": verdict})
    return sorted(lines, key=lambda line: order[line["verdict"]])


def report(then: Ratios, now: Ratios) -> tuple[str, int]:
    """Return the table as text, and the exit code: 1 where something is worse beyond the noise, 2 where nothing can be compared."""
    lines = compared(then, now)
    if not lines:
        return "nothing that was measured is stored for this processor, so there is nothing to compare; `nox -s bench` stores it.", 2
    head = {name: name for name in ("ratio", "then", "now", "verdict")}
    widths = {name: max(len(line[name]) for line in (head, *lines)) for name in head}
    text = ["  ".join(line[name].ljust(widths[name]) for name in head).rstrip() for line in (head, *lines)]
    counts = {v: sum(line["verdict"] == v for line in lines) for v in ("worse", "better", "same")}
    text.append(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    if missing := sorted(now.keys() - then.keys()):
        text.append(f"not stored, so not compared: {', '.join(missing)}")
    return "\n".join(text), int(counts["worse"] > 0)


def _band(values: Sequence[float]) -> tuple[float, float]:
    median = statistics.median(values)
    return min(*values, median * (1 - LEAST)), max(*values, median * (1 + LEAST))


def _shown(values: Sequence[float]) -> str:
    return f"{values[0]:.2f}" if len(values) == 1 else f"{min(values):.2f}-{max(values):.2f}"
