"""Linear layers on CPU: vmap's products are as fast, but each gradient of the weights goes to memory that is new.

At K times the size of a layer, new memory costs more than the product; here the gradient is written, in the layout of the
weights, to memory of the stage (`modhook.noise.workspace`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from modhook.noise.workspace import take
from modhook.stacked.rules.bridge import bridge, is_stacked
from modhook.stacked.rules.memory import Memory


def linear(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run x W^T + b with one batched product."""
    given = {**dict(zip(("input", "weight", "bias"), args, strict=False)), **kwargs}
    x, weight, bias = given["input"], given["weight"], given.get("bias")
    tensors = [x, weight, *([] if bias is None else [bias])]
    plain = weight.device.type == "cpu" and all(t.dtype in (torch.float32, torch.float64) for t in tensors)
    if not (plain and is_stacked(weight) and weight.dim() == 2 and x.dim()) or torch.is_autocast_enabled("cpu"):
        return NotImplemented

    def compute(samples: int, tensors: Sequence[Tensor], stacked: Sequence[bool]) -> tuple[Tensor, ...]:
        x, weight, *rest = (
            t if has_k else t.expand(samples, *t.shape) for t, has_k in zip(tensors, stacked, strict=True)
        )
        rows = x.reshape(samples, -1, x.shape[-1])  # (K, N, in)
        out = _Linear.apply(rows, weight, rest[0] if rest else None)  # (K, N, out)
        return (out.view(*x.shape[:-1], weight.shape[1]),)

    return bridge(compute, tensors)[0]


class _Linear(torch.autograd.Function):
    """x (K, N, in), weight (K, out, in), bias (K, out) or None -> (K, N, out)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.bmm(x, weight.mT) if bias is None else torch.baddbmm(bias.unsqueeze(1), x, weight.mT)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_x = torch.bmm(grad, weight)  # (K, N, in)
        if ctx.needs_input_grad[1]:
            to_weight = torch.bmm(grad.mT, x, out=take(weight.shape, weight.dtype, weight.device))
        if ctx.needs_input_grad[2]:
            to_bias = grad.sum(1)  # (K, out)
        return to_x, to_weight, to_bias
