"""Verdicts on one function, from numbers alone: what was measured over seeds, against thresholds that are written down.

A verdict is `yes` where the whole interval over seeds lies on the good side of its threshold, `no` where it lies on the other side, and
`cannot tell` where the threshold is inside it, where there is one seed, and where what it needs was not measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs
import numpy as np
from numpy.typing import NDArray

from modhook.errors import UserError, listing, near_miss
from modhook.findings.statistics import interval, sign_flip_p
from modhook.values.arguments import checked

Answer = Literal["yes", "no", "cannot tell"]
VERDICTS = ("sufficient", "necessary", "specific", "real", "stable", "settled")
THRESHOLDS: Mapping[str, float] = {
    "sufficient": 0.9,
    "necessary": 0.1,
    "specific": 0.1,
    "real_ability": 0.1,
    "real_score": 0.1,
    "real_size": 1.5,
    "stable": 0.1,
    "settled": 0.05,
    "confidence": 0.95,
}
"""What verdicts are made by; `thresholds=` changes them. Scores are shares of the unmasked network's.

* `sufficient`: the score under the mask, at least.
* `necessary`: what removing the function's own weights loses beyond removing as many at random, at least.
* `specific`: how much more of its own score than of the other functions' (their mean) the mask keeps, at least.
* `real_ability`: how far the network without a mask is above each control's network without one, at least; one seed whose control comes
  nearer is enough for `no`, because the network itself is one draw.
* `real_score`, `real_size`: either how far the score under the mask is above each control's at equal size, at least, or how many
  times as large as the mask the control's must be for an equal score, at least; one that never has it, in no seed, is beyond every size.
* `stable`: (IoU over seeds - chance) / (1 - chance), at least.
* `settled`: by what share of itself the density changed over the last tenth of the steps, at most.
* `confidence`: of the interval over seeds.
"""
REAL = ("shuffled", "untrained", "nonsense")
"""Controls in which there is nothing of the function to find."""
Values = NDArray[np.float64]
"""One number per seed (n,)."""


@attrs.frozen
class Finding:
    """One comparison that a verdict rests on.

    Attributes:
        function, verdict: whose, and which.
        measure: what was measured, in words.
        answer: what it says by itself.
        value: its mean over seeds. reference: what it is compared with, in the same measure (NaN: with the threshold alone).
        low, high: the interval of the mean. n: seeds. p: exact, one-sided, where there are pairs of numbers; else NaN.
        threshold: where the interval must lie above (`settled`: below).
        words: a sentence.
    """

    function: str
    verdict: str
    measure: str
    answer: Answer
    value: float
    reference: float
    low: float
    high: float
    n: int
    p: float
    threshold: float
    words: str


@attrs.frozen
class Compared:
    """A control of a function: scores on the function's split, one number per seed.

    Attributes:
        unmasked: of its network without a mask. equal_size: under as many weights as the function's mask keeps.
        size: how many times as many weights as the function's mask its smallest mask of an equal score keeps; where none has an equal
            score, all of them. Where the function's own mask is empty, NaN.
        never: whether none has an equal score, so that `size` is a lower bound; None: every one has.
        why: why it was not measured, where that is known.
    """

    unmasked: Values
    equal_size: Values
    size: Values
    never: NDArray[np.bool_] | None = None
    why: str = ""


@attrs.frozen
class Measured:
    """What was measured of one function, one number per seed; NaN where a run is not done.

    Attributes:
        unmasked, masked: its score without a mask and under it.
        others: {other function: (score under this function's mask, unmasked)}.
        removed, random: without its own weights, and without as many at random (mean over draws).
        controls: {kind: `Compared`}.
        agreement, chance: IoU with its masks of other seeds, and what random masks would have.
        moved: by what share of itself the density changed over the last tenth of the steps.
        why: why something was not measured, where that is known.
    """

    function: str
    unmasked: Values
    masked: Values
    others: Mapping[str, tuple[Values, Values]] = attrs.field(factory=dict)
    removed: Values | None = None
    random: Values | None = None
    controls: Mapping[str, Compared] = attrs.field(factory=dict)
    agreement: Values | None = None
    chance: Values | None = None
    moved: Values | None = None
    why: str = ""


def thresholds_of(given: Mapping[str, Any] | None) -> dict[str, float]:
    """Return all thresholds, those given changed. Raises `UserError`."""
    if given is not None and not isinstance(given, Mapping):
        raise UserError(f"thresholds must be {{name: number}}, not {given!r}; the names are {listing(THRESHOLDS)}.")
    for name in given or {}:
        if name not in THRESHOLDS:
            raise UserError(
                f"there is no threshold {name!r}{near_miss(str(name), THRESHOLDS)}; there are {listing(THRESHOLDS)}."
            )
    found = {**THRESHOLDS, **{k: checked(f"thresholds[{k!r}]", v, float) for k, v in (given or {}).items()}}
    if not 0 < found["confidence"] < 1:
        raise UserError(f"thresholds['confidence'] must be between 0 and 1, not {found['confidence']}.")
    if found["real_size"] <= 0:
        raise UserError(f"thresholds['real_size'] must be greater than 0, not {found['real_size']}.")
    return found


def judge(measured: Measured, thresholds: Mapping[str, float] = THRESHOLDS) -> list[Finding]:
    """Return every finding on one function, at least one per verdict, in the verdicts' order."""
    one = _Judge(measured, thresholds)
    return [*one.sufficient(), *one.necessary(), *one.specific(), *one.real(), *one.stable(), *one.settled()]


def verdict(findings: Sequence[Finding], name: str) -> Answer:
    """Return a function's verdict from its findings.

    `real` needs the ability, and for every control one of score and size; it is `no` where one of these is.
    """
    own = [f for f in findings if f.verdict == name]
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
        self.of, self.limits = measured, thresholds

    def sufficient(self) -> list[Finding]:
        """Score under the mask against the unmasked one."""
        kept = _share(self.of.masked, self.of.unmasked)
        words = "keeps {value} of the unmasked score"
        return [self._made("sufficient", "score under the mask", kept, "sufficient", words, reference=1.0)]

    def necessary(self) -> list[Finding]:
        """Own weights removed, against random ones."""
        of = self.of
        if of.removed is None or of.random is None:
            return [
                self._unknown(
                    "necessary", "own weights removed", "own weights were not removed: ask for the control own_removed"
                )
            ]
        lost = _share(of.random - of.removed, of.unmasked)
        words = "loses {value} of the unmasked score without its own weights, beyond what it loses without as many random ones"
        return [self._made("necessary", "own weights removed", lost, "necessary", words, reference=0.0, paired=True)]

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
        known = {
            n: o for n, o in self.of.others.items() if np.isfinite(o[0]).any()
        } or self.of.others  # one may have failed
        each = [np.minimum(_share(masked, whole), 1.0) for masked, whole in known.values()]
        rest = np.mean(each, axis=0)
        words = "keeps {value} more of its own score than of the other functions'"
        return [
            self._made(
                "specific",
                "own score above the others'",
                own - rest,
                "specific",
                words,
                reference=_mean(rest),
                paired=True,
            )
        ]

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
            measure = f"ability against {kind}"
            found.append(
                self._made(
                    "real",
                    measure,
                    above,
                    "real_ability",
                    words,
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
                    "real", measure, better, "real_score", words, reference=reference, paired=True, why=control.why
                )
            )
            found.append(self._size(kind, control))
        return found

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
            "real", measure, logs, "real_size", words, reference=1.0, paired=True, logs=True, why=control.why
        )
        bounded = never.any() and found.answer == "no"
        return attrs.evolve(found, answer="cannot tell" if bounded else found.answer, words=found.words + more)

    def stable(self) -> list[Finding]:
        """IoU of the function's masks over seeds against chance."""
        of, measure = self.of, "IoU over seeds above chance"
        if of.agreement is None or of.chance is None:
            text = "there are no two masks of this function on one network"
            text += f": {of.why}" if of.why else ": ask for the control seed_ceiling"
            return [self._unknown("stable", measure, text)]
        with np.errstate(divide="ignore", invalid="ignore"):
            above = (of.agreement - of.chance) / (1 - of.chance)
        shared, random = (_percent(_mean(x)) for x in (of.agreement, of.chance))
        words = f"its masks share {shared} over seeds (IoU), random ones {random}: {{value}} of the way from chance to equal"
        why = "random masks of these sizes share as much" if np.isfinite(of.agreement).any() else of.why
        return [self._made("stable", measure, above, "stable", words, reference=0.0, paired=True, why=why)]

    def settled(self) -> list[Finding]:
        """Change of the density at the end."""
        if self.of.moved is None:
            return [self._unknown("settled", "change of the density", "its density was not recorded on the way")]
        words = "the size of its mask changed by {value} of itself over the last tenth of the steps"
        found = self._made(
            "settled", "change of the density", -self.of.moved, "settled", words, reference=0.0, sign=-1.0
        )
        return [attrs.evolve(found, value=-found.value, low=-found.high, high=-found.low, threshold=-found.threshold)]

    def _made(
        self,
        name: str,
        measure: str,
        values: Values,
        limit: str,
        words: str,
        *,
        reference: float = math.nan,
        paired: bool = False,
        logs: bool = False,
        sign: float = 1.0,
        every: bool = False,
        why: str = "",
    ) -> Finding:
        """Return a finding; with `every` a single value below the threshold is enough for `no`."""
        known = [float(v) for v in values if math.isfinite(v)]
        because = why or self.of.why
        threshold, confidence = sign * self.limits[limit], self.limits["confidence"]
        edge = math.log2(threshold) if logs else threshold
        value, low, high = interval(known, confidence)
        slack = 1e-9 * max(1.0, abs(edge))  # a difference that rounding alone makes
        answer: Answer = "cannot tell"
        if len(known) > 1:
            far = min(known) if every else high
            answer = "no" if far < edge - slack else "yes" if low >= edge - slack else "cannot tell"
        p = sign_flip_p(known) if paired and len(known) > 1 else math.nan
        if logs:
            value, low, high = (float(np.exp2(x)) for x in (value, low, high))
            said = f"{value:.3g}"
        else:
            said = _percent(sign * value)
        spread = ""
        if len(known) > 1:
            bounds = (
                (f"{low:.3g}", f"{high:.3g}") if logs else tuple(_percent(x) for x in sorted((sign * low, sign * high)))
            )
            spread = f" ({100 * confidence:.4g} % interval {bounds[0]} to {bounds[1]}, n = {len(known)})"
        elif not known:
            words, spread = "was not measured", f"{because and ': '}{because} (n = 0)"
        else:
            spread = " (n = 1)"
        text = words.format(value=said) + spread
        return Finding(
            self.of.function, name, measure, answer, value, reference, low, high, len(known), p, threshold, text
        )

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


def _mean(values: Values) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _percent(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:.1f} %"  # no minus before a zero
