"""Overlap that chance alone would give: masks that are independent and uniformly random, with as many weights in each tensor.

Two such masks that keep a and b of a tensor's N weights share a hypergeometric number of them, mean a b / N. IoU is no linear
function of that number, so its expectation is summed over the distribution; over several tensors the numbers are
independent, and their distributions are convolved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

_CUT = math.log(2e30)
"""What lies outside a window has a probability below 1e-30: no float64 sum sees it."""
_DIRECT = 512
"""Up to this length of the shorter window a plain convolution is faster than one by FFT."""


@attrs.frozen(eq=False)
class Shared:
    """Distribution of the number of shared weights: `chances[i]` is the probability of `first + i`."""

    first: int
    chances: NDArray[np.float64]
    mean: float
    variance: float

    def __add__(self, other: Shared) -> Shared:
        """Return the distribution of the sum of two independent numbers."""
        mean, variance = self.mean + other.mean, self.variance + other.variance
        whole, first = _convolved(self.chances, other.chances), self.first + other.first
        low, high = _window(mean, variance, first, first + len(whole) - 1)
        chances = whole[low - first : high - first + 1]
        return Shared(low, chances / chances.sum(), mean, variance)

    def iou(self, a: int, b: int) -> float:
        """Return the expected |A & B| / |A | B| of masks that keep `a` and `b` weights; NaN if both keep nothing."""
        if a + b == 0:
            return math.nan
        count = np.arange(self.first, self.first + len(self.chances), dtype=np.float64)
        return float((self.chances * count / (a + b - count)).sum())


def shared(size: int, a: int, b: int) -> Shared:
    """Return the distribution of |A & B| of two random masks that keep `a` and `b` of `size` weights."""
    mean = a * b / size
    variance = mean * (size - a) * (size - b) / (size * (size - 1)) if size > 1 else 0.0
    low, high = _window(mean, variance, max(0, a + b - size), min(a, b))
    k = np.arange(low, high, dtype=np.float64)
    # log P(k + 1) - log P(k), from the two binomials; every product is an exact integer below 2^53 up to 9e7 weights.
    steps = np.log((a - k) * (b - k)) - np.log((k + 1) * (size - a - b + k + 1))
    logs = np.concatenate([[0.0], steps.cumsum()])
    chances = np.exp(logs - logs.max())
    return Shared(low, chances / chances.sum(), mean, variance)


def total(parts: Sequence[Shared]) -> Shared:
    """Return the distribution of the sum over independent tensors; halves are joined, so that windows stay short."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return total(parts[:half]) + total(parts[half:])


def _window(mean: float, variance: float, low: int, high: int) -> tuple[int, int]:
    """Return the first and last number that matter, within low..high.

    A hypergeometric number is a sum of independent indicators (Vatutin & Mikhailov 1982), so Bernstein's inequality holds:
    P(|X - mean| >= t) <= 2 exp(-t^2 / 2 / (variance + t / 3)).
    """
    reach = _CUT / 3 + math.sqrt(_CUT**2 / 9 + 2 * _CUT * variance)
    return max(low, math.floor(mean - reach)), min(high, math.ceil(mean + reach))


def _convolved(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    if min(len(a), len(b)) <= _DIRECT:
        return np.convolve(a, b)
    length = len(a) + len(b) - 1
    padded = 1 << (length - 1).bit_length()
    product = np.fft.irfft(np.fft.rfft(a, padded) * np.fft.rfft(b, padded), padded)[:length]
    return np.maximum(product, 0.0)  # rounding leaves tails of +-1e-17
