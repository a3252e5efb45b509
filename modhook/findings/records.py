"""What verdicts are made of and by: numbers of a function, thresholds, and findings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs
import numpy as np
from numpy.typing import NDArray

from modhook.errors import UserError, listing, near_miss
from modhook.values.arguments import checked

Answer = Literal["yes", "no", "cannot tell"]
VERDICTS = ("sufficient", "necessary", "specific", "real", "stable", "settled")
"""What is judged of each function, in the order in which it is shown."""
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
* `necessary`: what removing the function's own weights loses beyond removing as many at random that its mask does not keep, or beyond
  what the other functions (their mean) lose by the same removal, at least.
* `specific`: how much more of its own score the mask keeps than of that of the other function of which it keeps the most, at least;
  functions that the network does not do are no others.
* `real_ability`: how far the network without a mask is above each control's network without one, at least; one seed whose control comes
  nearer is enough for `no`, because the network itself is one draw. A control that scores so much that no network could be that far
  above it (a constant answer, where one class is much more frequent) cannot say `no`.
* `real_score`, `real_size`: either how far the score under the mask is above each control's at equal size, at least, or how many
  times as large as the mask the control's must be for an equal score, at least; one that never has it, in no seed, is beyond every size.
* `stable`: (IoU over seeds - chance) / (1 - chance), at least.
* `settled`: by what share of itself the density changed over the last tenth of the steps, at most; of masks that are cut under a pull
  that rises, what share of their weights as large a cut did not keep before that tenth.
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
        removed, random: without its own weights, and without as many at random (mean over draws): of all weights, or with `matched` of
            those that its mask does not keep.
        matched: how many of these there were, as a share of its own; None: drawn of all weights.
        own: how many weights are its own, which no other function's mask keeps; None where that is not known.
        spared: {other function: (its score without this function's own weights, unmasked)}.
        controls: {kind: `Compared`}.
        agreement, chance: IoU with its masks of other seeds, and what random masks would have.
        moved: by what share of itself the density changed over the last tenth of the steps.
        chosen: whether the items of its score also chose the size of its masks (`masks.cut`): then it is what they were allowed to lose.
        turned: whether it is the share of its weights instead that as large a cut did not keep before that tenth.
        why: why something was not measured, where that is known.
        kept: the share of all weights that its mask keeps. weights: how many all are.
        said: what was said of its masks when they had been learned (`history/trust`): rule, sentence, seeds.
    """

    function: str
    unmasked: Values
    masked: Values
    others: Mapping[str, tuple[Values, Values]] = attrs.field(factory=dict)
    removed: Values | None = None
    random: Values | None = None
    matched: Values | None = None
    own: Values | None = None
    spared: Mapping[str, tuple[Values, Values]] = attrs.field(factory=dict)
    controls: Mapping[str, Compared] = attrs.field(factory=dict)
    agreement: Values | None = None
    chance: Values | None = None
    moved: Values | None = None
    turned: bool = False
    chosen: bool = False
    why: str = ""
    kept: Values | None = None
    weights: int | None = None
    said: tuple[tuple[str, str, tuple[int, ...]], ...] = ()


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
