"""The regulariser scaled by gradient norms (reference, section 1, "optional scaling")."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from modhook.values.moving import read

WINDOW = 11
"""Steps in the running mean of a tensor's gradient norm."""
FLOOR = 1e-4
"""Smallest factor."""


class GradientScale:
    """One factor of the regulariser per parameter tensor, from the norms of the loss' gradients of its logits.

    With n_i the mean norm of tensor i over the last 11 steps, this one included, the factor is
    `max(n_i / mean_j(n_j), 1e-4)`; where all norms are 0 it is 1e-4.
    """

    def __init__(self) -> None:
        self.norms = torch.empty(0, dtype=torch.float64, device="cpu")  # (W, T), oldest first

    def factors(self, gradients: Mapping[str, Tensor]) -> dict[str, float]:
        """Take in one step's gradients, regulariser not included, and return the factors by name."""
        norms = torch.tensor(read([g.norm() for g in gradients.values()]), dtype=torch.float64, device="cpu")  # (T,)
        self.norms = torch.cat([self.norms.view(-1, len(norms)), norms[None]])[-WINDOW:]
        means = self.norms.mean(0)  # (T,)
        smallest = torch.finfo(means.dtype).tiny
        ratios = (means / means.mean().clamp_min(smallest)).clamp_min(FLOOR)
        return dict(zip(gradients, ratios.tolist(), strict=True))
