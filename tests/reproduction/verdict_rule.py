"""The rule by which a claim counts as seen, fixed before any number was looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import numpy as np

from modhook.findings.statistics import interval

CONFIDENCE = 0.95
LEAST_SEEDS = 3
"""With fewer seeds nothing is said: two that agree by chance have an interval without any width."""
SEEN, WEAKLY, NOT_SEEN, UNCLEAR = "seen", "seen weakly", "not seen", "cannot tell"
TEXT = f"""\
Each claim is one number per seed, with a bound for *{SEEN}* and a laxer one for *{WEAKLY}*, which stand below its heading. Of the
numbers the mean and its two-sided t interval over seeds at {100 * CONFIDENCE:.0f} % count, cut where the number cannot go (0 or 100 %).

- *{SEEN}*: the whole interval is at least as good as the first bound.
- *{WEAKLY}*: the whole interval is at least as good as the second bound, but not as the first.
- *{NOT_SEEN}*: the whole interval is worse than the second bound.
- *{UNCLEAR}*: the interval has the second bound within; or there are fewer than {LEAST_SEEDS} seeds; or what the claim
  takes for granted, such as a network that has learned its task, is not so on average."""


@attrs.frozen
class Rule:
    """Two bounds: at least these where `high`, else at most."""

    seen: float
    weakly: float
    high: bool = True

    def __attrs_post_init__(self) -> None:
        assert (self.seen > self.weakly) == self.high, "the bound for 'seen' is the stricter one"


@attrs.frozen
class Verdict:
    """What came out, and from how many seeds."""

    word: str
    mean: float
    low: float
    high: float
    n: int
    why: str = ""


def judged(
    values: Sequence[float], rule: Rule, granted: str = "", within: tuple[float, float] = (-math.inf, math.inf)
) -> Verdict:
    """Return the verdict on one number per seed; NaN is a seed without one.

    Args:
        values: one number per seed.
        rule: the bounds.
        granted: why what the claim takes for granted is not so; empty where it is.
        within: the least and the largest possible number; the interval is no wider.
    """
    numbers = [float(v) for v in values if math.isfinite(v)]
    mean, low, high = interval(numbers, CONFIDENCE)
    low, high = (float(np.clip(x, *within)) for x in (low, high))
    n = len(numbers)
    if granted:
        return Verdict(UNCLEAR, mean, low, high, n, granted)
    if n < LEAST_SEEDS:
        return Verdict(UNCLEAR, mean, low, high, n, f"{n} of at least {LEAST_SEEDS} seeds" if n else "no number yet")
    worst, best = (low, high) if rule.high else (-high, -low)
    first, second = (rule.seen, rule.weakly) if rule.high else (-rule.seen, -rule.weakly)
    word = SEEN if worst >= first else WEAKLY if worst >= second else NOT_SEEN if best < second else UNCLEAR
    why = f"the interval has the second bound within{f', *{SEEN}* is ruled out' if best < first else ''}"
    return Verdict(word, mean, low, high, n, why if word == UNCLEAR else "")
