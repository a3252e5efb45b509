"""Optimisers and learning-rate schedules shared by base training and mask training."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from modhook.errors import UserError, near_miss
from modhook.values.arguments import shown

OPTIMIZERS = ("adam", "sgd")
MakeOptimizer = Callable[[list[Tensor]], torch.optim.Optimizer]


def make_optimizer(
    kind: Any,
    parameters: Iterable[Tensor],
    lr: float,
    *,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> torch.optim.Optimizer:
    """Return `"adam"`, `"sgd"`, or what a callable makes of the list of tensors.

    A class of `torch.optim` is made with `lr`; any other callable brings its own learning rate.

    Raises:
        UserError: another name; a callable that returns no optimiser of all the tensors, or one that needs a closure.
    """
    tensors = list(parameters)
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer):
        make: Any = kind
        return _usable(make(tensors, lr=lr), tensors)
    if callable(kind):
        return _usable(kind(tensors), tensors)
    if kind == "adam":
        fused = all(t.device.type in ("cpu", "cuda") for t in tensors)
        return torch.optim.Adam(tensors, lr=lr, weight_decay=weight_decay, betas=betas, eps=eps, fused=fused)
    if kind == "sgd":
        return torch.optim.SGD(tensors, lr=lr, weight_decay=weight_decay, momentum=momentum)
    hint = near_miss(kind, OPTIMIZERS) if isinstance(kind, str) else ""
    raise UserError(
        f"unknown optimizer {shown(kind)}{hint}; give one of {', '.join(OPTIMIZERS)}, or a function that makes one of the tensors."
    )


def _usable(made: Any, tensors: Sequence[Tensor]) -> torch.optim.Optimizer:
    if not isinstance(made, torch.optim.Optimizer):
        raise UserError(f"optimizer must return a torch.optim.Optimizer of the tensors it is given, not {shown(made)}.")
    taken = {id(p) for group in made.param_groups for p in group["params"]}
    if missing := sum(id(t) not in taken for t in tensors):
        raise UserError(
            f"the optimizer {type(made).__name__} leaves out {missing} of the {len(tensors)} tensors it is given; "
            "give it all of them."
        )
    closure = inspect.signature(made.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise UserError(
            f"the optimizer {type(made).__name__} computes the loss several times per step, on one batch and one draw, "
            "which cannot be done here; give one that does not, such as 'adam'."
        )
    return made


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


class LearningRates:
    """The learning rates of an optimiser's groups: those that it was made with, times a schedule."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._first = [group["lr"] for group in optimizer.param_groups]

    def set(self, schedule: Callable[[float], float]) -> None:
        """Give every group the rate that `schedule` makes of its first one."""
        for group, first in zip(self._optimizer.param_groups, self._first, strict=True):
            group["lr"] = schedule(first)


def clip_gradients(parameters: Sequence[Tensor], limit: float | None) -> Tensor:
    """Scale gradients to a global norm of at most `limit` (None or 0: leave them) and return the norm before."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    # Far below the limit the factor is 1, and to multiply by that takes as long as by any number; for a GPU's norm one would wait.
    if limit and not (norm.device.type == "cpu" and float(norm) < 0.99 * limit):
        torch.nn.utils.clip_grads_with_norm_(list(parameters), limit, norm)
    return norm
