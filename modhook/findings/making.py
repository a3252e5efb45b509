"""A finding from one number per seed: its mean, its interval over seeds, its answer, and the sentence that says so."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from modhook.findings.possible import Possible, Range
from modhook.findings.records import Answer, Finding, Measured, Values
from modhook.findings.statistics import interval, sign_flip_p

VALUE = "{value}"
"""Where the value stands in a sentence."""
_FEW = ", only two seeds"


class Making:
    """What was measured of one function, and the limits that its findings are made by."""

    def __init__(self, measured: Measured, thresholds: Mapping[str, float]) -> None:
        self.of, self.limits, self.possible = measured, thresholds, Possible(measured)

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
        said, *ends = ((f"{x:.3g}" if logs else percent(x)) for x in (value if logs else sign * value, *sorted((sign * low, sign * high))))
        n = len(known)
        if n > 1:
            every_end = ", all that is possible" if whole else ""
            spread = f" ({100 * confidence:.4g} % interval {ends[0]} to {ends[1]}{every_end}, n = {n}{_FEW if n == 2 else ''})"
        elif known:
            spread = " (n = 1)"
        else:
            words, spread = "was not measured", f"{because and ': '}{because} (n = 0)"
        text = words.replace(VALUE, said) + spread
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


def share(part: Values, whole: Values) -> Values:
    """Return the part as a share of the whole, NaN where that is not positive: a share of it would mean nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, part / whole, np.nan)


def rest(others: Mapping[str, tuple[Values, Values]]) -> dict[str, Values]:
    """Return what each other function keeps of its own unmasked score, at most 1; one that failed is left out."""
    known = {n: pair for n, pair in others.items() if np.isfinite(pair[0]).any()} or dict(others)
    return {n: np.minimum(share(score, whole), 1.0) for n, (score, whole) in known.items()}


def mean(values: Values) -> float:
    """Return the mean of the seeds that have a number; NaN without any."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def percent(value: float) -> str:
    """Return a share in percent, as a reader sees it."""
    return f"{round(100 * value, 1) + 0.0:.1f} %"  # no minus before a zero
