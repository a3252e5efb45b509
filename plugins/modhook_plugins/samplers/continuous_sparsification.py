"""Continuous sparsification (Savarese, Silva, Maire 2020, "Winning the Lottery with Continuous Sparsification", section 3).

There is no noise: the mask is sigmoid(b l) with a temperature that grows from 1 to `final` over the stage, b = final ** (t / T)
(algorithm 1), the penalty is its sum (an L1 norm of the soft mask), and the mask that is kept is 1[l > 0].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import attrs
import torch
from annotated_types import Gt
from torch import Tensor

from modhook import Sampler


@attrs.frozen
class ContinuousSparsificationOptions:
    """Options of continuous sparsification."""

    final: Annotated[float, Gt(0)] = 200.0
    """The temperature factor b at the end of a stage (200 in the paper)."""


class ContinuousSparsification(Sampler):
    """Soft masks sigmoid(b l) that harden over the stage; every sample is the same."""

    Options = ContinuousSparsificationOptions
    init = 0.0

    def __init__(self, options: ContinuousSparsificationOptions | None = None) -> None:
        super().__init__(options)
        self.factor = 1.0

    def advance(self, step: int, steps: int) -> None:
        """Set b = final ** (step / steps)."""
        self.factor = self.options.final ** (step / max(1, steps))

    def apply(self, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Return `weight` under the one soft mask, K times: (K, *weight.shape)."""
        soft = torch.sigmoid(logits * self.factor).to(weight.dtype)
        return (weight * soft).expand(len(generators), *weight.shape)

    def deterministic(self, logits: Tensor) -> Tensor:
        """Return `logits > 0`: at 0 the paper's Heaviside step is 0."""
        return logits > 0

    def keep_probability(self, logits: Tensor) -> Tensor:
        """Return the soft mask, sigmoid(b l)."""
        return torch.sigmoid(logits * self.factor)

    def penalty(self, logits: Tensor) -> Tensor:
        """Return the soft mask, sigmoid(b l)."""
        return self.keep_probability(logits)

    def penalty_slope(self, logits: Tensor) -> Tensor:
        """Return b m (1 - m)."""
        m = self.keep_probability(logits)
        return m.sub_(m * m).mul_(self.factor)
