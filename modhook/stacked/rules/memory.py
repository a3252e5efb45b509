"""What rules remember during one stacked call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


class Memory:
    """Results derived from a tensor, kept as long as the stacked call runs, so that sixty calls derive them once.

    Attributes:
        strict: refuse every read of a stacked value, also where the samples agree.
        wide: give every sample its own copy of new tensors.
        reads: how many stacked values were read.
        anchor: any stacked tensor; the rule for new tensors takes K from it.
    """

    def __init__(self, *, strict: bool = False, wide: bool = False) -> None:
        self.strict, self.wide = strict, wide
        self.reads = 0
        self.anchor: Tensor | None = None
        self._kept: dict[tuple[int, ...], tuple[tuple[Tensor, ...], Any]] = {}

    def once(self, tensors: tuple[Tensor, ...], derive: Callable[..., T]) -> T:
        """Return `derive(*tensors)`, computed the first time that these tensors are seen."""
        key = tuple(id(tensor) for tensor in tensors)
        if key not in self._kept:
            # The tensors are kept too: an id is unique only as long as its object lives.
            self._kept[key] = (tensors, derive(*tensors))
        result: T = self._kept[key][1]
        return result
