"""Means with intervals over seeds, and exact tests: few runs, so nothing is assumed that few runs cannot show."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

MOST_FLIPS = 16
"""Up to this many seeds every assignment of signs is counted; with more the p-value is left out."""


def interval(values: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """Return the mean of the values and its two-sided t interval (mean, low, high); from one value the bounds are NaN."""
    found = np.asarray(values, dtype=np.float64)
    if len(found) < 2:
        return float(found.mean()) if len(found) else math.nan, math.nan, math.nan
    mean = float(found.mean())
    half = t_quantile(confidence, len(found) - 1) * float(found.std(ddof=1)) / math.sqrt(len(found))
    return mean, mean - half, mean + half


def t_quantile(confidence: float, freedom: int) -> float:
    """Return t with P(|T| < t) = `confidence` for Student's T with `freedom` degrees of freedom, to 1e-12 of it."""
    low, high = 0.0, 1.0
    while t_within(high, freedom) < confidence:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, freedom) < confidence else (low, middle)
    return (low + high) / 2


def t_within(t: float, freedom: int) -> float:
    """Return P(|T| < t) of Student's T: the finite sums of Abramowitz & Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = freedom % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(2 + odd, freedom + 1, 2):
        total += term
        term *= square * (k - 1) / k
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return the exact one-sided p-value of paired differences: how many assignments of signs have a sum at least as large.

    Under the hypothesis that either of a pair is as likely to be the larger one. The smallest p that n pairs can give is
    2^-n. NaN for no pair, and for more than `MOST_FLIPS`.
    """
    found = np.asarray(differences, dtype=np.float64)
    if not 1 <= len(found) <= MOST_FLIPS:
        return math.nan
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(found))))  # (2^n, n)
    sums = signs @ found
    return float((sums >= found.sum() - 1e-12 * np.abs(found).sum()).mean())
