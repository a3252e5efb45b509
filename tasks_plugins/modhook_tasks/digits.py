"""Digits as the arithmetic tasks see them: one-hot, least significant first."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

MOST_DIGITS = 9
"""Of a number: a product of two such numbers is exact in 64 bits, one of longer numbers is not."""
Digits = Annotated[int, Ge(1), Le(MOST_DIGITS)]


def one_hot_digits(numbers: Tensor, digits: int = 2) -> Tensor:
    """Return numbers (...) as one-hot digits, least significant first: float32 (..., digits * 10)."""
    return torch.nn.functional.one_hot(split_digits(numbers, digits), 10).flatten(-2).float()


def split_digits(numbers: Tensor, digits: int = 2) -> Tensor:
    """Return the decimal digits of numbers (...), least significant first: int64 (..., digits)."""
    powers = 10 ** torch.arange(digits, device=numbers.device)
    return numbers.long().unsqueeze(-1) // powers % 10


def join_digits(digits: Tensor) -> Tensor:
    """Return the numbers (...) of decimal digits (..., digits), least significant first: int64."""
    powers = 10 ** torch.arange(digits.shape[-1], device=digits.device)
    return (digits.long() * powers).sum(-1)


def combined(operation: str, numbers: Tensor, digits: int = 2) -> Tensor:
    """Return the sum (`add`) or the product (`mul`) over the last dimension, modulo 10**digits: int64 (...)."""
    first, *others = numbers.long().unbind(-1)
    for other in others:  # the remainder is taken at every step, so that no product leaves 64 bits
        first = (first + other if operation == "add" else first * other) % 10**digits
    return first


def other_digits(items: int, stage: str, seed: int) -> Tensor:
    """Return what is written for each digit, another one, in one cycle drawn from stage and seed: uint8 (items, 10)."""
    order = np.random.default_rng([seed, *stage.encode()]).permutation(10)
    written = np.empty(10, dtype=np.uint8)
    written[order] = np.roll(order, 1)
    return torch.from_numpy(written).expand(items, 10)


def rewritten(digits: Tensor, written: Tensor) -> Tensor:
    """Return digits (B, ..., n) in the writing of `other_digits` (B, 10)."""
    return written.long().gather(1, digits.flatten(1)).view(digits.shape)


def packed(numbers: np.ndarray, digits: int = 2) -> Tensor:
    """Return drawn numbers of so many digits in the smallest type that holds them: uint8 or int32."""
    return torch.from_numpy(numbers.astype(np.uint8 if digits <= 2 else np.int32))
