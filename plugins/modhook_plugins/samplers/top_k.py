"""Edge-popup (Ramanujan et al. 2020, "What's Hidden in a Randomly Weighted Neural Network?", section 3).

Every tensor keeps the weights with the largest scores, a fixed share of each; forward uses that mask, and the gradient goes
straight through to the scores of all weights, kept or not: dL/ds = dL/d(w m) w. There is no noise and no penalty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import attrs
import torch
from annotated_types import Gt, Le
from torch import Tensor

from modhook import Sampler
from modhook.noise.workspace import take

_LARGE, _SEEN = 1 << 16, 1 << 14  # numbers of which a sample is looked at first, and how many of them

@attrs.frozen
class TopKOptions:
    """Options of edge-popup."""

    density: Annotated[float, Gt(0), Le(1)] | None = None
    """The share of every tensor that is kept; by default that which the mask stage is given, or a half (as in the paper)."""


class TopK(Sampler):
    """The largest scores of each tensor, at a given density, with a straight-through gradient."""

    Options = TopKOptions
    holds_density = True

    def __init__(self, options: TopKOptions | None = None) -> None:
        super().__init__(options)
        self.density = self.options.density or 0.5

    def aim(self, density: float) -> None:
        """Keep this share, unless the options say another."""
        if self.options.density is None:
            self.density = density

    def start(self, weight: Tensor, generator: torch.Generator) -> Tensor:
        """Return random scores, as in the paper: uniform, with deviation 1 / sqrt(inputs of a unit)."""
        inputs = weight[0].numel() if weight.dim() > 1 else weight.numel()
        scores = torch.rand(weight.shape, generator=generator, dtype=torch.float64, device="cpu")
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        deviation: float = (3 / max(1, inputs)) ** 0.5
        return ((2 * scores - 1) * deviation).to(weight.device, dtype)

    def apply(self, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Return `weight` under the mask of the largest scores, once per generator: (K, *weight.shape)."""
        masked: Tensor = _StraightThrough.apply(weight, logits, self.deterministic(logits))
        return masked.expand(len(generators), *weight.shape)

    def deterministic(self, logits: Tensor) -> Tensor:
        """Return the mask of the round(density n) largest of n scores; of equal ones, the first."""
        flat = logits.detach().reshape(-1)
        count = round(self.density * flat.numel())
        if count == 0 or count == flat.numel():
            return torch.full_like(logits, count > 0, dtype=torch.bool)
        if flat.device.type != "cpu":
            return _unasked(flat, count).view(logits.shape)
        return _first_largest(flat, count).view(logits.shape)

    def keep_probability(self, logits: Tensor) -> Tensor:
        """Return the mask, as 0 and 1."""
        return self.deterministic(logits).to(logits.dtype)

    def penalty(self, logits: Tensor) -> Tensor:
        """Return zeros: the density is given."""
        return torch.zeros_like(logits)

    def penalty_slope(self, logits: Tensor) -> float:
        """Return 0."""
        return 0.0


def _unasked(flat: Tensor, count: int) -> Tensor:
    """Return the mask of the `count` largest numbers of a tensor (n,), 0 < count < n, without a wait for a GPU.

    By sorting: torch has no `kthvalue` for GPUs that repeats itself.
    """
    least = flat.sort(descending=True).values[count - 1]
    more, equal = flat > least, flat == least
    return more | (equal & (equal.cumsum(0) <= count - more.sum()))


def _first_largest(flat: Tensor, count: int) -> Tensor:
    """Return the mask of the `count` largest numbers of a tensor (n,) on the CPU, 0 < count < n; of equal ones, the first.

    In a large one the least of them is looked for between two numbers that a sample says it lies between, which is many times as
    fast; where the sample was wrong, everywhere.
    """
    n = flat.numel()
    if n > _LARGE and flat.dtype in (torch.float32, torch.float64):
        from modhook_plugins.samplers.top_k_kernels import largest

        share = count / n
        seen = flat[:: n // _SEEN].sort(descending=True).values  # (m,), m about _SEEN
        at, margin = share * len(seen), 5 * (len(seen) * share * (1 - share)) ** 0.5 + 5
        high, low = seen[max(0, int(at - margin))], seen[min(len(seen) - 1, int(at + margin))]
        found = largest(flat.contiguous().numpy(), count, low.numpy()[()], high.numpy()[()], torch.get_num_threads())
        if found is not None:
            return torch.from_numpy(found)
    least = flat.kthvalue(n - count + 1).values
    mask = flat >= least
    if int(mask.count_nonzero()) != count:  # several are equal to the least one that is kept
        mask = flat > least
        equal = (flat == least).nonzero().view(-1)
        mask[equal[: count - int(mask.count_nonzero())]] = True
    return mask


class _StraightThrough(torch.autograd.Function):
    """weight * mask forward; backward gives every score the gradient of its weight's mask, w g."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(weight, mask)
        ctx.dtype = logits.dtype
        return torch.mul(weight, mask, out=take(weight.shape, weight.dtype, weight.device))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        weight, mask = ctx.saved_tensors
        to_weight = grad * mask if ctx.needs_input_grad[0] else None
        return to_weight, (grad * weight).to(ctx.dtype), None
