"""New tensors that are the same for all samples until a stacked one is written into them, which vmap refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from modhook.stacked.rules.bridge import bridge, is_stacked
from modhook.stacked.rules.memory import Memory

_NAMES = ("zeros", "ones", "empty", "full")
FRESH = frozenset(
    [
        *(getattr(torch, name) for name in _NAMES),
        *(getattr(torch, f"{name}_like") for name in _NAMES),
        *(getattr(Tensor, f"new_{name}") for name in _NAMES),
        torch.clone,
        Tensor.clone,
    ]
)
REFUSED = "is not possible because there exists a Tensor `other`"
"""How vmap refuses such a write."""


def fresh(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the new tensor with a copy for every sample."""
    made = func(*args, **kwargs)
    if is_stacked(made) or memory.anchor is None:
        return made

    def compute(samples: int, tensors: Sequence[Tensor], stacked: Sequence[bool]) -> tuple[Tensor, ...]:
        return (made.expand(samples, *made.shape).clone(),)

    return bridge(compute, [memory.anchor])[0]
