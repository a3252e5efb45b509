"""Masks over the change of the weights: what is sampled is off + m (w - off), `off` being what a weight becomes that is not kept.

A sampler makes m w from w, so it is given w - off, and `off` is added to what it returns. The gradient that reaches the logits is
then dL/dv (w - off) s'(l), v being the masked weight, and that which reaches w is dL/dv m, as ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from modhook.noise.workspace import take


def plus(sampled: Tensor, off: Tensor) -> Tensor:
    """Return `sampled` (K, *shape) + `off` (*shape), in memory that is used again in every step."""
    result: Tensor = _Plus.apply(sampled, off)
    return result


def kept(off: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
    """Return copies on the CPU, for what outlives the fit."""
    return None if off is None else {n: t.detach().to("cpu", copy=True) for n, t in off.items()}


class _Plus(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sampled: Tensor, off: Tensor) -> Tensor:
        return torch.add(sampled, off, out=take(sampled.shape, sampled.dtype, sampled.device))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
