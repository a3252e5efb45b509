"""Between which numbers the mean of a measure lies, whatever is measured: an interval of few seeds is cut there."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from modhook.findings.records import Compared, Measured, Values

Range = tuple[float, float]


class Possible:
    """The ranges of one function's measures; infinite where its scores are no shares between 0 and 1."""

    def __init__(self, of: Measured) -> None:
        self._of = of
        scores = [of.unmasked, of.masked, *(x for x in (of.removed, of.random) if x is not None)]
        scores += [x for one in of.controls.values() for x in (one.unmasked, one.equal_size)]
        known = np.concatenate(scores)
        known = known[np.isfinite(known)]
        self._shares = bool(known.size) and float(known.min()) >= 0 and float(known.max()) <= 1

    def score(self) -> Range:
        """Return that of the score under the mask, as a share of the unmasked one."""
        return (0.0 if self._shares else -math.inf), self._top(self._of.masked)

    def difference(self, more: Values, less: Values) -> Range:
        """Return that of one score less another, both as shares of the unmasked one."""
        return -self._top(less), self._top(more)

    def ability(self, control: Compared) -> Range:
        """Return that of how far the unmasked score is above a control's."""
        return 1 - self._top(control.unmasked), 1.0 if self._shares else math.inf

    def room(self, control: Values) -> Values:
        """Return, per seed, how far a network could be above a control's score, as a share of its own: it could score 1."""
        return 1 - control if self._shares else np.full(len(control), np.inf)

    def capped(self) -> Range:
        """Return that of a difference of shares of which none counts for more than 1."""
        return (-1.0, 1.0) if self._shares else (-math.inf, math.inf)

    def agreement(self, chance: Values) -> Range:
        """Return that of the way from chance to equal masks."""
        with np.errstate(divide="ignore", invalid="ignore"):
            none = -chance / (1 - chance)
        return (float(none[np.isfinite(none)].mean()) if np.isfinite(none).any() else -math.inf), 1.0

    def size(self, counted: NDArray[np.bool_]) -> Range:
        """Return that of the logarithm (base 2) of how many times as many weights a control has: from one weight to all.

        `counted` says which seeds count.
        """
        kept, weights = self._of.kept, self._of.weights
        if kept is None or not (own := kept[counted & np.isfinite(kept) & (kept > 0)]).size:
            return -math.inf, math.inf
        most = float(-np.log2(own).mean())
        return (most - math.log2(weights) if weights else -math.inf), most

    def _top(self, scores: Values) -> float:
        """Return the largest share of the unmasked score: all of it, unless more was measured; then what a score of 1 would be."""
        if not self._shares:
            return math.inf
        whole = self._of.unmasked
        with np.errstate(divide="ignore", invalid="ignore"):
            above = bool((np.where(whole > 0, scores / whole, 0.0) > 1).any())
        return float((1 / whole[whole > 0]).mean()) if above else 1.0
