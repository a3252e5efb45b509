"""Verdicts from numbers alone: intervals and exact tests against tables and counts, and what each threshold decides."""

from __future__ import annotations

import itertools
import math

import attrs
import numpy as np
import pytest

from modhook import UserError
from modhook.findings import THRESHOLDS, VERDICTS, Compared, Finding, Measured, judge, thresholds_of, verdict
from modhook.findings.statistics import interval, sign_flip_p, t_quantile

# Two-sided critical values as every table of Student's t prints them.
TABLE = [(0.95, 1, 12.706), (0.95, 2, 4.303), (0.95, 4, 2.776), (0.99, 9, 3.250), (0.9, 30, 1.697), (0.95, 120, 1.980)]


@pytest.mark.parametrize(("confidence", "freedom", "expected"), TABLE)
def test_t_is_that_of_the_tables(confidence: float, freedom: int, expected: float) -> None:
    """Odd and even degrees of freedom, few and many."""
    assert t_quantile(confidence, freedom) == pytest.approx(expected, abs=5e-4)


def test_interval_of_a_worked_example() -> None:
    """Mean 3, standard deviation sqrt(2.5), n = 5: 3 +- 2.776 * 0.7071; one value has no interval, none no mean."""
    assert interval([1, 2, 3, 4, 5], 0.95) == pytest.approx((3, 3 - 1.9633, 3 + 1.9633), abs=1e-3)
    assert interval([2.0], 0.95)[0] == 2
    assert all(math.isnan(x) for x in (*interval([2.0], 0.95)[1:], *interval([], 0.95)))


def test_p_counts_every_assignment_of_signs() -> None:
    """Against a loop over all signs; all alike gives 2^-n, nothing but zeros 1."""
    values = [0.3, -0.1, 0.7, 0.2]
    sums = [sum(s * v for s, v in zip(signs, values, strict=True)) for signs in itertools.product((1, -1), repeat=4)]
    assert sign_flip_p(values) == sum(x >= sum(values) - 1e-12 for x in sums) / 16
    assert sign_flip_p([0.1] * 5) == 1 / 32
    assert sign_flip_p([0.0] * 3) == 1
    assert math.isnan(sign_flip_p([1.0] * 40))


def of(*values: float) -> np.ndarray:
    """Return values as an array."""
    return np.array(values)


def control(unmasked: float = 0.5, equal: float = 0.6, size: float = 4.0) -> Compared:
    """Return a control that is the same for three seeds, almost."""
    noise = of(-0.01, 0.0, 0.01)
    return Compared(unmasked + noise, equal + noise, size + noise)


REAL = Measured(
    function="f",
    unmasked=of(1.0, 0.99, 1.0),
    masked=of(0.97, 0.96, 0.98),
    others={"g": (of(0.5, 0.48, 0.51), of(1.0, 1.0, 1.0)), "h": (of(0.6, 0.55, 0.58), of(0.9, 0.9, 0.9))},
    removed=of(0.5, 0.52, 0.48),
    random=of(0.97, 0.98, 0.96),
    controls={kind: control() for kind in ("shuffled", "untrained", "nonsense")},
    agreement=of(0.6, 0.62, 0.61),
    chance=of(0.05, 0.05, 0.05),
    moved=of(0.01, 0.02, 0.01),
)
UNABLE = {"real": "no", "sufficient": "cannot tell", "necessary": "cannot tell", "specific": "cannot tell"}
"""What is said where the network without a mask is no better than where there is nothing."""


def verdicts(measured: Measured) -> dict[str, str]:
    """Return every verdict."""
    found = judge(measured)
    return {name: verdict(found, name) for name in VERDICTS}


def test_a_function_that_is_there() -> None:
    """Everything is said yes to; each finding has the numbers that its words name."""
    assert verdicts(REAL) == dict.fromkeys(VERDICTS, "yes")
    first = judge(REAL)[0]
    shares = [0.97, 0.96 / 0.99, 0.98]
    assert first.value == pytest.approx(np.mean(shares))
    half = 4.3027 * np.std(shares, ddof=1) / math.sqrt(3)
    assert (first.low, first.high) == pytest.approx((first.value - half, first.value + half), rel=1e-4)
    assert (first.n, first.threshold) == (3, 0.9)
    assert f"{100 * first.value:.1f} %" in first.words
    assert "n = 3" in first.words
    lost = next(f for f in judge(REAL) if f.verdict == "necessary")
    assert lost.value == pytest.approx(np.mean([0.47, 0.46 / 0.99, 0.48]))
    assert lost.p == 1 / 8


def same(kind: str) -> dict[str, Compared]:
    """Return the controls, one of which does as well as the function's mask, with as few weights."""
    return {**REAL.controls, kind: control(equal=0.97, size=1.05)}


CHANGED = [
    ("sufficient", {"masked": of(0.6, 0.61, 0.62)}, "no"),
    ("sufficient", {"masked": of(0.99, 0.7, 0.95)}, "cannot tell"),
    ("necessary", {"removed": of(0.97, 0.98, 0.96)}, "no"),
    ("necessary", {"removed": None}, "cannot tell"),
    ("specific", {"others": {"g": (of(0.97, 0.96, 0.98), of(1.0, 1.0, 1.0))}}, "no"),
    ("specific", {"others": {}}, "cannot tell"),
    ("real", {"controls": same("nonsense")}, "no"),
    ("real", {"controls": {**REAL.controls, "shuffled": control(equal=0.97, size=3.0)}}, "yes"),
    ("real", {"controls": {**REAL.controls, "shuffled": control(equal=0.6, size=1.0)}}, "yes"),
    ("real", {"controls": {"shuffled": control(), "untrained": control()}}, "cannot tell"),
    ("real", {"controls": {}}, "cannot tell"),
    ("stable", {"agreement": of(0.06, 0.05, 0.05)}, "no"),
    ("stable", {"agreement": None}, "cannot tell"),
    ("settled", {"moved": of(0.3, 0.31, 0.3)}, "no"),
    ("settled", {"moved": None}, "cannot tell"),
]


def test_tests_that_changed_places_are_asked_about() -> None:
    """A mask that keeps another function and not its own, in every seed, was learned or measured on the wrong one, and the words say so."""

    def said(**changes: object) -> str:
        (found,) = [f for f in judge(attrs.evolve(REAL, **changes)) if f.verdict == "specific"]
        return found.words

    whole, other = of(1.0, 1.0, 1.0), of(0.97, 0.96, 0.98)
    hint = "it keeps more of 'g' than of itself: look whether batches, losses and tests belong to their functions"
    assert hint in said(masked=of(0.1, 0.0, 0.2), others={"f": (of(0.0, 0.0, 0.0), whole), "g": (other, whole)})
    assert "than of itself" not in said(masked=of(0.1, 0.95, 0.2), others={"g": (other, whole)})
    assert "than of itself" not in said(others={"g": (other, whole)})
    assert "than of itself" not in said(masked=of(math.nan, math.nan, math.nan), others={"g": (other, whole)})


@pytest.mark.parametrize(("name", "changes", "expected"), CHANGED)
def test_each_verdict_follows_its_own_numbers(name: str, changes: dict[str, object], expected: str) -> None:
    """One change of the numbers changes one verdict, and no other."""
    found = verdicts(attrs.evolve(REAL, **changes))
    assert found.pop(name) == expected
    if name == "sufficient":  # what it scores is compared elsewhere, too
        return
    assert set(found.values()) == {"yes"}


LOW = attrs.evolve(REAL, unmasked=of(0.6, 0.59, 0.6), masked=of(0.58, 0.57, 0.59), removed=of(0.2, 0.2, 0.2), random=of(0.57, 0.58, 0.57))
"""A function that is there at a lower score; controls score 0.3 without a mask."""
LOW = attrs.evolve(LOW, controls={k: control(0.3, 0.3) for k in ("shuffled", "untrained", "nonsense")})


def beside(measured: Measured, unmasked: np.ndarray) -> Measured:
    """Return it with an untrained control whose networks score this without a mask."""
    one = Compared(unmasked, of(0.3, 0.3, 0.3), of(4, 4, 4))
    return attrs.evolve(measured, controls={**measured.controls, "untrained": one})


@pytest.mark.parametrize("unmasked", [of(0.59, 0.58, 0.59), of(0.1, 0.57, 0.2)])
def test_shares_of_a_score_that_is_none_cannot_be_told(unmasked: np.ndarray) -> None:
    """Where a control does as well without a mask (in one seed is enough), a mask keeps much of nothing: neither yes nor no."""
    assert verdicts(LOW) == dict.fromkeys(VERDICTS, "yes")
    changed = beside(LOW, unmasked)
    assert verdicts(changed) == {**dict.fromkeys(VERDICTS, "yes"), **UNABLE}
    words = [f.words for f in judge(changed) if f.measure == "ability"]
    assert len(words) == 3
    said = "the network is less than 10.0 % of its score above its control (untrained), in one seed at least"
    assert all(said in text for text in words)
    lost = attrs.evolve(changed, masked=of(0.3, 0.31, 0.32), removed=changed.random)  # what is lost is lost of anything
    assert verdicts(lost) == {**dict.fromkeys(VERDICTS, "yes"), **UNABLE}


@pytest.mark.parametrize("unmasked", [of(0.94, 0.93, 0.94), of(0.5, 0.94, 0.3)])
def test_a_control_that_leaves_no_room_says_nothing(unmasked: np.ndarray) -> None:
    """A constant answer to a rare class scores 94 %: no network could be 10 % above it, so that neither ability nor shares can be told."""
    changed = beside(REAL, unmasked)
    assert verdicts(changed) == {**dict.fromkeys(VERDICTS, "yes"), **UNABLE, "real": "cannot tell"}
    (ability,) = [f.words for f in judge(changed) if f.measure == "ability against untrained"]
    assert "this control scores 9" in ability
    assert "counts every class alike" in ability
    assert all("scores so much without a mask" in f.words for f in judge(changed) if f.measure == "ability")
    low = of(0.97, 0.97, 0.97)
    assert verdicts(beside(attrs.evolve(REAL, unmasked=low), of(0.97, 0.2, 0.2)))["real"] == "cannot tell"
    assert verdicts(beside(LOW, of(0.59, 0.94, 0.2)))["real"] == "no"  # a seed that has room says so
    assert verdicts(beside(LOW, of(0.94, 0.94, 0.94)))["real"] == "no"  # far below a control: worse than nothing, whatever the room


def test_scores_above_one_leave_room() -> None:
    """Scores that are no shares have no end: a control near the network's is as good as it."""
    ten = {n: 10 * getattr(REAL, n) for n in ("unmasked", "masked", "removed", "random")}
    assert verdicts(beside(attrs.evolve(REAL, **ten), of(9.9, 9.8, 9.9)))["real"] == "no"


def test_functions_that_are_not_there_are_no_others() -> None:
    """What the network does not do keeps its chance under any mask: it is left out, by name, of what a function is compared with."""
    absent = attrs.evolve(beside(LOW, of(0.59, 0.58, 0.59)), function="g")
    kept, whole = of(0.58, 0.58, 0.58), of(0.6, 0.6, 0.6)
    both = attrs.evolve(REAL, others={"g": (kept, whole), "h": REAL.others["h"]}, spared={"g": (kept, whole)})
    assert verdicts(both)["specific"] == "no"
    told = judge(both, every=[both, absent])
    assert verdict(told, "specific") == "yes"
    (words,) = [f.words for f in told if f.verdict == "specific"]
    assert "than of that of 'h' (" in words
    assert "not compared with 'g', which the network does no better without a mask than a control" in words
    assert not any("other functions" in f.words for f in told if f.verdict == "necessary")
    alone = judge(attrs.evolve(both, others={"g": (kept, whole)}), every=[both, absent])
    assert verdict(alone, "specific") == "cannot tell"
    assert "asked for 'g'" in next(f.words for f in alone if f.verdict == "specific")


def test_another_function_that_stays_whole_counts() -> None:
    """A mask that keeps one other function is not specific, however little it keeps of a third one."""
    whole = of(1.0, 1.0, 1.0)
    twin = {"twin": (REAL.masked, whole), "b": (of(0.1, 0.1, 0.1), whole)}
    found = [f for f in judge(attrs.evolve(REAL, others=twin)) if f.verdict == "specific"]
    assert [f.answer for f in found] == ["no"]
    assert "than of that of 'twin', of which it keeps the most of all others" in found[0].words
    swaps = {"a{b}": (of(0.9, 0.1, 0.9), whole), "b": (of(0.1, 0.9, 0.1), whole)}  # braces are no place for a number
    (other,) = [f for f in judge(attrs.evolve(REAL, others=swaps)) if f.verdict == "specific"]
    assert "than of that of 'a{b}' and others, of each seed's that it keeps most of" in other.words


def test_no_weights_of_its_own() -> None:
    """Where every weight of a mask is in another mask, too, nothing is removed, and that nothing is lost says nothing."""
    shared = attrs.evolve(REAL, removed=REAL.random, own=of(0, 0, 0), kept=of(0.1, 0.1, 0.1), weights=100, spared=REAL.others)
    assert verdicts(shared)["necessary"] == "cannot tell"
    words = [f.words for f in judge(shared) if f.verdict == "necessary"]
    assert all("in 3 of 3 seeds its mask keeps no weight that no other function's mask keeps" in text for text in words)
    some = attrs.evolve(REAL, own=of(5, 7, 0), kept=of(0.1, 0.1, 0.1), weights=100)
    (found,) = [f for f in judge(some) if f.verdict == "necessary"]
    assert found.n == 2
    assert "without its own weights (6 of 10 that its mask keeps)" in found.words
    assert "in 1 of 3 seeds" in found.words


def test_a_score_that_has_no_shares_says_why() -> None:
    """An unmasked score of 0 or less, such as a negative loss: no verdict, and the number and what would do beside it."""
    found = [f for f in judge(attrs.evolve(REAL, unmasked=of(-4.2, -4.4, -4.3))) if f.verdict == "sufficient"]
    assert [(f.answer, f.n) for f in found] == [("cannot tell", 0)]
    assert "was not measured: the unmasked score is -4.3, and shares need one above 0" in found[0].words


def test_a_mask_that_keeps_nothing_shows_nothing() -> None:
    """It is not sufficient to be told, whatever it scores; what cannot be compared with it says why, and nothing else changes."""
    zeros, nan = of(0.0, 0.0, 0.0), of(*[math.nan] * 3)
    controls = {kind: attrs.evolve(one, size=nan) for kind, one in REAL.controls.items()}
    empty = attrs.evolve(REAL, kept=zeros, controls=controls, agreement=nan)
    assert verdicts(empty) == {**dict.fromkeys(VERDICTS, "yes"), "sufficient": "cannot tell", "stable": "cannot tell"}
    words = [f.words for f in judge(empty) if not f.n]
    assert words == ["was not measured: its masks keep nothing (n = 0)"] * 4
    assert any("keeps nothing in 3 of 3 seeds" in f.words for f in judge(empty))
    assert verdicts(attrs.evolve(REAL, kept=of(0.0, 0.2, 0.2)))["sufficient"] == "cannot tell"


def test_random_weights_may_take_all_that_can_be_lost() -> None:
    """Removing as many random weights breaks the function too: then the same removal, which breaks no other function, is what says so."""
    broken = attrs.evolve(REAL, removed=of(0.25, 0.24, 0.26), random=of(0.29, 0.28, 0.3))
    assert verdicts(broken)["necessary"] == "no"
    gone = attrs.evolve(REAL, removed=of(0.0, 0.0, 0.0), random=of(0.003, 0.002, 0.005))  # nothing could be lost beyond that
    assert verdicts(gone)["necessary"] == "cannot tell"
    assert "random ones leave 0.3 % of it" in next(f.words for f in judge(gone) if f.verdict == "necessary")
    spared = {"g": (of(1.0, 0.99, 1.0), of(1.0, 1.0, 1.0)), "h": (of(0.8, 0.9, 0.9), of(0.9, 0.9, 0.9))}
    told = attrs.evolve(broken, spared=spared)
    assert verdicts(told)["necessary"] == "yes"
    found = next(f for f in judge(told) if "other functions" in f.words and f.verdict == "necessary")
    rest = [(1 + 0.8 / 0.9) / 2, (0.99 + 1) / 2, 1]
    expected = np.mean(np.array(rest) - np.array([0.25, 0.24 / 0.99, 0.26]))
    assert (found.value, found.reference) == (pytest.approx(expected), pytest.approx(1 - np.mean(rest)))
    alike = {name: (0.25 * whole, whole) for name, (_, whole) in spared.items()}  # the removal breaks every function
    assert verdicts(attrs.evolve(broken, spared=alike))["necessary"] == "no"
    failed = {**spared, "h": (of(*[math.nan] * 3), of(0.9, 0.9, 0.9))}  # is left out
    assert verdicts(attrs.evolve(broken, spared=failed))["necessary"] == "yes"


def size_of(never: tuple[bool, ...], size: tuple[float, ...], equal: float = 0.97) -> tuple[str, Finding]:
    """Return the verdict `real`, and what is said of the size of one control that reaches the score in some seeds, or in none."""
    weak = Compared(of(0.5, 0.5, 0.5), of(equal, equal, equal), of(*size), np.array(never))
    found = judge(attrs.evolve(REAL, controls={**REAL.controls, "shuffled": weak}))
    return verdict(found, "real"), next(
        f for f in found if f.measure == "advantage over shuffled as size at equal score"
    )


def test_a_control_that_never_reaches_the_score() -> None:
    """1 / density is no ratio: with a mask of 73 % it would be 1.36. In every seed never is yes; in some, no lower bound can say no."""
    real, found = size_of((True, True, True), (1.36, 1.36, 1.36))
    assert (real, found.answer, found.value, found.n, found.p) == ("yes", "yes", math.inf, 3, 1 / 8)
    whole = 100 * np.mean([0.5, 0.5 / 0.99, 0.5])
    assert f"never reaches this score, with all its weights ({whole:.1f} % of the unmasked score)" in found.words
    assert "1.36" not in found.words
    real, found = size_of((True, False, False), (1.36, 1.35, 1.37))
    assert (real, found.answer) == ("cannot tell", "cannot tell")
    assert "needs at least 1.36 times" in found.words
    assert "in 1 of 3 seeds its control (shuffled) never reaches" in found.words
    assert size_of((False, False, False), (1.36, 1.35, 1.37))[0] == "no"
    assert size_of((True, False, False), (4.0, 4.1, 4.0))[0] == "yes"
    assert size_of((True, True, True), (math.nan,) * 3)[1].n == 0
    _, one = size_of((True, False, False), (1.36, math.nan, math.nan))
    assert (one.answer, one.n) == ("cannot tell", 1)
    assert "never reaches" in one.words


def test_one_seed_cannot_tell() -> None:
    """With one run nothing is known about another one; the numbers are there all the same."""

    def first(x: object) -> object:
        if isinstance(x, np.ndarray):
            return x[:1]
        if isinstance(x, Compared):
            return Compared(x.unmasked[:1], x.equal_size[:1], x.size[:1])
        return (
            {k: first(v) for k, v in x.items()}
            if isinstance(x, dict)
            else tuple(map(first, x))
            if isinstance(x, tuple)
            else x
        )

    one = Measured(**{f.name: first(getattr(REAL, f.name)) for f in attrs.fields(Measured)})
    assert set(verdicts(one).values()) == {"cannot tell"}
    assert judge(one)[0].value == pytest.approx(0.97)
    assert "n = 1" in judge(one)[0].words


def test_what_stability_needs_is_said() -> None:
    """One seed: more seeds help, where all have one network, and a control does; two seeds of two networks: the control alone does."""
    lacking = attrs.evolve(REAL, agreement=None, chance=None)
    (two,) = (f for f in judge(lacking) if f.verdict == "stable")
    (one,) = (f for f in judge(attrs.evolve(lacking, masked=of(0.97))) if f.verdict == "stable")
    assert two.answer == one.answer == "cannot tell"
    assert two.words.endswith(": ask for the control seed_ceiling")
    assert one.words.endswith(": ask for more seeds of this network, or for the control seed_ceiling")


def test_scores_that_are_no_shares_and_runs_that_failed_are_left_out() -> None:
    """A share of a score that is not positive means nothing; a seed that is not done does not count."""
    assert verdicts(attrs.evolve(REAL, unmasked=of(-1.0, -1.0, -1.0)))["sufficient"] == "cannot tell"
    found = judge(attrs.evolve(REAL, masked=of(0.97, np.nan, 0.97)))[0]
    assert (found.n, found.value) == (2, pytest.approx(0.97))


def test_a_mask_that_stood_still() -> None:
    """No change at all is settled, and written without a sign."""
    found = judge(attrs.evolve(REAL, moved=of(0.0, 0.0, 0.0)))[-1]
    assert (found.verdict, found.answer, found.value, found.threshold) == ("settled", "yes", 0, 0.05)
    assert "-0.0" not in found.words


SAID = [
    ("reach", (1, 2, 3), "settled", "cannot tell"),
    ("extreme", (2,), "settled", "cannot tell"),
    ("moving", (1, 2, 3), "settled", "no"),
    ("moving", (3,), "settled", "cannot tell"),
    ("beats", (1, 2, 3), "real", "yes"),
    ("threshold", (1,), "sufficient", "yes"),
]


@pytest.mark.parametrize(("rule", "seeds", "name", "expected"), SAID)
def test_what_was_said_of_learning_is_heard(rule: str, seeds: tuple[int, ...], name: str, expected: str) -> None:
    """A size that stands still has not settled where no logit could move, all is kept, or single weights still changed; the sentence
    stands among the findings of its verdict."""
    measured = attrs.evolve(REAL, said=((rule, "a sentence.", seeds),))
    found = verdicts(measured)
    assert found.pop(name) == expected
    assert set(found.values()) == {"yes"}
    (one,) = [f for f in judge(measured) if "a sentence." in f.words]
    assert one.verdict == name
    assert f"(seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds[:1]))}" in one.words


def test_a_mask_that_keeps_everything_is_not_sufficient() -> None:
    """It scores what the network scores, which says nothing; in one seed that is enough."""
    for kept, expected in (
        (of(1.0, 1.0, 1.0), "cannot tell"),
        (of(1.0, 0.2, 0.2), "cannot tell"),
        (of(0.9, 0.2, 0.2), "yes"),
    ):
        assert verdicts(attrs.evolve(REAL, kept=kept))["sufficient"] == expected


def test_intervals_end_at_what_is_possible() -> None:
    """Two seeds give wide intervals: no score below 0 or above all, no negative change, no more than equal masks."""
    wide = {"masked": of(0.1, 0.9, 0.2), "moved": of(0.0, 0.5, 0.1), "agreement": of(0.1, 0.99, 0.9)}
    found = {f.verdict: f for f in judge(attrs.evolve(REAL, unmasked=of(1.0, 1.0, 1.0), **wide))}
    assert (found["sufficient"].low, found["settled"].low, found["stable"].high) == (0.0, 0.0, 1.0)
    assert found["sufficient"].high == 1.0
    assert "-" not in found["settled"].words
    free = judge(attrs.evolve(REAL, unmasked=of(3.0, 3.0, 3.0), masked=of(0.3, 2.9, 0.6)))[0]
    assert free.low < 0


def test_two_seeds_are_said_to_be_few() -> None:
    """A share ends at all of the score, or at a score of 1 where more than all was measured; sizes end at one weight and at all; an
    interval of all that is possible says so, and what is answered is what the whole interval says."""
    two = {f.name: v[:2] for f in attrs.fields(Measured) if isinstance(v := getattr(REAL, f.name), np.ndarray)}
    controls = {k: Compared(of(0.2, 0.3), of(0.1, 0.8), of(9.0, 1.5)) for k in REAL.controls}
    changes = {"unmasked": of(0.98, 0.983), "masked": of(0.97, 0.9), "removed": of(0.0, 0.97), "random": of(0.97, 0.9)}
    few = attrs.evolve(REAL, **{**two, **changes}, others={}, controls=controls, kept=of(0.1, 0.1), weights=1000)
    found = {f.measure: f for f in judge(few)}
    lost = found["own weights removed"]
    assert (lost.low, lost.high, lost.answer) == (-1.0, 1.0, "cannot tell")
    assert "interval -100.0 % to 100.0 %, all that is possible, n = 2, only two seeds)" in lost.words
    assert found["score under the mask"].high == 1.0
    size = found["advantage over shuffled as size at equal score"]
    assert (size.low, size.high) == pytest.approx((1 / 100, 10))
    assert size.answer == "cannot tell"
    better = {f.measure: f for f in judge(attrs.evolve(few, masked=of(0.99, 0.6)))}["score under the mask"]
    assert better.high == pytest.approx(np.mean([1 / 0.98, 1 / 0.983]))
    assert "only two" not in judge(REAL)[0].words


def test_thresholds_can_be_changed() -> None:
    """A stricter limit turns a verdict; an unknown one is refused with the nearest."""
    strict = judge(REAL, thresholds_of({"sufficient": 0.99}))
    assert verdict(strict, "sufficient") == "no"
    assert thresholds_of(None) == THRESHOLDS
    with pytest.raises(UserError, match=r"there is no threshold 'suficient' .did you mean 'sufficient'"):
        thresholds_of({"suficient": 0.9})
    for wrong in ({"confidence": 1.0}, {"real_size": 0.0}, {"stable": "x"}):
        with pytest.raises(UserError):
            thresholds_of(wrong)
