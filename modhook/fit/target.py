"""Masks of a given size: in every step all logits are shifted so that the expected density is where it should be by then.

The paper's penalty pushes every logit down alike, by beta. Here beta is not given but follows from the density: the shift is
that push, as large (or as small) as this step needs, which is the exact multiplier of the constraint that a Lagrangian
approaches. The expected density goes from what it is at the start to the target, on a logarithmic scale, over the first
`RAMP` of the steps, and is held there; the masks are then the cut of exactly that size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from modhook.plugin.interfaces import Sampler

RAMP = 0.5
"""The share of the steps after which the density has reached its target."""
_MOST = 1 << 18  # logits that are looked at to find a shift; the cut at the end does not depend on it
_LARGEST = 1.0  # shift per step


class DensityTarget:
    """Holds the expected density of groups of parameters on its way.

    Args:
        groups: pairs of parameter names and the density that they are to have together.
        samplers: those of parameters that have one of their own.
    """

    def __init__(
        self, groups: Sequence[tuple[tuple[str, ...], float]], samplers: Mapping[str, Sampler] | None = None
    ) -> None:
        self.groups, self.samplers = tuple(groups), dict(samplers or {})
        self.first = [math.nan] * len(self.groups)
        """The expected density of each group before the first step."""

    @torch.no_grad()
    def hold(self, logits: Mapping[str, Tensor], sampler: Sampler, step: int, steps: int) -> None:
        """Shift the logits in place after optimiser step `step` (from 0) of `steps`."""
        for i, (names, density) in enumerate(self.groups):
            own = self.samplers.get(names[0], sampler)
            seen = _sample([logits[n] for n in names])  # (n,)
            if math.isnan(self.first[i]):
                self.first[i] = min(1.0, max(density, _expected(own, seen, 0.0)))
            share = min(1.0, (step + 1) / max(1.0, RAMP * steps))
            goal = self.first[i] * (density / self.first[i]) ** share
            shift = _shift(own, seen, goal)
            for name in names:
                logits[name].add_(shift)

    def state_dict(self) -> dict[str, list[float]]:
        """Return the densities at the start."""
        return {"first": list(self.first)}

    def load_state_dict(self, state: Mapping[str, list[float]]) -> None:
        """Continue from `state_dict()`'s result."""
        self.first = [float(x) for x in state["first"]]


def _sample(parts: Sequence[Tensor]) -> Tensor:
    """Return the logits end to end, every n-th one where there are very many."""
    every = -(-sum(p.numel() for p in parts) // _MOST)
    return torch.cat([p.detach().reshape(-1)[::every] for p in parts])


def _expected(sampler: Sampler, logits: Tensor, shift: float) -> float:
    return float(sampler.keep_probability(logits + shift).mean(dtype=torch.float64))


def _shift(sampler: Sampler, logits: Tensor, goal: float) -> float:
    """Return the shift in -1..1 at which the expected density is `goal`, to a thousandth of it, or as near as it gets."""
    left, right = -_LARGEST, _LARGEST
    at, value = 0.0, _expected(sampler, logits, 0.0) - goal
    step = -math.copysign(0.05, value)
    for _ in range(12):
        if abs(value) <= 1e-3 * goal:
            break
        # The density rises with the shift: what is known on either side narrows the bracket.
        left, right = (left, at) if value > 0 else (at, right)
        trial = at + step
        if not left < trial < right:
            trial = (left + right) / 2
        there = _expected(sampler, logits, trial) - goal
        slope = (there - value) / (trial - at) if trial != at else 0.0
        at, value = trial, there
        step = -value / slope if slope > 0 else -math.copysign((right - left) / 2, value)
    return at
