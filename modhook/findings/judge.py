"""Verdicts on one function, from numbers alone: what was measured over seeds, against thresholds that are written down.

A verdict is `yes` where the whole interval over seeds lies on the good side of its threshold, `no` where it lies on the other side, and
`cannot tell` where the threshold is inside it, where there is one seed, and where what it needs was not measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import attrs
import numpy as np
from numpy.typing import NDArray

from modhook.errors import listing
from modhook.findings.making import VALUE, Making, mean, percent, rest, share
from modhook.findings.records import REAL, THRESHOLDS, VERDICTS, Answer, Compared, Finding, Measured, Values
from modhook.findings.statistics import sign_flip_p

SAID = "said of its learning"
"""The measure of sentences that change no verdict."""
ABILITY = "ability against "
REMOVED = "own weights removed"
_ENDS = {
    1.0: "its mask keeps everything in {}, and scores there what the network does",
    0.0: "its mask keeps nothing in {}, and scores there what needs none of the weights",
}
"""Sizes of a mask from which nothing follows, as shares of all weights."""
_THIRD = "; two seeds make one pair of masks, and one number tells nothing: ask for a third seed"
_ENOUGH = 0.5
"""How many weights outside a mask must be there to be taken out, as a share of its own: a few of them say nothing of the many."""
_DOUBTED = {"flat": "settled", "reach": "settled", "extreme": "settled", "moving": "settled", "nothing": "sufficient"}
"""Which verdict is no `yes` after which sentence: a mask has not settled, whatever its size does, that could not move, kept all or
nothing, or still changed; and none is sufficient that changes nothing."""
_BESIDE = {"threshold": "sufficient", "beats": "real", "patterns": "sufficient"}
"""Beside which verdict the other sentences stand."""
_NO_SHARES = "ability"
_SHARES = ("sufficient", "necessary", "specific")
"""Verdicts on shares of the unmasked score, which mean nothing where that is no better than where there is nothing."""


def judge(
    measured: Measured, thresholds: Mapping[str, float] = THRESHOLDS, every: Sequence[Measured] = ()
) -> list[Finding]:
    """Return every finding on one function, at least one per verdict, in the verdicts' order.

    Args:
        measured: of the function. thresholds: the limits.
        every: what was measured of all functions: those that the network does not do are no others to be compared with.
    """
    absent = [m.function for m in every if m.function in measured.others and _Judge(m, thresholds).unable]
    one = _Judge(measured, thresholds, absent)
    found = [
        *one.sufficient(),
        *one.necessary(),
        *one.specific(),
        *one.able(),
        *one.real(),
        *one.stable(),
        *one.settled(),
        *one.said(),
    ]
    return sorted(found, key=lambda finding: VERDICTS.index(finding.verdict))


def verdict(findings: Sequence[Finding], name: str) -> Answer:
    """Return a function's verdict from its findings.

    `real` needs the ability, and for every control one of score and size; it is `no` where one of these is. `necessary` needs one
    of the losses beyond random weights and beyond the other functions. Of what is no ability nothing is told that shares of its score
    say, neither yes nor no.
    """
    own = [f for f in findings if f.verdict == name and f.measure != SAID]
    if any(f.measure == _NO_SHARES for f in own):
        return "cannot tell"
    groups: dict[str, list[Finding]] = {}
    for finding in own:
        groups.setdefault(finding.measure.rpartition(" as ")[0] or finding.measure, []).append(finding)
    answers = [_either([f.answer for f in group if f.n] or ["cannot tell"]) for group in groups.values()]
    if "no" in answers:
        return "no"
    return "yes" if answers and all(a == "yes" for a in answers) else "cannot tell"


def _either(answers: Sequence[Answer]) -> Answer:
    return "yes" if "yes" in answers else "no" if all(a == "no" for a in answers) else "cannot tell"


class _Judge(Making):
    def __init__(self, measured: Measured, thresholds: Mapping[str, float], absent: Sequence[str] = ()) -> None:
        super().__init__(measured, thresholds)
        self.absent = absent
        """Other functions that the network does not do."""

    @cached_property
    def abilities(self) -> dict[str, Finding]:
        """How far the network without a mask is above each control's."""
        return {kind: self._ability(kind, self.of.controls[kind]) for kind in REAL if kind in self.of.controls}

    @property
    def unable(self) -> list[str]:
        """The controls beside which the network does not do the function, or cannot be told to."""
        found = {kind: (one.answer, self._full(self.of.controls[kind]).any()) for kind, one in self.abilities.items()}
        return [kind for kind, (answer, full) in found.items() if answer == "no" or (full and answer != "yes")]

    def _present(self, others: Mapping[str, tuple[Values, Values]]) -> dict[str, Values]:
        """Return what the mask, or a removal, leaves of each other function that the network does."""
        there = {n: pair for n, pair in others.items() if n not in self.absent}
        return rest(there) if there else {}

    def sufficient(self) -> list[Finding]:
        """Score under the mask against the unmasked one."""
        left = share(self.of.masked, self.of.unmasked)
        words = "keeps {value} of the unmasked score" + (", on the items that chose its size" if self.of.chosen else "")
        between = self.possible.score()
        found = [self._made("sufficient", "score under the mask", left, "sufficient", words, between, reference=1.0)]
        kept = self.of.kept
        for end, what in _ENDS.items():
            if kept is not None and (count := int((kept == end).sum())):
                words = what.format(f"{count} of {len(kept)} seeds")
                found.append(attrs.evolve(self._unknown("sufficient", "weights kept", words), value=end, n=count))
        return found

    def necessary(self) -> list[Finding]:
        """Own weights removed, against random ones."""
        of = self.of
        if of.removed is None or of.random is None:
            return [
                self._unknown("necessary", REMOVED, "own weights were not removed: ask for the control own_removed")
            ]
        lost = share(of.random - of.removed, of.unmasked)
        own, whys = self._own_words, list[str]()
        words = f"loses {VALUE} of the unmasked score without its own weights{own}, beyond what it loses without as many random ones"
        left = mean(share(of.random, of.unmasked))
        if of.matched is None:
            words += " of all weights (the cube has no draws of the others alone)"
        else:
            words += " that its mask does not keep"
            few = of.matched < _ENOUGH
            if few.any():
                seeds = f"{int(few.sum())} of {int(np.isfinite(of.matched).sum())} seeds"
                whys.append(f"its mask keeps so much that in {seeds} not half as many others are there")
                lost = np.where(few, np.nan, lost)
        none = np.zeros(len(lost), dtype=bool) if of.own is None else of.own == 0
        if none.any():
            seeds = f"{int(none.sum())} of {int(np.isfinite(of.own).sum())} seeds"  # type: ignore[arg-type]
            whys.append(f"in {seeds} its mask keeps no weight that no other function's mask keeps, so that nothing is removed")
            lost = np.where(none, np.nan, lost)
        why = "; ".join(whys)
        between = self.possible.difference(of.random, of.removed)
        found = [self._made("necessary", REMOVED, lost, "necessary", words, between, reference=0.0, paired=True, why=why)]
        if why and found[0].n:
            found[0] = attrs.evolve(found[0], words=f"{found[0].words}; {why}")
        if found[0].answer == "no" and left < self.limits["necessary"]:  # even the loss of all would be a no
            words = f"{found[0].words}; as many random ones leave {percent(left)} of it, too little to lose more"
            found[0] = attrs.evolve(found[0], answer="cannot tell", words=words)
        # As many random weights may take all that can be lost; the same removal leaves other functions alone all the same.
        if spared := self._present(of.spared):
            kept, others = np.minimum(share(of.removed, of.unmasked), 1.0), np.mean([*spared.values()], axis=0)
            words = f"loses {VALUE} of the unmasked score without its own weights{own}, beyond what other functions lose without these"
            measure = f"{REMOVED} as loss beyond the other functions'"
            beyond, reference = np.where(none, np.nan, others - kept), mean(1 - others)
            between = self.possible.capped()
            found.append(
                self._made("necessary", measure, beyond, "necessary", words, between, reference=reference, paired=True, why=why)
            )
        return found

    @property
    def _own_words(self) -> str:
        """How many weights are a function's own, of those that its mask keeps: means over seeds; empty where that is not known."""
        own, kept, weights = self.of.own, self.of.kept, self.of.weights
        if own is None or kept is None or weights is None or not np.isfinite(own).any():
            return ""
        counted = np.isfinite(own) & np.isfinite(kept) & (own > 0)  # nothing is removed in others
        return f" ({mean(own[counted]):.0f} of {mean(kept[counted]) * weights:.0f} that its mask keeps)" if counted.any() else ""

    def specific(self) -> list[Finding]:
        """Own score against that of the other function of which the mask keeps the most."""
        measure = "own score above the nearest other's"
        there, without = self._present(self.of.others), ""
        if self.absent:
            what = f"{listing(map(repr, self.absent))}, which the network does no better without a mask than a control"
            without = f"; not compared with {what}" if there else f": it was asked for {what}"
        if not there:
            return [self._unknown("specific", measure, f"there is no other function to compare with{without}")]
        # More than all of a score that was hardly there would outweigh everything else.
        own = np.minimum(share(self.of.masked, self.of.unmasked), 1.0)
        nearest = max(there, key=lambda n: np.nan_to_num(mean(there[n]), nan=-math.inf))
        most = np.max([*there.values()], axis=0)  # not a mean: a function that stays whole is not left out by others that do not
        words = f"keeps {VALUE} more of its own score than of that of {nearest!r}"
        if len(there) > 1:
            always = bool((np.nan_to_num(there[nearest] - most) >= 0).all())
            words += ", of which it keeps the most of all others" if always else " and others, of each seed's that it keeps most of"
        between, reference = self.possible.capped(), mean(most)
        found = self._made("specific", measure, own - most, "specific", words, between, reference=reference, paired=True)
        return [attrs.evolve(found, words=found.words + without + self._swapped(own, there))]

    def _swapped(self, own: Values, others: Mapping[str, Values]) -> str:
        """Say which other function's score the mask keeps better than its own, in every seed and by more than would make it specific."""
        least = {n: float(np.nanmin(kept - own)) for n, kept in others.items() if np.isfinite(kept - own).any()}
        if not least or least[most := max(least, key=least.__getitem__)] <= self.limits["specific"]:
            return ""
        return f"; it keeps more of {most!r} than of itself: look whether batches, losses and tests belong to their functions"

    def able(self) -> list[Finding]:
        """Where the network does not do the function, or its score cannot say so, for every verdict on shares of its score: they cannot
        be told."""
        no = [kind for kind in self.unable if self.abilities[kind].answer == "no"]
        full = [kind for kind in self.unable if kind not in no]
        said = []
        if no:
            limit = percent(self.limits["real_ability"])
            said.append(
                f"without a mask, the network is less than {limit} of its score above its control ({listing(no)}), in one seed at least: "
                "shares of such a score say nothing"
            )
        if full:
            said.append(f"its control ({listing(full)}) scores so much without a mask that shares of such a score say nothing")
        n = len(self.of.masked)
        return [attrs.evolve(self._unknown(v, _NO_SHARES, "; ".join(said)), n=n) for v in _SHARES if said]

    def _full(self, control: Compared) -> NDArray[np.bool_]:
        """Return in which seeds a control scores so much that no network could be far enough above; not where this one is far below."""
        limit, below = self.limits["real_ability"], share(self.of.unmasked - control.unmasked, self.of.unmasked)
        return (self.possible.room(control.unmasked) < limit) & (below > -limit)

    def _ability(self, kind: str, control: Compared) -> Finding:
        """How far the network without a mask is above a control's; a control that leaves no room for it says nothing."""
        of = self.of
        above = share(of.unmasked - control.unmasked, of.unmasked)
        near = percent(float(np.nanmin(above))) if np.isfinite(above).any() else "-"
        words = f"without a mask, the network is {VALUE} of its score above its control ({kind}), and {near} above the nearest"
        found = self._made(
            "real",
            f"{ABILITY}{kind}",
            above,
            "real_ability",
            words,
            self.possible.ability(control),
            reference=mean(share(control.unmasked, of.unmasked)),
            paired=True,
            every=True,
            why=control.why,
        )
        full = self._full(control)
        if not full.any() or found.answer == "yes":
            return found
        rest_says_no = found.answer == "no" and bool((above[~full] < self.limits["real_ability"] - 1e-9).any())
        seeds = f"{int(full.sum())} of {int(np.isfinite(control.unmasked).sum())} seeds"
        words = (
            f"{found.words}; in {seeds} this control scores {percent(mean(control.unmasked[full]))}, as a constant answer may, and leaves "
            "little room above it: give a score that counts every class alike"
        )
        return attrs.evolve(found, answer="no" if rest_says_no else "cannot tell", words=words)

    def real(self) -> list[Finding]:
        """Ability, score at equal size and size at equal score, against every control in which there is nothing."""
        of, found = self.of, list[Finding]()
        for kind in REAL:
            control = of.controls.get(kind)
            if control is None:
                text = f"there is no control {kind!r} to compare with"
                found.append(self._unknown("real", f"against {kind}", text))
                continue
            found.append(self.abilities[kind])
            better = share(of.masked - control.equal_size, of.unmasked)
            words = f"scores {VALUE} of the unmasked score more than its control ({kind}) of equal size"
            reference = mean(share(control.equal_size, of.unmasked))
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
        whole = percent(mean(share(control.unmasked, self.of.unmasked)[never]))
        beyond = f"its control ({kind}) never reaches this score, with all its weights ({whole} of the unmasked score)"
        if never.any() and never[known].all():
            count, inf = int(never.sum()), math.inf
            answer: Answer = "yes" if count > 1 else "cannot tell"
            bounds = (inf, inf) if count > 1 else (math.nan, math.nan)
            p = sign_flip_p([1.0] * count) if count > 1 else math.nan
            limit, text = self.limits["real_size"], f"{beyond} (n = {count})"
            return Finding(self.of.function, "real", measure, answer, inf, 1.0, *bounds, count, p, limit, text)
        least, more = ("at least ", f"; in {never.sum()} of {known.sum()} seeds {beyond}") if never.any() else ("", "")
        words = f"its control ({kind}) needs {least}{VALUE} times as many weights for an equal score"
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
        shared, random = (percent(mean(x)) for x in (of.agreement, of.chance))
        words = f"its masks share {shared} over seeds (IoU), random ones {random}: {VALUE} of the way from chance to equal"
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
