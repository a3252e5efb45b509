"""Packing and unpacking of sequences: vmap knows neither, and one call serves all samples with K among the features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from modhook.stacked.rules.bridge import bridge, is_stacked
from modhook.stacked.rules.memory import Memory


def pack(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Pack x (T, B, ...) or (B, T, ...) by lengths that all samples share; return (data (N, ...), batch sizes)."""
    x, lengths, batch_first = args
    if is_stacked(lengths):
        return NotImplemented
    sizes = func(torch.empty(x.shape[:2], device="cpu"), lengths, batch_first)[1]
    return _behind(x, lambda whole: func(whole, lengths, batch_first)[0], 2), sizes


def unpack(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Unpack data (N, ...) to (T, B, ...) or (B, T, ...); return it and the lengths."""
    data, sizes, *options = args
    if is_stacked(sizes):
        return NotImplemented
    lengths = func(torch.empty(data.shape[:1], device="cpu"), sizes, *options)[1]
    return _behind(data, lambda whole: func(whole, sizes, *options)[0], 1), lengths


def _behind(tensor: Tensor, run: Callable[[Tensor], Tensor], at: int) -> Tensor:
    """Return `run` of the stacked tensor with K moved to dimension `at`, where the operation takes it for a feature."""

    def compute(samples: int, tensors: Sequence[Tensor], stacked: Sequence[bool]) -> tuple[Tensor, ...]:
        # Packing leaves one dimension of two, unpacking two of one.
        return (run(tensors[0].movedim(0, at)).movedim(3 - at, 0),)

    return bridge(compute, [tensor])[0]
