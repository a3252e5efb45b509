"""The overlap that chance gives, against enumeration of all masks, exact fractions and random masks."""

from __future__ import annotations

import itertools
import math
import time
from fractions import Fraction

import numpy as np
import pytest

from modhook import chance


def enumerated(sizes: list[tuple[int, int, int]]) -> float:
    """Mean IoU over all pairs of masks of tensors of (weights, kept by A, kept by B)."""
    shared = []
    for n, a, b in sizes:
        first, second = (list(itertools.combinations(range(n), k)) for k in (a, b))
        shared.append([len(set(x) & set(y)) for x in first for y in second])
    both = sum(a + b for _, a, b in sizes)
    ious = [Fraction(sum(c), both - sum(c)) for c in itertools.product(*shared)]
    return float(sum(ious) / len(ious))


@pytest.mark.parametrize(
    "sizes",
    [
        [(6, 2, 3)],
        [(1, 1, 1)],
        [(5, 5, 2)],
        [(5, 0, 2)],
        [(4, 2, 1), (5, 3, 3)],
        [(3, 3, 2), (4, 0, 2), (4, 2, 3)],
    ],
)
def test_expectation_equals_enumeration(sizes: list[tuple[int, int, int]]) -> None:
    """Over all masks of tiny tensors the mean IoU is the expectation, for one tensor and for several."""
    law = chance.total([chance.shared(*s) for s in sizes])
    assert law.iou(sum(a for _, a, _ in sizes), sum(b for _, _, b in sizes)) == pytest.approx(
        enumerated(sizes), rel=1e-12
    )


def test_empty_masks_have_no_iou() -> None:
    """Two masks that keep nothing have no IoU; one that does shares nothing."""
    assert math.isnan(chance.shared(9, 0, 0).iou(0, 0))
    assert chance.shared(9, 0, 4).iou(0, 4) == 0


@pytest.mark.parametrize(("n", "a", "b"), [(3000, 1900, 1400), (3000, 2990, 5), (3000, 40, 60)])
def test_probabilities_equal_exact_binomials(n: int, a: int, b: int) -> None:
    """Every probability in the window is the quotient of integers, and what lies outside it is below 1e-29."""
    law = chance.shared(n, a, b)
    whole = math.comb(n, b)
    exact = {
        k: Fraction(math.comb(a, k) * math.comb(n - a, b - k), whole) for k in range(max(0, a + b - n), min(a, b) + 1)
    }
    inside = range(law.first, law.first + len(law.chances))
    np.testing.assert_allclose(law.chances, [float(exact[k]) for k in inside], rtol=1e-9, atol=1e-300)
    assert sum(p for k, p in exact.items() if k not in inside) < 1e-29
    assert law.iou(a, b) == pytest.approx(float(sum(p * Fraction(k, a + b - k) for k, p in exact.items())), rel=1e-12)


def test_totals_equal_random_masks() -> None:
    """Over several tensors the expectation is the mean of many random masks, within 4 standard errors."""
    sizes = [(60, 20, 30), (200, 150, 20), (17, 5, 17)]
    rng = np.random.default_rng(0)
    shared = sum(rng.hypergeometric(a, n - a, b, 200_000) for n, a, b in sizes)
    both = sum(a + b for _, a, b in sizes)
    ious = shared / (both - shared)
    law = chance.total([chance.shared(*s) for s in sizes])
    found = law.iou(sum(a for _, a, _ in sizes), sum(b for _, _, b in sizes))
    assert abs(found - ious.mean()) < 4 * ious.std() / len(ious) ** 0.5


def test_long_windows_are_joined_as_short_ones_are() -> None:
    """The FFT gives the moments that independence gives, and keeps every probability positive."""
    parts = [chance.shared(2_000_000, 900_000, 700_000 + 1000 * i) for i in range(3)]
    assert min(len(p.chances) for p in parts) > 512, "the windows must be long enough for the FFT"
    law = chance.total(parts)
    count = law.first + np.arange(len(law.chances))
    mean = float((law.chances * count).sum())
    assert mean == pytest.approx(sum(900_000 * (700_000 + 1000 * i) / 2_000_000 for i in range(3)), rel=1e-12)
    assert float((law.chances * (count - mean) ** 2).sum()) == pytest.approx(sum(p.variance for p in parts), rel=1e-9)
    assert (law.chances >= 0).all()


def test_sixteen_million_weights_are_fast() -> None:
    """A layer of 4000 x 4000 takes milliseconds: only the window of the distribution is computed."""
    started = time.process_time()
    law = chance.total([chance.shared(16_000_000, 8_000_000, 5_000_000)] * 4)
    assert law.iou(32_000_000, 20_000_000) == pytest.approx(10 / (32 + 20 - 10), rel=1e-5)
    assert time.process_time() - started < 2
