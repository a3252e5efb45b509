"""docs/reproduction.md: every claim with its numbers, what was computed otherwise, what stands beside it, and the verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import walk
from claim_measures import Measured, mean
from cubes_of_studies import Network, Values, published_study
from paper_claims import CLAIMS, Claim
from verdict_rule import CONFIDENCE, TEXT, Verdict, judged

HERE = Path(__file__).parent
NONE = "\N{EN DASH}"


@attrs.frozen
class Row:
    """One claim on one network."""

    claim: Claim
    network: Network
    measured: Measured
    verdict: Verdict


def rows(networks: Sequence[Network]) -> list[Row]:
    """Measure every claim on every network that it is about."""
    found = []
    for claim in CLAIMS:
        for network in networks:
            if network.study in claim.studies:
                measured = claim.measure(network, networks)
                found.append(
                    Row(claim, network, measured, judged(measured.values, claim.rule, missing(measured), claim.within))
                )
    return found


def missing(measured: Measured) -> str:
    """Return what the claim takes for granted and is not so; empty where all is."""
    for what, values, least in measured.granted:
        if math.isfinite(mean(values)) and mean(values) < least:
            return f"{what}: {mean(values):.2f} on average, less than {least:g}"
    return ""


def page(networks: Sequence[Network], figures: Sequence[tuple[str, str]], reference: Sequence[dict[str, Any]]) -> str:
    """Return the page.

    Args:
        networks: those that were computed.
        figures: (file beside the page, caption).
        reference: numbers measured with the reference's own code: `claim`, `network` (its label), `text`.
    """
    found = rows(networks)
    told = {(r["claim"], r["network"]): r["text"] for r in reference}
    text = (HERE / "page.md").read_text(encoding="utf-8")
    return text.format(
        rule=TEXT,
        summary=table(("claim", "verdicts"), (_summary(c, [r for r in found if r.claim is c]) for c in CLAIMS)),
        claims="\n\n".join(_section(c, [r for r in found if r.claim is c], told) for c in CLAIMS),
        matrices="\n\n".join(_matrices(n) for n in networks if n.array("overlap/kept") is not None) or "No cube yet.",
        cubes="\n\n".join(_cube(n) for n in networks) or "None yet.",
        walk=f"\n\n[{walk.NAME}]({walk.NAME}) walks from one of them to its conclusion, with outputs."
        if any(n.path.as_posix().endswith(walk.CUBE) for n in networks)
        else "",
        figures="\n\n".join(f"![{caption}]({file})\n\n*{caption}*" for file, caption in figures) or "None yet.",
    )


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in (head, ["---"] * len(head), *lines)
    )


def _summary(claim: Claim, found: Sequence[Row]) -> tuple[str, str]:
    words = [f"**{r.verdict.word}** ({r.network.label}, n {r.verdict.n})" for r in found]
    absent = [f"`{s}`" for s in claim.studies if s not in {r.network.study for r in found}]
    return claim.statement, "; ".join([*words, *([f"not run: {', '.join(absent)}"] if absent else [])])


def _section(claim: Claim, found: Sequence[Row], told: dict[tuple[str, str], str]) -> str:
    rule, sign = claim.rule, "at least" if claim.rule.high else "at most"
    bounds = f"*seen*: {sign} {_number(rule.seen, claim)}; *seen weakly*: {sign} {_number(rule.weakly, claim)}"
    head = f"### {claim.statement}\n\n*{claim.number}*; {bounds}. Figure: `{claim.figure}`."
    if not found:
        return f"{head}\n\nNot run."
    lines = [
        (
            row.network.label,
            _interval(row.verdict, claim),
            str(row.verdict.n),
            told.get((claim.key, row.network.label), "none on record"),
            "; ".join(f"{b.label} {_number(mean(b.values), claim)}" for b in row.measured.beside) or NONE,
            "; ".join(row.network.differences()) or "none",
            f"**{row.verdict.word}**" + (f" ({row.verdict.why})" if row.verdict.why else ""),
        )
        for row in found
    ]
    columns = (
        "network",
        f"mean [{100 * CONFIDENCE:.0f} %]",
        "n",
        "reference",
        "chance and controls",
        "differs from published",
        "verdict",
    )
    told_of = (r for r in found if not missing(r.measured))
    readings = [f"{r.network.label}: {text}" for r in told_of if (text := r.measured.reading())]
    return "\n\n".join([head, table(columns, lines), *readings])


def _interval(verdict: Verdict, claim: Claim) -> str:
    if not verdict.n:
        return NONE
    if verdict.n < 2:
        return f"{_number(verdict.mean, claim)} (one seed)"
    return f"{_number(verdict.mean, claim)} [{_number(verdict.low, claim)}, {_number(verdict.high, claim)}]"


def _number(value: float, claim: Claim) -> str:
    if not math.isfinite(value):
        return NONE
    return f"{100 * value:.1f} %" if claim.percent else f"{value:.2f}"


def _spread(values: Values) -> str:
    found = values[np.isfinite(values)]
    if not len(found):
        return NONE
    return f"{found.mean():.3f}" + (f" ± {found.std(ddof=1):.3f}" if len(found) > 1 else "")


def _matrices(network: Network) -> str:
    """Return kept share and IoU of each matrix: mean and standard deviation, as the paper has them."""
    found = network.array("overlap/kept")
    assert found is not None
    stages = [str(s) for s in found["stage"].values]
    names = [str(p) for p in found["parameter"].values if np.isfinite(network.at("overlap/size", parameter=p)).any()]
    functions = [s for s in stages if s != "control"]
    lines = []
    for name in names:
        size = network.at("overlap/size", parameter=name)
        kept = [_spread(network.at("overlap/kept", stage=s, parameter=name) / size) for s in stages]
        two = (
            [
                _spread(network.at(f"overlap/{v}", stage=functions[0], other=functions[1], parameter=name))
                for v in ("iou", "iou_chance")
            ]
            if len(functions) == 2
            else []
        )
        lines.append((f"`{name}`", *kept, *two))
    if len(functions) == 2:
        pair = {"stage": functions[0], "other": functions[1]}
        every = [_spread(network.at(f"overlap/{v}", **pair)) for v in ("iou_total", "iou_chance_total")]
        lines.append(("all", *(_spread(network.at("overlap/density", stage=s)) for s in stages), *every))
    head = ("matrix", *(f"kept, {s}" for s in stages), *(("IoU", "by chance") if len(functions) == 2 else ()))
    return f"{network.label}, n {network.done}:\n\n{table(head, lines)}" if len(functions) <= 4 else ""


def _cube(network: Network) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in dict(network.cube.attrs.get("versions", {})).items())
    hours, threads = network.seconds() / 3600, ", ".join(map(str, network.threads())) or "not recorded"
    facts = (
        f"{network.label}: {network.done} seed{'s' if network.done != 1 else ''}; {hours:.1f} hours in all (on machines "
        f"that did other work as well); threads: {threads}; {versions}. File: [{network.path.name}](cubes/{network.path.name})."
    )
    return f"{facts}\n\n```\n{chr(10).join(network.commands())}\n```"


def unpublished(networks: Sequence[Network]) -> Iterator[str]:
    """Yield the studies that the page knows no claim of."""
    known = {s for c in CLAIMS for s in c.studies}
    yield from dict.fromkeys(n.study for n in networks if n.study not in known or not published_study(n.study))


def reference_numbers() -> list[dict[str, Any]]:
    """Return what was measured with the reference's own code."""
    found: list[dict[str, Any]] = json.loads((HERE / "reference.json").read_text(encoding="utf-8"))
    return found
