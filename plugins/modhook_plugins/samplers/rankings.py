"""Rankings of weights that need no training; what every learned mask must beat.

Where a weight that is not kept becomes another one than zero (`off`), w below stands for the change w - off.

Gradients are those of the loss' mean over items, at the trained weights; scores are never negative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import attrs
import torch
from annotated_types import Ge
from torch import Tensor, nn

from modhook import Ranking, UserError
from modhook.network.place import on_one_device
from modhook.network.recurrent import with_gradients

Loss = Callable[[Any, Any], Tensor]


class _Changes(Ranking):
    """A ranking that knows what a mask takes away."""

    def change(self, name: str, weight: Tensor) -> Tensor:
        """Return w - off, or w where that is zero: (*weight.shape)."""
        return weight.detach() if self.off is None else weight.detach() - self.off[name]


class Magnitude(_Changes):
    """|w|: large weights are needed; of a unit, the mean over its weights."""

    pooled = "mean"

    def scores(
        self, model: nn.Module, names: Sequence[str], batches: Iterator[Any], loss: Loss, steps: int
    ) -> dict[str, Tensor]:
        """Return |w|; no batch is used."""
        return {name: self.change(name, model.get_parameter(name)).abs() for name in names}


class GradientWeight(_Changes):
    """The mean over batches of |w dL/dw|: to first order, how the loss changes without the weight, whatever the sign."""

    def scores(
        self, model: nn.Module, names: Sequence[str], batches: Iterator[Any], loss: Loss, steps: int
    ) -> dict[str, Tensor]:
        """Return the mean of |w dL/dw| over at most `steps` batches."""
        weights = {name: model.get_parameter(name) for name in names}
        total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        for count, gradients in enumerate(_gradients(model, weights, batches, loss, steps), 1):
            for name, gradient in gradients.items():
                total[name] += ((self.change(name, weights[name]) * gradient).abs() - total[name]) / count
        return total


class Snip(_Changes):
    """SNIP (Lee, Ajanthan, Torr 2019, formula 6): |w dL/dw| with the gradient of the mean loss over all batches together."""

    def scores(
        self, model: nn.Module, names: Sequence[str], batches: Iterator[Any], loss: Loss, steps: int
    ) -> dict[str, Tensor]:
        """Return |w mean(dL/dw)| over at most `steps` batches."""
        weights = {name: model.get_parameter(name) for name in names}
        mean = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        for count, gradients in enumerate(_gradients(model, weights, batches, loss, steps), 1):
            for name, gradient in gradients.items():
                mean[name] += (gradient - mean[name]) / count
        return {name: (self.change(name, weights[name]) * mean[name]).abs() for name in names}


@attrs.frozen
class IntegratedGradientsOptions:
    """Options of integrated gradients."""

    points: Annotated[int, Ge(1)] = 10
    """Points on the way from zero, or from `off`, to the trained weights."""


class IntegratedGradients(_Changes):
    """Integrated gradients (Sundararajan, Taly, Yan 2017, formula 1) of the loss over the masked weights, from zero (or `off`).

    The mean over batches of |w integral_0^1 dL/dw(a w) da|, the integral by the midpoint rule.
    """

    Options = IntegratedGradientsOptions

    def scores(
        self, model: nn.Module, names: Sequence[str], batches: Iterator[Any], loss: Loss, steps: int
    ) -> dict[str, Tensor]:
        """Return the scores from at most `steps` batches."""
        weights = {name: model.get_parameter(name) for name in names}
        change = {name: self.change(name, weight).clone() for name, weight in weights.items()}
        start = {name: weight.detach() - change[name] for name, weight in weights.items()}
        total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        points = self.options.points
        for count, batch in enumerate(_drawn(batches, steps), 1):
            path = {name: torch.zeros_like(weight) for name, weight in weights.items()}
            for i in range(points):
                with torch.no_grad():
                    for name, weight in weights.items():
                        weight.copy_(start[name] + change[name] * ((i + 0.5) / points))
                for name, gradient in _gradient(model, weights, batch, loss).items():
                    path[name] += gradient / points
            for name in names:
                total[name] += ((change[name] * path[name]).abs() - total[name]) / count
        return total


def _drawn(batches: Iterator[Any], steps: int) -> Iterator[Any]:
    """Yield at most `steps` batches. Raises `UserError` if there is none."""
    count = 0
    for batch in batches:
        count += 1
        yield batch
        if count >= steps:
            return
    if not count:
        raise UserError("there is no batch to rank weights by; give an iterable with at least one.")


def _gradients(
    model: nn.Module, weights: dict[str, nn.Parameter], batches: Iterator[Any], loss: Loss, steps: int
) -> Iterator[dict[str, Tensor]]:
    """Yield the gradients of every batch's loss: {name: (*weight.shape)}."""
    for batch in _drawn(batches, steps):
        yield _gradient(model, weights, batch, loss)


def _gradient(model: nn.Module, weights: dict[str, nn.Parameter], batch: Any, loss: Loss) -> dict[str, Tensor]:
    for weight in weights.values():
        weight.requires_grad_()
    with torch.enable_grad(), with_gradients(model), on_one_device(model, batch):
        found = torch.autograd.grad(loss(model, batch), list(weights.values()), allow_unused=True)
    zero = (torch.zeros_like(weight) for weight in weights.values())
    return {n: z if g is None else g.detach() for n, g, z in zip(weights, found, zero, strict=True)}
