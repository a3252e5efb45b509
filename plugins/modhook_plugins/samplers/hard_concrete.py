"""Hard-concrete masks with an expected-L0 penalty (Louizos, Welling, Kingma 2018, "Learning Sparse Neural Networks through L0
Regularization", section 2.2).

With logistic noise g = log(u / (1 - u)), a logit l (there: log alpha) and temperature b the soft sample is s = sigmoid((l + g) / b),
stretched to z = min(1, max(0, s (zeta - gamma) + gamma)) (formulas 10 to 12): exactly 0 or 1 with probability above 0. The penalty
is the probability that a weight is not off, sigmoid(l - b log(-gamma / zeta)) (formula 12 there, the expected number of kept weights).

`binary = true` multiplies by 1[z > 1/2] and lets the gradient of z through, so that what is learned under is what is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import attrs
import torch
from annotated_types import Gt, Lt
from torch import Tensor
from torch.autograd.function import once_differentiable

from modhook import Sampler
from modhook.noise.noise import counted, flat, keys, skipped, uniform
from modhook.noise.workspace import take

FAST = 2 / 3
"""The temperature of the paper, for which there is compiled code."""


@attrs.frozen
class HardConcreteOptions:
    """Options of the hard-concrete sampler; the defaults are the paper's."""

    binary: bool = False
    """Multiply weights by 1[z > 1/2] instead of z."""
    temperature: Annotated[float, Gt(0)] = FAST
    gamma: Annotated[float, Lt(0)] = -0.1
    zeta: Annotated[float, Gt(1)] = 1.1


class HardConcrete(Sampler):
    """Stretched, clipped concrete masks; the penalty is the expected number of weights that are not off."""

    Options = HardConcreteOptions

    @property
    def _offset(self) -> float:
        """Return b log(-gamma / zeta)."""
        return float(self.options.temperature * math.log(-self.options.gamma / self.options.zeta))

    def apply(self, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Return `weight` under one sampled mask per generator: (K, *weight.shape), in `weight`'s dtype."""
        own = self.options
        result: Tensor
        if counted(logits) and counted(weight) and (own.temperature, own.gamma, own.zeta) == (FAST, -0.1, 1.1):
            result = _Counted.apply(weight, logits, generators, own.binary)
            return result
        u = uniform(logits, generators)  # (K, *shape)
        tiny = 2.0**-25 if u.dtype == torch.float32 else torch.finfo(u.dtype).tiny
        noise = torch.log(u.clamp_min(tiny)) - torch.log1p(-u)
        soft: Tensor = torch.sigmoid((logits + noise) / own.temperature)  # (K, *shape)
        z = (soft * (own.zeta - own.gamma) + own.gamma).clamp(0, 1)
        if own.binary:
            z = (z > 0.5).to(z.dtype) + z - z.detach()
        result = z.to(weight.dtype) * weight
        return result

    def skip(self, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator]) -> None:
        """Draw the noise of one `apply`."""
        skipped(logits, generators)

    def keep_probability(self, logits: Tensor) -> Tensor:
        """Return the probability that a weight is not off."""
        return torch.sigmoid(logits - self._offset)

    def penalty(self, logits: Tensor) -> Tensor:
        """Return the probability that each weight is not off."""
        return self.keep_probability(logits)

    def penalty_slope(self, logits: Tensor) -> Tensor:
        """Return p (1 - p)."""
        p = self.keep_probability(logits)
        return p.sub_(p * p)


class _Counted(torch.autograd.Function):
    """The same for float32 on CPU at the paper's temperature, where noise can be drawn again: nothing of size K is saved."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator], binary: bool
    ) -> Tensor:
        from modhook.noise.concrete import flag, sample_concrete
        from modhook.noise.kernels import run

        ctx.save_for_backward(weight, logits)
        ctx.keys, ctx.binary = keys(generators), flag(binary)  # (K, 2)
        out = take((len(ctx.keys), *weight.shape), weight.dtype, weight.device)
        rows = out.view(len(ctx.keys), -1).numpy()  # (K, N)
        run(sample_concrete, ctx.keys, flat(weight), flat(logits), ctx.binary, rows, threads=torch.get_num_threads())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        from modhook.noise.concrete import pull_back_concrete, pull_back_concrete_weights
        from modhook.noise.kernels import run

        weight, logits = ctx.saved_tensors
        drawn, threads, to_weight, to_logits = ctx.keys, torch.get_num_threads(), None, None
        rows = grad.detach().reshape(len(drawn), -1).contiguous().numpy()  # (K, N)
        if ctx.needs_input_grad[0]:
            to_weight = take(weight.shape, weight.dtype, weight.device)
            there = to_weight.view(-1).numpy()
            run(pull_back_concrete_weights, drawn, flat(logits), ctx.binary, rows, there, threads=threads)
        if ctx.needs_input_grad[1]:
            to_logits = take(logits.shape, logits.dtype, logits.device)
            there = to_logits.view(-1).numpy()
            run(pull_back_concrete, drawn, flat(weight), flat(logits), rows, there, threads=threads)
        return to_weight, to_logits, None, None
