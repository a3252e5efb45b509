"""Verdicts on one function, from numbers alone: what was measured over seeds, against thresholds that are written down.

A verdict is `yes` where the whole interval over seeds lies on the good side of its threshold, `no` where it lies on the other side, and
`cannot tell` where the threshold is inside it, where there is one seed, and where what it needs was not measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs
import numpy as np

from modhook.errors import listing
from modhook.findings.possible import Possible, Range
from modhook.findings.records import REAL, THRESHOLDS, VERDICTS, Answer, Compared, Finding, Measured, Values
from modhook.findings.statistics import interval, sign_flip_p

SAID = "said of its learning"
"""The measure of sentences that change no verdict."""
ABILITY = "ability against "
REMOVED = "own weights removed"
_ENDS = {
    1.0: "its mask keeps everything in {}, and scores there what the network does",
    0.0: "its mask keeps nothing in {}, and scores there what needs none of the weights",
}
"""Sizes of a mask from which nothing follows, as shares of all weights."""
_FEW = ", only two seeds"
_THIRD = "; two seeds make one pair of masks, and one number tells nothing: ask for a third seed"
_ENOUGH = 0.5
"""How many weights outside a mask must be there to be taken out, as a share of its own: a few of them say nothing of the many."""
_DOUBTED = {"flat": "settled", "reach": "settled", "extreme": "settled", "moving": "settled", "nothing": "sufficient"}
"""Which verdict is no `yes` after which sentence: a mask has not settled, whatever its size does, that could not move, kept all or
nothing, or still changed; and none is sufficient that changes nothing."""
_BESIDE = {"threshold": "sufficient", "beats": "real", "patterns": "sufficient"}
"""Beside which verdict the other sentences stand."""
_SHARES = ("sufficient", "necessary", "specific")
"""Verdicts on shares of the unmasked score, which mean nothing where that is no better than where there is nothing."""


def judge(measured: Measured, thresholds: Mapping[str, float] = THRESHOLDS) -> list[Finding]:
    """Return every finding on one function, at least one per verdict, in the verdicts' order."""
    one = _Judge(measured, thresholds)
    real = one.real()
    found = [
        *one.sufficient(),
        *one.necessary(),
        *one.specific(),
        *one.able(real),
        *real,
        *one.stable(),
        *one.settled(),
        *one.said(),
    ]
    return sorted(found, key=lambda finding: VERDICTS.index(finding.verdict))


def verdict(findings: Sequence[Finding], name: str) -> Answer:
    """Return a function's verdict from its findings.

    `real` needs the ability, and for every control one of score and size; it is `no` where one of these is. `necessary` needs one
    of the losses beyond random weights and beyond the other functions. What is no ability is neither sufficient nor necessary nor
    specific to be told.
    """
    own = [f for f in findings if f.verdict == name and f.measure != SAID]
    groups: dict[str, list[Finding]] = {}
    for finding in own:
        groups.setdefault(finding.measure.rpartition(" as ")[0] or finding.measure, []).append(finding)
    answers = [_either([f.answer for f in group if f.n] or ["cannot tell"]) for group in groups.values()]
    if "no" in answers:
        return "no"
    return "yes" if answers and all(a == "yes" for a in answers) else "cannot tell"


def _either(answers: Sequence[Answer]) -> Answer:
    return "yes" if "yes" in answers else "no" if all(a == "no" for a in answers) else "cannot tell"


class _Judge:
    def __init__(self, measured: Measured, thresholds: Mapping[str, float]) -> None:
        self.of, self.limits, self.possible = measured, thresholds, Possible(measured)

    def sufficient(self) -> list[Finding]:
        """Score under the mask against the unmasked one."""
        left = _share(self.of.masked, self.of.unmasked)
        words = "keeps {value} of the unmasked score" + (", on the items that chose its size" if self.of.chosen else "")
        between = self.possible.score()
        found = [self._made("sufficient", "score under the mask", left, "sufficient", words, between, reference=1.0)]
        kept = self.of.kept
        for share, what in _ENDS.items():
            if kept is not None and (count := int((kept == share).sum())):
                words = what.format(f"{count} of {len(kept)} seeds")
                found.append(attrs.evolve(self._unknown("sufficient", "weights kept", words), value=share, n=count))
        return found

    def necessary(self) -> list[Finding]:
        """Own weights removed, against random ones."""
        of = self.of
        if of.removed is None or of.random is None:
            return [
                self._unknown("necessary", REMOVED, "own weights were not removed: ask for the control own_removed")
            ]
        lost = _share(of.random - of.removed, of.unmasked)
        words = "loses {value} of the unmasked score without its own weights, beyond what it loses without as many random ones"
        why, left = "", _mean(_share(of.random, of.unmasked))
        if of.matched is None:
            words += " of all weights (the cube has no draws of the others alone)"
        else:
            words += " that its mask does not keep"
            few = of.matched < _ENOUGH
            if few.any():
                seeds = f"{int(few.sum())} of {int(np.isfinite(of.matched).sum())} seeds"
                why = f"its mask keeps so much that in {seeds} not half as many others are there"
                lost = np.where(few, np.nan, lost)
        between = self.possible.difference(of.random, of.removed)
        found = [self._made("necessary", REMOVED, lost, "necessary", words, between, reference=0.0, paired=True, why=why)]
        if why and found[0].n:
            found[0] = attrs.evolve(found[0], words=f"{found[0].words}; {why}")
        if found[0].answer == "no" and left < self.limits["necessary"]:  # even the loss of all would be a no
            words = f"{found[0].words}; as many random ones leave {_percent(left)} of it, too little to lose more"
            found[0] = attrs.evolve(found[0], answer="cannot tell", words=words)
        # As many random weights may take all that can be lost; the same removal leaves other functions alone all the same.
        if of.spared:
            own, rest = np.minimum(_share(of.removed, of.unmasked), 1.0), _rest(of.spared)
            words = "loses {value} of the unmasked score without its own weights, beyond what the other functions lose without these"
            measure = f"{REMOVED} as loss beyond the other functions'"
            reference = _mean(1 - rest)
            between, beyond = self.possible.capped(), rest - own
            found.append(
                self._made("necessary", measure, beyond, "necessary", words, between, reference=reference, paired=True)
            )
        return found

    def specific(self) -> list[Finding]:
        """Own score against the other functions' under its mask."""
        if not self.of.others:
            return [
                self._unknown(
                    "specific", "other functions under the mask", "there is no other function to compare with"
                )
            ]
        # More than all of a score that was hardly there would outweigh everything else.
        own = np.minimum(_share(self.of.masked, self.of.unmasked), 1.0)
        rest = _rest(self.of.others)
        words = "keeps {value} more of its own score than of the other functions'"
        found = self._made(
            "specific",
            "own score above the others'",
            own - rest,
            "specific",
            words,
            self.possible.capped(),
            reference=_mean(rest),
            paired=True,
        )
        return [attrs.evolve(found, words=found.words + self._swapped(own))]

    def _swapped(self, own: Values) -> str:
        """Say which other function's score the mask keeps better than its own, in every seed and by more than would make it specific."""
        gaps = {n: np.minimum(_share(score, whole), 1.0) - own for n, (score, whole) in self.of.others.items()}
        least = {n: float(np.nanmin(gap)) for n, gap in gaps.items() if np.isfinite(gap).any()}
        if not least or least[most := max(least, key=least.__getitem__)] <= self.limits["specific"]:
            return ""
        return f"; it keeps more of {most!r} than of itself: look whether batches, losses and tests belong to their functions"

    def able(self, real: Sequence[Finding]) -> list[Finding]:
        """Where the network does not do the function, for every verdict on shares of its score: they cannot be told."""
        no = [f.measure.removeprefix(ABILITY) for f in real if f.measure.startswith(ABILITY) and f.answer == "no"]
        words = f"without a mask, the network is no better at it than its control ({listing(no)}): shares of such a score say nothing"
        return [attrs.evolve(self._unknown(name, "ability", words), n=len(self.of.masked)) for name in _SHARES if no]

    def real(self) -> list[Finding]:
        """Ability, score at equal size and size at equal score, against every control in which there is nothing."""
        of, found = self.of, list[Finding]()
        for kind in REAL:
            control = of.controls.get(kind)
            if control is None:
                text = f"there is no control {kind!r} to compare with"
                found.append(self._unknown("real", f"against {kind}", text))
                continue
            above = _share(of.unmasked - control.unmasked, of.unmasked)
            near = _percent(float(np.nanmin(above))) if np.isfinite(above).any() else "-"
            words = f"without a mask, the network is {{value}} of its score above its control ({kind}), and {near} above the nearest"
            reference = _mean(_share(control.unmasked, of.unmasked))
            measure = f"{ABILITY}{kind}"
            found.append(
                self._made(
                    "real",
                    measure,
                    above,
                    "real_ability",
                    words,
                    self.possible.ability(control),
                    reference=reference,
                    paired=True,
                    every=True,
                    why=control.why,
                )
            )
            better = _share(of.masked - control.equal_size, of.unmasked)
            words = f"scores {{value}} of the unmasked score more than its control ({kind}) of equal size"
            reference = _mean(_share(control.equal_size, of.unmasked))
            measure = f"advantage over {kind} as score at equal size"
            found.append(
                self._made(
                    "real",
                    measure,
                    better,
                    "real_score",
                    words,
                    self.possible.difference(of.masked, control.equal_size),
                    reference=reference,
                    paired=True,
                    why=control.why,
                )
            )
            found.append(self._size(kind, control))
        return found

    @property
    def _empty(self) -> str:
        """Why nothing is compared with a mask that keeps nothing; empty where one keeps something."""
        kept = self.of.kept
        known = () if kept is None else kept[np.isfinite(kept)]
        return "its masks keep nothing" if len(known) and not np.any(known) else ""

    def _size(self, kind: str, control: Compared) -> Finding:
        """Weights of a control for an equal score. Seeds in which it never has one give a lower bound, which can speak for `yes` alone."""
        measure = f"advantage over {kind} as size at equal score"
        known = np.isfinite(control.size)
        never = known & (np.zeros(len(known), dtype=bool) if control.never is None else control.never)
        whole = _percent(_mean(_share(control.unmasked, self.of.unmasked)[never]))
        beyond = f"its control ({kind}) never reaches this score, with all its weights ({whole} of the unmasked score)"
        if never.any() and never[known].all():
            count, inf = int(never.sum()), math.inf
            answer: Answer = "yes" if count > 1 else "cannot tell"
            bounds = (inf, inf) if count > 1 else (math.nan, math.nan)
            p = sign_flip_p([1.0] * count) if count > 1 else math.nan
            limit, text = self.limits["real_size"], f"{beyond} (n = {count})"
            return Finding(self.of.function, "real", measure, answer, inf, 1.0, *bounds, count, p, limit, text)
        least, more = ("at least ", f"; in {never.sum()} of {known.sum()} seeds {beyond}") if never.any() else ("", "")
        words = f"its control ({kind}) needs {least}{{value}} times as many weights for an equal score"
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log2(control.size)
        found = self._made(
            "real",
            measure,
            logs,
            "real_size",
            words,
            self.possible.size(np.isfinite(logs)),
            reference=1.0,
            paired=True,
            logs=True,
            why=control.why or self._empty,
        )
        bounded = never.any() and found.answer == "no"
        return attrs.evolve(found, answer="cannot tell" if bounded else found.answer, words=found.words + more)

    def stable(self) -> list[Finding]:
        """IoU of the function's masks over seeds against chance."""
        of, measure = self.of, "IoU over seeds above chance"
        if of.agreement is None or of.chance is None:
            text = "there are no two masks of this function on one network"
            more = "more seeds of this network, or for " if len(of.masked) == 1 else ""
            text += f": {of.why}" if of.why else f": ask for {more}the control seed_ceiling"
            return [self._unknown("stable", measure, text)]
        with np.errstate(divide="ignore", invalid="ignore"):
            above = (of.agreement - of.chance) / (1 - of.chance)
        shared, random = (_percent(_mean(x)) for x in (of.agreement, of.chance))
        words = f"its masks share {shared} over seeds (IoU), random ones {random}: {{value}} of the way from chance to equal"
        why = "random masks of these sizes share as much" if np.isfinite(of.agreement).any() else of.why or self._empty
        between = self.possible.agreement(of.chance)
        found = self._made("stable", measure, above, "stable", words, between, reference=0.0, paired=True, why=why)
        pair = len(of.agreement) == 1 < len(of.masked)
        return [attrs.evolve(found, words=found.words + _THIRD) if pair and found.n else found]

    def settled(self) -> list[Finding]:
        """Change of the density at the end."""
        if self.of.moved is None:
            return [self._unknown("settled", "change of the density", "its density was not recorded on the way")]
        words, measure = "the size of its mask changed by {value} of itself over the last tenth of the steps", "change of the density"
        if self.of.turned:
            words = "{value} of the weights of its mask were not among as many before the last tenth of the steps"
            measure = "change of the cut"
        found = self._made(
            "settled", measure, -self.of.moved, "settled", words, (-math.inf, 0.0), reference=0.0, sign=-1.0
        )
        return [attrs.evolve(found, value=-found.value, low=-found.high, high=-found.low, threshold=-found.threshold)]

    def said(self) -> list[Finding]:
        """What was said of the masks when they had been learned."""
        found, done = [], int(np.isfinite(self.of.masked).sum())
        still = {seed for rule, _, seeds in self.of.said for seed in seeds if rule == "moving"}
        for rule, sentence, seeds in self.of.said:
            words = f"{sentence} ({'seed' if len(seeds) == 1 else 'seeds'} {listing(map(str, seeds))})"
            if rule not in _DOUBTED:
                found.append(self._unknown(_BESIDE.get(rule, "sufficient"), SAID, words))
                continue
            answer: Answer = "no" if rule == "moving" and 1 < len(still) >= done else "cannot tell"
            made = self._unknown(_DOUBTED[rule], f"{SAID}: {rule}", words)
            found.append(attrs.evolve(made, answer=answer, n=len(seeds)))
        return found

    def _made(
        self,
        name: str,
        measure: str,
        values: Values,
        limit: str,
        words: str,
        between: Range,
        *,
        reference: float = math.nan,
        paired: bool = False,
        logs: bool = False,
        sign: float = 1.0,
        every: bool = False,
        why: str = "",
    ) -> Finding:
        """Return a finding whose mean can lie `between` two numbers; with `every` a single value below the threshold is enough for `no`."""
        known = [float(v) for v in values if math.isfinite(v)]
        because = why or self.of.why or ("" if known else self._not_above())
        threshold, confidence = sign * self.limits[limit], self.limits["confidence"]
        edge = math.log2(threshold) if logs else threshold
        value, low, high = interval(known, confidence)
        slack = 1e-9 * max(1.0, abs(edge))  # a difference that rounding alone makes
        answer: Answer = "cannot tell"
        if len(known) > 1:
            far = min(known) if every else high
            answer = "no" if far < edge - slack else "yes" if low >= edge - slack else "cannot tell"
        p = sign_flip_p(known) if paired and len(known) > 1 else math.nan
        # The interval says no more than is possible; the answer above was given without this.
        least, most = between
        low, high = (float(np.clip(x, min(least, value), max(most, value))) for x in (low, high))
        whole = least == low < high == most
        if logs:
            value, low, high = (float(np.exp2(x)) for x in (value, low, high))
        said, *ends = ((f"{x:.3g}" if logs else _percent(x)) for x in (value if logs else sign * value, *sorted((sign * low, sign * high))))
        n = len(known)
        if n > 1:
            every_end = ", all that is possible" if whole else ""
            spread = f" ({100 * confidence:.4g} % interval {ends[0]} to {ends[1]}{every_end}, n = {n}{_FEW if n == 2 else ''})"
        elif known:
            spread = " (n = 1)"
        else:
            words, spread = "was not measured", f"{because and ': '}{because} (n = 0)"
        text = words.format(value=said) + spread
        return Finding(
            self.of.function, name, measure, answer, value, reference, low, high, len(known), p, threshold, text
        )

    def _not_above(self) -> str:
        """Say that a score has no shares, where the unmasked one is never above 0; else nothing."""
        known = self.of.unmasked[np.isfinite(self.of.unmasked)]
        if not len(known) or (known > 0).any():
            return ""
        return f"the unmasked score is {float(known.mean()):.3g}, and shares need one above 0, of which more is better"

    def _unknown(self, name: str, measure: str, words: str) -> Finding:
        nan = math.nan
        return Finding(
            self.of.function,
            name,
            measure,
            "cannot tell",
            nan,
            nan,
            nan,
            nan,
            0,
            nan,
            self.limits.get(name, nan),
            words,
        )


def _share(part: Values, whole: Values) -> Values:
    """Return the part as a share of the whole, NaN where that is not positive: a share of it would mean nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, part / whole, np.nan)


def _rest(others: Mapping[str, tuple[Values, Values]]) -> Values:
    """Return the mean of what other functions keep of their own unmasked scores, each at most 1; one that failed is left out."""
    known = [pair for pair in others.values() if np.isfinite(pair[0]).any()] or list(others.values())
    rest: Values = np.mean([np.minimum(_share(score, whole), 1.0) for score, whole in known], axis=0)
    return rest


def _mean(values: Values) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _percent(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:.1f} %"  # no minus before a zero
