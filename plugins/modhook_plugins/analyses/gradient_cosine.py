"""Gradient cosine (reference, section 6): does cutting off late layers change what the early ones would learn?

A stage's mask is applied cumulatively, from the output layer downwards. Each time, the gradient of the first split's loss is
compared with that of the whole network, on the weights that the *whole* mask keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import numpy as np
import torch
from annotated_types import MinLen
from torch import Tensor, nn

from modhook import Analysis, Masks, Task, UserError, Variable
from modhook.errors import listing
from modhook.network.recurrent import with_gradients

if TYPE_CHECKING:
    from modhook import FinishedRun


@attrs.frozen
class GradientCosineOptions:
    """Options of the analysis `gradient_cosine`."""

    order: Annotated[tuple[str, ...], MinLen(1)] = ("output", "conv4", "conv3", "conv2", "conv1")
    """The masked layers, from the output downwards; the default is that of the network `cnn`."""


class GradientCosine(Analysis):
    """Cosine similarities, per tensor and in total; `masked` says down to which layer the mask is applied."""

    Options = GradientCosineOptions
    options: GradientCosineOptions

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare the group `gradient_cosine`."""
        meaning = "cosine of the loss gradients with and without masked layers"
        return (
            Variable(
                "gradient_cosine/cosine", ("stage", "masked", "parameter"), "float64", f"{meaning}, in this tensor"
            ),
            Variable(
                "gradient_cosine/cosine_total",
                ("stage", "masked"),
                "float64",
                f"{meaning}, over all tensors",
                attrs={"table": "number"},
            ),
        )

    def labels(self, task: Task, stages: Sequence[str]) -> dict[str, list[Any]]:
        """Label `masked`: nothing, then each layer with all above it."""
        return {"masked": ["nothing", *self.options.order]}

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Measure one gradient per stage and layer."""
        order = [str(x) for x in run.coordinates("gradient_cosine/cosine")["parameter"]]
        levels = len(self.options.order) + 1
        cosine = np.full((len(run.stages), levels, len(order)), np.nan)
        total = np.full((len(run.stages), levels), np.nan)
        for s, stage in enumerate(run.stages):
            masks = run.masks[stage]
            self._check(masks)
            whole = gradient(run, None, stage)
            for level in range(levels):
                masked = gradient(run, self._down_to(masks, level), stage) if level else whole
                kept = {n: (whole[n][m], masked[n][m]) for n, m in masks.items()}
                for name, (a, b) in kept.items():
                    cosine[s, level, order.index(name)] = _cosine(a, b)
                total[s, level] = _cosine(*(torch.cat(side) for side in zip(*kept.values(), strict=True)))
        return {"gradient_cosine/cosine": cosine, "gradient_cosine/cosine_total": total}

    def _down_to(self, masks: Masks, level: int) -> Masks:
        """Return the mask of the first `level` layers; the others keep all weights."""
        cut = self.options.order[:level]
        return Masks({n: m if _layer(n) in cut else torch.ones_like(m) for n, m in masks.items()})

    def _check(self, masks: Masks) -> None:
        if masks.units is not None:
            raise UserError("analyses.gradient_cosine compares gradients weight by weight, but these masks are over units; leave it out.")
        found = list(dict.fromkeys(_layer(n) for n in masks))
        if set(found) != set(self.options.order):
            raise UserError(
                f"analyses.gradient_cosine.order names {listing(self.options.order)}, but the masked layers are {listing(found)}."
            )


def gradient(run: FinishedRun, masks: Masks | None, stage: str) -> dict[str, Tensor]:
    """Return the gradient of the mean loss over the first split, by parameter, at the weights as the masks leave them."""
    plain: nn.Module = run.network(stage)
    none = Masks({n: torch.ones(p.shape, dtype=torch.bool, device="cpu") for n, p in plain.named_parameters()})
    model = (none if masks is None else masks).materialize(plain, run.off, seed=run.labels["seed"]).eval().requires_grad_(True)
    count = 0
    for batch in run.batches(run.task.splits[0]):
        size = len(next(v for v in batch.values() if isinstance(v, Tensor)))
        with with_gradients(model):
            (run.task.loss(model, batch) * size).backward()
        count += size
    return {n: p.grad.double().cpu() / count for n, p in model.named_parameters() if p.grad is not None}


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _cosine(a: Tensor, b: Tensor) -> float:
    """Return the cosine of two gradients; NaN where one of them is 0."""
    product = float(a.norm() * b.norm())
    return float(a @ b) / product if product else float("nan")
