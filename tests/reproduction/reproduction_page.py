"""docs/reproduction.md: every claim with its numbers, what was computed otherwise, what stands beside it, and the verdict."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
import walk
from claim_measures import Beside, Measured, mean, percent
from cubes_of_studies import Network, Values, missing_points, published_study, taken_from
from paper_claims import CLAIMS, ELSEWHERE, Claim
from reference_code import Reference, apart, beyond_one
from shared_weights import pair
from verdict_rule import CONFIDENCE, TEXT, UNCLEAR, Rule, Verdict, judged

# Helpers of pages lie beside the tests of pages, and are imported by their file's name.
sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))

from page_parts import table

from modhook.fit.settled import LATE
from modhook.fit.trust import moves

HERE = Path(__file__).parent
NONE = "\N{EN DASH}"
RULE = "moving"
"""Name of the rule of `modhook.fit.trust` that says of a mask that it was still changing."""


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


def page(networks: Sequence[Network], figures: Sequence[tuple[str, str]], reference: Sequence[Reference]) -> str:
    """Return the page.

    Args:
        networks: those that were computed.
        figures: (file beside the page, caption).
        reference: what was measured with the paper's own code.
    """
    found = rows(networks)
    told = {r.network: r for r in reference}
    text = (HERE / "page.md").read_text(encoding="utf-8")
    taken = [(n, taken_from(n, networks)) for n in networks]
    masked = [(n, other) for n, other in taken if n.array("overlap/kept") is not None]
    return text.format(
        rule=TEXT,
        measured=f"{len({r.claim.key for r in found})} of {len(CLAIMS)}",
        summary=table(("claim", "verdicts"), (_summary(c, [r for r in found if r.claim is c]) for c in CLAIMS)),
        claims="\n\n".join(_section(c, [r for r in found if r.claim is c], told) for c in CLAIMS),
        matrices="\n\n".join(_matrices(n, told.get(n.label), other) for n, other in masked)
        or "No cube yet.",
        reference="\n\n".join(map(_run_of, reference)) or "It has not been run here yet.",
        cubes="\n\n".join(_cube(n, other) for n, other in taken) or "None yet.",
        walk=f"\n\n[{walk.NAME}]({walk.NAME}) walks from one of them to its conclusion, with outputs."
        if any(n.path.as_posix().endswith(walk.CUBE) for n in networks)
        else "",
        figures="\n\n".join(f"![{caption}]({file})\n\n*{caption}*" for file, caption in figures) or "None yet.",
    )


def _summary(claim: Claim, found: Sequence[Row]) -> tuple[str, str]:
    words = [
        f"**{r.verdict.word}** ({r.network.label}, n {r.verdict.n}{f': {r.verdict.why}' if r.verdict.why else ''})" for r in found
    ]
    absent = [label for s in claim.studies for label in missing_points(s, [r.network for r in found])]
    return claim.statement, "; ".join([*words, *([f"not run: {', '.join(absent)}"] if absent else [])])


def _by_logarithms(claim: Claim, row: Row) -> str:
    """Return a sentence where the verdict hangs on the scale: an interval of the numbers' logarithms would give another one."""
    values, known = row.measured.values, row.verdict.word != UNCLEAR
    numbers = values[np.isfinite(values)]
    if not known or claim.percent or not len(numbers) or (numbers <= 0).any():
        return ""
    rule = Rule(math.log(claim.rule.seen), math.log(claim.rule.weakly), claim.rule.high)
    other = judged(np.log(numbers).tolist(), rule)
    if other.word == row.verdict.word:
        return ""
    low, high = math.exp(other.low), math.exp(other.high)
    return f"The verdict hangs on the scale: by logarithms the interval is [{low:.3f}, {high:.3f}], and it would be *{other.word}*."


def _section(claim: Claim, found: Sequence[Row], told: dict[str, Reference]) -> str:
    rule, sign = claim.rule, "at least" if claim.rule.high else "at most"
    seen, weakly = (f"{100 * bound:g} %" if claim.percent else f"{bound:g}" for bound in (rule.seen, rule.weakly))
    bounds = f"*seen*: {sign} {seen}; *seen weakly*: {sign} {weakly}"
    head = f"### {claim.statement}\n\n*{claim.number}*; {bounds}. Figure: `{claim.figure}`."
    if not found:
        return f"{head}\n\nNot run."
    lines = [
        (
            row.network.label,
            _interval(row.verdict, claim),
            str(row.verdict.n),
            _told(claim, told.get(row.network.label)),
            "; ".join(_beside(b, claim) for b in row.measured.beside) or NONE,
            "; ".join([*row.network.differences(), *filter(None, [ELSEWHERE.get(row.network.study)])]) or "none",
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
    told_by = ((r, " ".join(filter(None, (r.measured.reading(), _by_logarithms(claim, r))))) for r in told_of)
    readings = [f"{r.network.label}: {text}" for r, text in told_by if text]
    return "\n\n".join([head, table(columns, lines), *readings])


def _beside(beside: Beside, claim: Claim) -> str:
    if isinstance(beside.values, Mapping):
        each = ", ".join(f"{name} {_number(mean(values), claim)}" for name, values in beside.values.items())
        return f"{beside.label}: {each}"
    return f"{beside.label} {_number(mean(beside.values), claim)}"


def _interval(verdict: Verdict, claim: Claim) -> str:
    if not verdict.n:
        return NONE
    if verdict.n < 2:
        return f"{_number(verdict.mean, claim)} (one seed)"
    return f"{_number(verdict.mean, claim)} [{_number(verdict.low, claim)}, {_number(verdict.high, claim)}]"


def _number(value: float, claim: Claim) -> str:
    if not math.isfinite(value):
        return NONE
    return percent(value) if claim.percent else f"{value:.3f}"


def _spread(values: Values) -> str:
    found = values[np.isfinite(values)]
    if not len(found):
        return NONE
    return f"{found.mean():.3f}" + (f" ± {found.std(ddof=1):.3f}" if len(found) > 1 else "")


def matrix_numbers(network: Network) -> dict[str, dict[str, Values]]:
    """Return matrix -> column -> one number per seed: share kept by each mask; of two functions the IoU and that by chance."""
    found = network.array("overlap/kept")
    assert found is not None
    stages = [str(s) for s in found["stage"].values]
    functions = [s for s in stages if s != "control"]
    names = [str(p) for p in found["parameter"].values if np.isfinite(network.at("overlap/size", parameter=p)).any()]
    numbers: dict[str, dict[str, Values]] = {}
    for name in names:
        size = network.at("overlap/size", parameter=name)
        numbers[name] = {f"kept, {s}": network.at("overlap/kept", stage=s, parameter=name) / size for s in stages}
    numbers["all"] = {f"kept, {s}": network.at("overlap/density", stage=s) for s in stages}
    if len(functions) == 2:
        pair = {"stage": functions[0], "other": functions[1]}
        for column, variable in (("IoU", "iou"), ("by chance", "iou_chance")):
            for name in names:
                numbers[name][column] = network.at(f"overlap/{variable}", **pair, parameter=name)
            numbers["all"][column] = network.at(f"overlap/{variable}_total", **pair)
    return numbers


def _matrices(network: Network, reference: Reference | None, source: Network | None) -> str:
    """Return kept share and IoU of each matrix: mean and standard deviation, as the paper has them; below it the reference's."""
    if source:
        return f"{network.label}: the masks are those of {source.label}."
    if network.each:
        return _by_pull(network)
    numbers = matrix_numbers(network)
    columns = list(numbers["all"])
    if len([c for c in columns if c.startswith("kept, ") and c != "kept, control"]) > 4:
        return ""
    parts = [f"{network.label}, n {network.done}:", _matrix_table(numbers, columns), *_unsettled(network)]
    if reference:
        parts += [f"The paper's own code, n {reference.seeds}:", _matrix_table(reference.matrices, columns)]
        parts.append(_agreement(network, numbers, reference))
    return "\n\n".join(parts)


def _by_pull(network: Network) -> str:
    """Return what masks do, keep and share at each value of a sweep over the pull, and their IoU by matrix: means and deviations."""
    functions, lines, matrices, further = pair(network), [], [], []
    for beta, one in network.each.items():
        numbers = matrix_numbers(one)
        under = {f"{s}, {m}": one.at("scores/accuracy", stage=m, split=s) for s in functions for m in (*functions, "control")}
        of = {f"{c}, %" if c.startswith("kept") else c: 100 * v if c.startswith("kept") else v for c, v in numbers["all"].items()}
        of["by chance (IoU)"] = of.pop("by chance")
        for name in functions:
            of[f"shared of {name}"] = one.at("overlap/shared_total", stage=name)
            of["by chance" if name == functions[0] else "by chance "] = one.at("overlap/shared_chance_total", stage=name)
        lines.append((f"{beta:g}", *map(_spread, (under | of).values())))
        matrices.append((f"{beta:g}", *(_spread(n["IoU"]) for n in numbers.values())))
        further += [f"beta {beta:g}: {sentence}" for sentence in _unsettled(one)]
    few = " Deviations of two seeds say little." if network.done < 3 else ""
    parts = [
        f"{network.label}, n {network.done}, all matrices together: *mul, add* is accuracy on mul under the mask of add.{few}",
        table(("beta", *(under | of)), lines),
        "IoU by matrix:",
        table(("beta", *(name if name == "all" else f"`{name}`" for name in numbers)), matrices),
    ]
    return "\n\n".join([*parts, *further])


def _unsettled(network: Network) -> list[str]:
    """Return a sentence on the masks that were still changing when their steps ended, by the fit's rule of today; none without any."""
    said = network.array("history/trust")
    if said is None:
        return []
    masks = [str(s) for s in said["stage"].values if s in network.stages]
    weights = np.nansum([network.at("overlap/size", parameter=p) for p in network.cube["overlap"]["parameter"].values], axis=0)
    moving, share = {}, {}
    for stage in masks:
        told = [f"{RULE}: " in str(text) for text in said.sel(stage=stage).values.ravel()]  # by the rule of the run's own day
        late, kept = _late(network, stage), network.at("overlap/kept", stage=stage)
        kept = np.nansum(kept.reshape(len(late), -1), axis=1)
        today = [moves(flips, int(k), int(n)) for flips, k, n in zip(late, kept, weights, strict=True)]
        moving[stage] = sum(a or b for a, b in zip(told, today, strict=True))
        share[stage] = np.nansum(late) / kept.sum() if kept.sum() and np.isfinite(late).any() else math.nan
    of = ", ".join(f"{n} of {network.cube.sizes['seed']} of {s}" for s, n in moving.items() if n)
    sentences = [f"Masks that were still changing when their steps ended: {of}."] if of else []
    shares = ", ".join(f"{s} {100 * x:.0f} %" for s, x in share.items() if math.isfinite(x))
    if shares:
        sentences.append(f"Logits that changed side late, beside the weights that the mask keeps: {shares}.")
    return [" ".join(sentences)] if sentences else []


def _late(network: Network, stage: str) -> Values:
    """Return how often logits changed side in the last tenth of a mask's steps, per seed; NaN where it is not known."""
    changed, steps = network.array("history/changed"), network.array("history/step")
    if changed is None or steps is None:
        return np.full(network.cube.sizes["seed"], np.nan)
    rows = changed.sel(stage=stage).transpose("seed", "step").values[:, steps.values > (1 - LATE) * steps.values.max()]
    return np.where(np.isfinite(rows).any(axis=1), np.nansum(rows, axis=1), np.nan)


def _matrix_table(numbers: Mapping[str, Mapping[str, Sequence[float] | Values]], columns: Sequence[str]) -> str:
    lines = [
        (name if name == "all" else f"`{name}`", *(_spread(np.asarray(of.get(c, ()))) for c in columns))
        for name, of in numbers.items()
    ]
    return table(("matrix", *columns), lines)


def _agreement(network: Network, numbers: Mapping[str, Mapping[str, Values]], reference: Reference) -> str:
    """Return how many of the numbers agree with the reference's to a standard deviation, and which do not."""
    both = [(m, c) for m, of in reference.matrices.items() for c in of if c in numbers.get(m, {}) and c != "by chance"]
    found = {(m, c): apart(numbers[m][c], reference.matrices[m][c]) for m, c in both}
    told = {k: v for k, v in found.items() if not math.isnan(v)}  # infinite: ours do not differ among themselves
    far = [
        f"{m if m == 'all' else f'`{m}`'} {c} ({v:+.1f})"
        for (m, c), v in sorted(told.items(), key=lambda item: -abs(item[1]))
        if abs(v) > 1
    ]
    by_chance = beyond_one(network.done, reference.seeds)
    return (
        f"Of these {len(told)} means of shares and IoU, {len(told) - len(far)} lie within one standard deviation (pooled) of the "
        f"paper's own code. Of numbers of one distribution {100 * by_chance:.0f} % would lie farther apart with so "
        "few seeds, were they independent; but those of one seed go together, IoU depends on the shares, and *all* pools the other rows. "
        + (f"Farther apart, in standard deviations, + where ours is larger: {', '.join(far)}." if far else "None lies farther apart.")
    )


def _told(claim: Claim, reference: Reference | None) -> str:
    if reference is None or claim.key not in reference.claims:
        return "none on record"
    verdict = judged(reference.claims[claim.key], claim.rule, within=claim.within)
    return f"{_interval(verdict, claim)}, n {verdict.n}"


def _run_of(reference: Reference) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in reference.versions.items())
    return (
        f"{reference.network}: {reference.seeds} seed{'' if reference.seeds == 1 else 's'}; {reference.hours:.1f} hours of processor "
        f"time in all; threads: {reference.threads}; {versions}. {reference.changed}"
    )


def _cube(network: Network, source: Network | None) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in dict(network.cube.attrs.get("versions", {})).items())
    hours, known = network.seconds() / 3600, network.threads()
    told = [f"{t} (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))})" for t, seeds in known.items()]
    threads = ", ".join(told if len(known) > 1 else map(str, known)) or "not recorded"
    here = f"{hours:.1f} hours by the clock in its stages; threads: {threads}"
    time = f"networks and masks taken from {source.label}" if source else here
    facts = (
        f"{network.label}: {network.done} seed{'s' if network.done != 1 else ''}; {time}; {versions}. "
        f"File: [{network.path.name}](cubes/{network.path.name})."
    )
    return f"{facts}\n\n```\n{chr(10).join(network.commands(source))}\n```"


def unpublished(networks: Sequence[Network]) -> Iterator[str]:
    """Yield the studies that the page knows no claim of."""
    known = {s for c in CLAIMS for s in c.studies}
    yield from dict.fromkeys(n.study for n in networks if n.study not in known or not published_study(n.study))
