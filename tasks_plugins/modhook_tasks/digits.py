"""Digits as the arithmetic tasks see them: one-hot, least significant first."""

from __future__ import annotations

import torch
from torch import Tensor


def one_hot_digits(numbers: Tensor, digits: int = 2) -> Tensor:
    """Return numbers (...) as one-hot digits, least significant first: float32 (..., digits * 10)."""
    return torch.nn.functional.one_hot(split_digits(numbers, digits), 10).flatten(-2).float()


def split_digits(numbers: Tensor, digits: int = 2) -> Tensor:
    """Return the decimal digits of numbers (...), least significant first: int64 (..., digits)."""
    powers = 10 ** torch.arange(digits, device=numbers.device)
    return numbers.long().unsqueeze(-1) // powers % 10
