"""Optimisers and learning-rate schedules shared by base training and mask training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from modhook.errors import UserError, near_miss

OPTIMIZERS = ("adam", "sgd")
MakeOptimizer = Callable[[list[Tensor]], torch.optim.Optimizer]


def make_optimizer(
    kind: str | MakeOptimizer,
    parameters: Iterable[Tensor],
    lr: float,
    *,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> torch.optim.Optimizer:
    """Return `"adam"`, `"sgd"`, or what a callable makes of the list of tensors. Raises `UserError` for another name."""
    tensors = list(parameters)
    if callable(kind):
        return kind(tensors)
    if kind == "adam":
        fused = all(t.device.type in ("cpu", "cuda") for t in tensors)
        return torch.optim.Adam(tensors, lr=lr, weight_decay=weight_decay, betas=betas, eps=eps, fused=fused)
    if kind == "sgd":
        return torch.optim.SGD(tensors, lr=lr, weight_decay=weight_decay, momentum=momentum)
    raise UserError(f"unknown optimizer {kind!r}{near_miss(kind, OPTIMIZERS)}; give one of {', '.join(OPTIMIZERS)}.")


def learning_rate(
    step: int, lr: float, *, warmup: int = 0, decay_at: Sequence[int] = (), decay: float = 0.1, schedule: str = "steps"
) -> float:
    """Return the rate of step number `step` (from 0).

    `"steps"`: linear warm-up over `warmup` steps, times `decay` from each of `decay_at`. `"transformer"`, with i the step from
    1: `lr * sqrt(4000) * min(i * 4000**-1.5, i**-0.5)`, which peaks at `lr` at step 4,000; the other arguments do nothing.
    """
    if schedule == "transformer":
        i = float(step + 1)
        return float(lr * 4000**0.5 * min(i * 4000**-1.5, i**-0.5))
    rate = lr * decay ** sum(step >= at for at in decay_at)
    return rate * min(1.0, (step + 1) / warmup) if warmup else rate


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set one learning rate for every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def clip_gradients(parameters: Sequence[Tensor], limit: float | None) -> float:
    """Scale gradients to a global norm of at most `limit` (None or 0: leave them) and return the norm before."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if limit:
        torch.nn.utils.clip_grads_with_norm_(list(parameters), limit, norm)
    return float(norm)
