"""Two ways to less noise that gumbel is tried with: antithetic pairs of samples, and the mean of the late logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

import modhook
from modhook.noise.noise import uniform
from modhook_plugins.samplers.gumbel import Gumbel, _StraightThrough

LATE = 0.25
"""The share of the steps, the last ones, whose logits are averaged."""


class AntitheticGumbel(Gumbel):
    """Gumbel whose second half of the samples is drawn from 1 - u where the first half has u."""

    def apply(self, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Return `weight` under one sampled mask per generator, an even number: (K, *weight.shape)."""
        half = uniform(logits, generators[: len(generators) // 2])  # (K / 2, *shape)
        result: Tensor = _StraightThrough.apply(weight, logits, torch.cat([half, 1 - half]), self.options.temperature)
        return result


class LateMean:
    """A callback of `fit_masks` that adds up the logits of the last steps."""

    def __init__(self, steps: int) -> None:
        self.begin, self.count, self.total = (1 - LATE) * steps, 0, dict[str, Tensor]()

    def __call__(self, step: int, trainer: Any) -> None:
        """Add the logits after a step."""
        if step > self.begin:
            self.count += 1
            for name, logit in trainer.logits.items():
                self.total[name] = self.total.get(name, 0) + logit.detach().clone()

    def of(self, fit: modhook.Fit) -> modhook.Fit:
        """Return the fit with the mean as its logits, and with the masks of these."""
        logits = {name: total / self.count for name, total in self.total.items()}
        masks = modhook.Masks({name: mean >= 0 for name, mean in logits.items()}, fit.model)
        return attrs.evolve(fit, logits=logits, threshold=masks, masks=masks)
