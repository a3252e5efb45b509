"""Base training: all weights, no masks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import xarray as xr
from torch import Tensor, nn

from modhook.network.owned import handed
from modhook.network.place import on_one_device
from modhook.plugin.interfaces import Tracker
from modhook.steps.loop import run_steps, warned
from modhook.steps.optim import LearningRates, MakeOptimizer, clip_gradients, learning_rate, make_optimizer
from modhook.steps.parallel import Spread
from modhook.steps.ranks import agree, average, spread
from modhook.values.arguments import batches_of, checked, function, instance, optional
from modhook.values.bounds import CountOrZero, NotNegative, Positive
from modhook.values.moving import floats
from modhook.values.randomness import cuda_states, set_cuda_states


class Trainer:
    """The whole state of base training: network, optimiser, step count."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module, Any], Tensor],
        *,
        optimizer: str | MakeOptimizer = "adam",
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        clip: float | None = 1.0,
        warmup: int = 0,
        decay_at: Sequence[int] = (),
        decay: float = 0.1,
        schedule: str = "steps",
    ) -> None:
        lr, clip = checked("lr", lr, Positive), optional("clip", clip, NotNegative)
        warmup = checked("warmup", warmup, CountOrZero)
        self.model, self.loss, self.clip = model, loss, clip
        self.net: Any = Spread(model) if spread() else model
        """Stands for the network in the loss."""
        self.recording = False
        self.left_out = 0
        self._rate = functools.partial(learning_rate, warmup=warmup, decay_at=decay_at, decay=decay, schedule=schedule)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(
            optimizer, self.parameters, lr, weight_decay=weight_decay, momentum=momentum, betas=betas, eps=eps
        )
        self._rates = LearningRates(self.optimizer)

    def step(self, number: int, batch: Any) -> dict[str, float]:
        """One optimiser step on one batch."""
        self._rates.set(lambda lr: self._rate(number, lr))
        self.optimizer.zero_grad()
        loss, error = None, None
        try:
            with on_one_device(self.net, batch):
                loss = self.loss(self.net, handed(batch))
            loss.backward()
        except Exception as failure:
            error = failure
        agree(error)
        assert loss is not None
        average(self.parameters)
        norm = clip_gradients(self.parameters, self.clip)
        self.optimizer.step()
        return floats({"loss": loss.detach(), "gradient_norm": norm})

    def measure(self) -> dict[str, float]:
        """Nothing beyond what each step measures."""
        return {}

    def advice(self, _: Any) -> str:
        """Say what to do about numbers that are not finite."""
        return "lower the learning rate or look at the data"

    def state_dict(self) -> dict[str, Any]:
        """Return network, optimiser, the last step's gradients and torch's global random state (dropout)."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "torch": torch.get_rng_state(),
            "cuda": cuda_states(),
            "gradients": [p.grad for p in self.parameters],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`'s result."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["torch"])
        set_cuda_states(state.get("cuda", ()))
        for parameter, gradient in zip(self.parameters, state["gradients"], strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)


def train(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Callable[[nn.Module, Any], Tensor],
    steps: int,
    tracker: Tracker | None = None,
    callback: Callable[[int], None] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Train `model` in place for `steps` steps and return the history: `loss`, `gradient_norm`, `ms_per_step` over `step`.

    Under torchrun the ranks share each batch; weights and batches must be the same on all.

    Args:
        model: the network; it is put into training mode and left in it.
        batches: any iterable, one item per step; see `fit_masks`.
        loss: `loss(model, batch)` returns a scalar.
        steps: optimiser steps.
        tracker: told about every step.
        callback: called with the step number (from 1) after every step.
        **options: optimizer (as for `fit_masks`), lr, weight_decay, momentum, betas, eps, clip, warmup, decay_at, decay, schedule; the
            defaults are the reference's (Adam, 1e-3, global gradient norm clipped at 1).

    Warns:
        ModhookWarning: an iterator that ends before the last step.

    Raises:
        UserError: no batch, or a wrong argument. RunError: a loss that is not finite.
    """
    steps = checked("steps", steps, CountOrZero)
    instance("model", model, nn.Module, "an nn.Module")
    batches_of("batches", batches)
    function("loss", loss, "loss(model, batch)")
    model.train()
    say = warned if tracker is None else None
    trainer, tracker = Trainer(model, loss, **options), tracker or Tracker()
    if isinstance(trainer.net, Spread):
        trainer.net.say = tracker.message
    return run_steps(trainer, batches, steps, tracker, callback, say).dataset()
