"""The paper's mask sampler (section 2): Gumbel-sigmoid samples, hard forward, straight-through gradient.

With logistic noise g = log(u / (1 - u)), u uniform, the soft sample is s = sigmoid((l + g) / tau) and the mask is
1[s > 0.5]. Writing p = sigmoid(l) and q = 1 - p, that is 1[u > q], and at tau = 1

    s = p u / (p u + q (1 - u)),        ds/dl = s (1 - s),

so that one uniform number per weight and sample is enough, and neither log nor exp is taken per sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import attrs
import torch
from annotated_types import Gt
from torch import Tensor
from torch.autograd.function import once_differentiable

from modhook import Sampler, UserError
from modhook.noise.noise import counted, flat, keys, skipped, uniform
from modhook.noise.workspace import take


@attrs.frozen
class GumbelOptions:
    """Options of the Gumbel-sigmoid sampler."""

    temperature: Annotated[float, Gt(0)] = 1.0
    penalty: Literal["logits", "l0"] = "logits"
    """What a weight costs: its logit (the paper's), or the probability that it is kept (the expected number of kept weights)."""
    kernel: Literal["usual", "triton"] = "usual"
    """What draws masks. "triton": on a GPU, one fused kernel per pass, without stored noise, float32 logits; the same law. On an
    H200 a step with it took 0.87 to 1.33 of a usual one, by network (docs/cuda.md), and so it is not the default."""


class Gumbel(Sampler):
    """Gumbel-sigmoid with a straight-through gradient; temperature 1 in the paper."""

    Options = GumbelOptions

    def apply(self, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Return `weight` under one sampled mask per generator: (K, *weight.shape), in `weight`'s dtype."""
        result: Tensor
        if self.options.kernel == "triton":
            kernels = _fused(weight, logits)
            result = _Fused.apply(weight, logits, kernels, kernels.streams(generators, weight.device), self.options.temperature)
            return result
        if counted(logits) and counted(weight) and self.options.temperature == 1:
            result = _Counted.apply(weight, logits, generators)
            return result
        noise = uniform(logits, generators)  # (K, *shape)
        result = _StraightThrough.apply(weight, logits, noise, self.options.temperature)
        return result

    def skip(self, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator]) -> None:
        """Draw the noise of one `apply`."""
        if self.options.kernel == "triton":
            _fused(weight, logits).streams(generators, weight.device)
        else:
            skipped(logits, generators)

    def penalty(self, logits: Tensor) -> Tensor:
        """Return the logits, or the probabilities that weights are kept: P(s > 1/2) = sigmoid(l) at every temperature."""
        return logits if self.options.penalty == "logits" else logits.sigmoid()

    def penalty_slope(self, logits: Tensor) -> Tensor | float:
        """Return 1, or p (1 - p)."""
        if self.options.penalty == "logits":
            return 1.0
        p = logits.sigmoid()
        return p.sub_(p * p)


def _fused(weight: Tensor, logits: Tensor) -> Any:
    """Return the kernels for a GPU. Raises `UserError` where they cannot be used."""
    try:
        from modhook.noise import fused
    except ImportError:
        raise UserError(
            'the gumbel option kernel = "triton" needs the package triton: pip install "modhook[triton]"; or leave kernel away.'
        ) from None
    if weight.device.type != "cuda" and not (fused.INTERPRETED and weight.device.type == "cpu"):
        raise UserError(
            f'the gumbel option kernel = "triton" is for GPUs, and these weights are on {weight.device.type}; give the device "cuda", '
            "or leave kernel away."
        )
    if logits.dtype != torch.float32 or weight.dtype == torch.float64:
        raise UserError(
            'the gumbel option kernel = "triton" draws for float32 logits, which weights of float64 do not have; make the network '
            "float32, or leave kernel away."
        )
    return fused


class _Fused(torch.autograd.Function):
    """The same in two kernels on a GPU (`modhook.noise.fused`): noise is drawn again, nothing of size K is saved."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, logits: Tensor, kernels: Any, streams: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(weight, logits)
        ctx.kernels, ctx.streams, ctx.temperature = kernels, streams, temperature
        found: Tensor = kernels.masked(streams, weight, logits)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        weight, logits = ctx.saved_tensors
        wanted = {"of_weight": ctx.needs_input_grad[0], "of_logits": ctx.needs_input_grad[1]}
        to_weight, to_logits = ctx.kernels.gradients(ctx.streams, weight, logits, grad, ctx.temperature, **wanted)
        return to_weight, to_logits, None, None, None


class _StraightThrough(torch.autograd.Function):
    """hard(l, u) * W forward; backward gives l the gradient of the soft sample. Saves u, not the soft mask."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
        ctx.temperature = temperature
        ctx.save_for_backward(weight, logits, noise)
        out = torch.gt(noise, torch.sigmoid(-logits), out=torch.empty_like(noise))  # (K, *shape), u > q
        if out.dtype != weight.dtype:
            out = out.to(weight.dtype)
        return out.mul_(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        weight, logits, u = ctx.saved_tensors
        tau = ctx.temperature
        if tau == 1:
            p, q = torch.sigmoid(logits), torch.sigmoid(-logits)  # (*shape)
            a = p * u  # (K, *shape)
            b = torch.sub(1, u).mul_(q)
            total = (a + b).clamp_min_(torch.finfo(u.dtype).tiny)  # 0 only where u and q underflow
            slope = a.mul_(b).div_(total).div_(total)  # s (1 - s)
        else:
            soft = torch.logit(u, eps=torch.finfo(u.dtype).eps).add_(logits).div_(tau).sigmoid_()
            slope = soft * (1 - soft) / tau
        to_logits = slope.mul_(grad.to(slope.dtype)).sum(0).mul_(weight.to(slope.dtype)).to(logits.dtype)
        to_weight = (grad * (u > torch.sigmoid(-logits))).sum(0) if ctx.needs_input_grad[0] else None
        return to_weight, to_logits, None, None


class _Counted(torch.autograd.Function):
    """The same for float32 on CPU at tau = 1, where noise can be drawn again: nothing of size K is saved."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        from modhook.noise.kernels import run, sample

        ctx.save_for_backward(weight, logits)
        ctx.keys = drawn = keys(generators)  # (K, 2)
        w, ell = flat(weight), flat(logits)  # (N,)
        out = take((len(drawn), *weight.shape), weight.dtype, weight.device)
        rows = out.view(len(drawn), -1).numpy()  # (K, N)
        run(sample, drawn, w, ell, rows, threads=torch.get_num_threads())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        from modhook.noise.kernels import pull_back, pull_back_both, pull_back_weights, run

        weight, logits = ctx.saved_tensors
        drawn, threads, to_weight, to_logits = ctx.keys, torch.get_num_threads(), None, None
        w, ell = flat(weight), flat(logits)  # (N,)
        rows = grad.detach().reshape(len(drawn), -1).contiguous().numpy()  # (K, N)
        if ctx.needs_input_grad[0]:
            to_weight = take(weight.shape, weight.dtype, weight.device)
        if ctx.needs_input_grad[1]:
            to_logits = take(logits.shape, logits.dtype, logits.device)
        if to_weight is not None and to_logits is not None:
            both = to_weight.view(-1).numpy(), to_logits.view(-1).numpy()
            run(pull_back_both, drawn, w, ell, rows, *both, threads=threads)
        elif to_weight is not None:
            run(pull_back_weights, drawn, ell, rows, to_weight.view(-1).numpy(), threads=threads)
        elif to_logits is not None:
            run(pull_back, drawn, w, ell, rows, to_logits.view(-1).numpy(), threads=threads)
        return to_weight, to_logits, None
