"""docs/verdicts.json, and the tables of docs/real.md and docs/ask.md that are made from it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from asked_networks import KINDS, kind_of

from modhook.findings import VERDICTS

# Helpers of pages lie beside the tests of pages, and are imported by their file's name.
sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))

import page_parts
from page_parts import table

Row = dict[str, Any]
plain = partial(page_parts.plain, digits=4)
"""Numbers as docs/verdicts.json has them."""
CLAIMS = ("sufficient", "necessary", "specific", "real")
"""Verdicts that say something of a function; the others say how its masks were learned."""
TITLES = {
    "compiled": "compiled programs",
    "welded": "welded networks",
    "trained": "trained pair (add, mul)",
    "nothing": "nothing there",
}


def outcome(row: Row, verdict: str) -> str:
    """Return `right`, `cannot tell`, `wrong` (a false alarm, or a miss), or nothing where nobody knows what is right.

    In known networks every function is there: yes is right. Of a trained network only that it does what it was trained for is known.
    Where nothing is there, `real` must be no, and no other claim yes.
    """
    kind, said = kind_of(row["network"]), row["verdicts"][verdict]
    if kind == "nothing":
        if verdict not in CLAIMS:
            return ""
        if verdict == "real":
            return {"no": "right", "yes": "wrong"}.get(said, "cannot tell")
        return "wrong" if said == "yes" else "right"
    if (kind == "trained" and verdict != "real") or (verdict == "specific" and row["alone"]):
        return ""
    return {"yes": "right", "no": "wrong"}.get(said, "cannot tell")


def counts(rows: Sequence[Row]) -> str:
    """Return how often each verdict was right, kind by kind."""
    lines = []
    for kind, title in TITLES.items():
        own = [row for row in rows if kind_of(row["network"]) == kind]
        if own:
            seeds = sorted({row["seeds"] for row in own})
            told = [_counted([outcome(row, v) for row in own]) for v in VERDICTS]
            lines.append([title, str(len(own)), " or ".join(map(str, seeds)), *told])
    return table(["", "functions", "seeds", *VERDICTS], lines)


def _counted(outcomes: Sequence[str]) -> str:
    known = [one for one in outcomes if one]
    if not known:
        return "-"
    text = f"{known.count('right')} of {len(known)}"
    others = [f"{known.count(what)} {what}" for what in ("cannot tell", "wrong") if what in known]
    return ", ".join([text, *others])


def details(rows: Sequence[Row]) -> str:
    """Return every function's verdicts; what is not right stands out, with the number behind it."""
    lines = []
    for row in sorted(rows, key=lambda r: _NETWORKS.index(r["network"])):
        cells = [_cell(row, v) for v in VERDICTS]
        name = f"`{row['network']}`"
        lines.append([name, row["function"], str(row["seeds"]), _percent(row["unmasked"]), _percent(row["kept"]), *cells])
    return table(["network", "function", "n", "unmasked", "weights kept", *VERDICTS], lines)


_NETWORKS = [name for names in KINDS.values() for name in names]


def _cell(row: Row, verdict: str) -> str:
    said, what = row["verdicts"][verdict], outcome(row, verdict)
    return f"**{said}** {_why(row, verdict)}".strip() if what in ("wrong", "cannot tell") else said


def _why(row: Row, verdict: str) -> str:
    """Return the value and the interval of the first finding that answers as the verdict does."""
    own = [f for f in row["findings"] if f["verdict"] == verdict and f["value"] is not None]
    found = next((f for f in own if f["answer"] == row["verdicts"][verdict]), None)
    if found is None:
        return ""
    if found["low"] is None:
        return f"({_percent(found['value'])})"
    low, high = (round(100 * found[bound], 1) + 0.0 for bound in ("low", "high"))  # no minus before a zero
    return f"({_percent(found['value'])}, {low:.1f} to {high:.1f})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def blocks(found: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return {page: {name of a block: its text}}."""
    rows, setting = found["rows"], found["setting"]
    said = ", ".join(f"`{k}={json.dumps(v)}`" for k, v in setting.items())
    welded = [row for row in rows if row["network"].partition("/")[0] == "welded_fnn"]
    return {
        "real.md": {"verdicts": f"{counts(rows)}\n\nThe setting of all: the defaults of `ask`, with {said}.\n\n{details(rows)}"},
        "ask.md": {"verdicts": details(welded)},
    }


def replaced(text: str, name: str, block: str) -> str:
    """Return a page with the text between `<!-- name -->` and `<!-- end of name -->` replaced."""
    before, begin, rest = text.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    if not begin or not end:
        raise SystemExit(f"the page has no place for {name!r}.")
    return f"{before}{begin}{block}\n{end}{after}"


def write(found: dict[str, Any], folder: Path) -> None:
    """Write verdicts.json and the tables of the pages."""
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in found["rows"])
    first = json.dumps({k: v for k, v in found.items() if k != "rows"})[:-1]
    (folder / "verdicts.json").write_text(f'{first}, "rows": [\n{lines}\n]}}\n', encoding="utf-8")
    for page, parts in blocks(found).items():
        text = (folder / page).read_text(encoding="utf-8")
        for name, block in parts.items():
            text = replaced(text, name, block)
        (folder / page).write_text(text, encoding="utf-8")
