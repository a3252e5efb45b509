"""Masked weights that are made layer by layer, and again in the backward pass, from the state of their noise's generator.

A step then holds neither K copies of the weights, nor one, nor their noise: each is made where the network reads it, which draws the same
numbers again as often as it is read (`modhook.network.remade`), and its gradient goes on to its logits at once. Samples run one after
another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from modhook.network.guard import memory_of
from modhook.network.remade import Recipe
from modhook.plugin.interfaces import Sampler

ROUTE = "layers"


class Layers:
    """How samplers draw for one stage where nothing of a weight's size is kept.

    Args:
        samplers: of each parameter. weights: (*shape) each. logits: (*shape) each.

    Attributes:
        refused: why weights are made all at once; "" if they are not, or that is not known yet.
    """

    def __init__(self, samplers: Mapping[str, Sampler], weights: Mapping[str, Tensor], logits: Mapping[str, Tensor]) -> None:
        self._samplers = samplers
        self._kinds = {n: (id(s), weights[n].dtype, logits[n].dtype, logits[n].device) for n, s in samplers.items() if n in weights}
        self._least: dict[Any, str] = {}
        for name in sorted(self._kinds, key=lambda n: logits[n].numel(), reverse=True):
            self._least[self._kinds[name]] = name
        self._keeps: dict[Any, bool] = {}
        self.refused = ""

    def look(self, weights: Mapping[str, Tensor], logits: Mapping[str, Tensor]) -> str:
        """Look at every sampler on its smallest parameter: what it keeps for the way back; return what is in the way, or ""."""
        for kind, name in self._least.items():
            state, sampler = torch.Generator(logits[name].device).get_state(), self._samplers[name]
            weight, logit = weights[name].detach(), logits[name].detach()
            given = {memory_of(t) for t in (weight, logit)} - {-1}
            kept: set[int] = set()
            with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(partial(_seen, kept), lambda t: t):
                one = sampler.apply(weight, logit.requires_grad_(), [_generator(state, logit)])
            other = sampler.apply(weight, logit, [_generator(state, logit)])
            if not torch.equal(one, other):
                return f"{type(sampler).__name__} draws other numbers from the same generators"
            self._keeps[kind] = bool(kept - given)
        return ""

    def draw(self, name: str, weight: Tensor, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Let the generator draw a parameter's noise, and return its state before: `masked` takes it."""
        state = generator.get_state()
        self._samplers[name].skip(weight, logits, [generator])
        return state

    def masked(self, name: str, weight: Tensor, logits: Tensor, state: Tensor) -> Tensor:
        """Return a parameter under the mask that is drawn from a state: (1, *shape); nothing but weight and logits is kept."""
        sampler = self._samplers[name]
        if not self._keeps.get(self._kinds[name], True):
            return sampler.apply(weight, logits, [_generator(state, logits)])
        result: Tensor = _Redrawn.apply(weight, logits, sampler, state)
        return result


def recipe(make: Callable[[Callable[[Recipe], Tensor]], Tensor], like: Tensor) -> Recipe:
    """Return how a parameter of one sample is made, of what `make` gives as (1, *shape)."""
    return Recipe(lambda again: make(again)[0], like)


def _seen(kept: set[int], tensor: Tensor) -> Tensor:
    kept.add(memory_of(tensor))
    return tensor


def _generator(state: Tensor, like: Tensor) -> torch.Generator:
    generator = torch.Generator(like.device)
    generator.set_state(state)
    return generator


class _Redrawn(torch.autograd.Function):
    """What a sampler makes, drawn and made again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, logits: Tensor, sampler: Sampler, state: Tensor) -> Tensor:
        ctx.sampler, ctx.state = sampler, state
        ctx.save_for_backward(weight, logits)
        return sampler.apply(weight, logits, [_generator(state, logits)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        needs = ctx.needs_input_grad[:2]
        inputs = [t.detach().requires_grad_(need) for t, need in zip(ctx.saved_tensors, needs, strict=True)]
        with torch.enable_grad():
            made = ctx.sampler.apply(*inputs, [_generator(ctx.state, inputs[1])])
        wanted = [t for t in inputs if t.requires_grad]
        found = iter(torch.autograd.grad(made, wanted, grad, allow_unused=True))
        to_weight, to_logits = (next(found) if need else None for need in needs)
        return to_weight, to_logits, None, None
