"""Weights under sampled units: one number per unit and sample, spread over the rows, columns and slices that units own.

A unit's gate, 0 or 1 (or between, as the sampler has it), is drawn as a weight of 1 would be under the unit's logit. A weight w under a
sample is w times the gates of its units. Where zero columns alone take a unit out of the network, only these are multiplied while masks
are learned: the network computes the same, the gradient reaches a gate on one path, and other weights need no copy per sample. With `off`
every weight of a unit becomes another one, so that all of them are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from modhook.noise.workspace import take
from modhook.plugin.interfaces import Sampler
from modhook.unit.group import Group, Part
from modhook.unit.weights import on_weights


class Gates:
    """The units of a fit, and what they multiply.

    Args:
        groups: the units. parameters: the network's weights by first name: (*shape). everything: whether all weights of a unit are
            multiplied, or only its gates.

    Attributes:
        factors: {parameter: the parts that multiply it, with the group of each}.
    """

    def __init__(self, groups: Sequence[Group], parameters: Mapping[str, Tensor], *, everything: bool) -> None:
        self.groups = {group.name: group for group in groups}
        self.factors: dict[str, list[tuple[str, Part]]] = {}
        self._ones: dict[str, Tensor] = {}
        for group in groups:
            parts = group.parts if everything else group.gates
            first = parameters[parts[0].parameter]
            self._ones[group.name] = torch.ones(len(group), dtype=_wide(first), device=first.device)
            for part in parts:
                owner = part.owner.to(parameters[part.parameter].device)
                own = Part(part.parameter, owner, part.pool, part.gate)
                self.factors.setdefault(part.parameter, []).append((group.name, own))

    def drawn(
        self, logits: Mapping[str, Tensor], samplers: Mapping[str, Sampler], generators: Sequence[torch.Generator]
    ) -> dict[str, Tensor]:
        """Return a gate per unit and sample, {group: (K, n)}, drawn in the order of the groups."""
        return {n: samplers[n].apply(one, logits[n], generators) for n, one in self._ones.items()}

    def gate(self, group: str, kept: Tensor) -> Tensor:
        """Return a mask of units as gates: (n,) of zeros and ones."""
        return self._ones[group] * kept

    def under(self, name: str, weight: Tensor, gates: Mapping[str, Tensor], samples: int) -> Tensor:
        """Return a parameter under gates: (K, *shape), of a weight that is the same for all samples, (*shape), or has K values."""
        shape = weight.shape if weight.dim() == self.factors[name][0][1].owner.dim() else weight.shape[1:]
        spread = [part.spread(gates[group].to(weight.dtype)) for group, part in self.factors[name]]  # (K, *1 or size)
        result: Tensor = _Product.apply(weight, shape, samples, *spread)
        return result

    def on(self, masks: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return which weights are kept, {parameter: (*shape)}, under masks of the units and of parameters."""
        return on_weights(masks, self.groups, parameters)


def _wide(weight: Tensor) -> torch.dtype:
    return torch.float64 if weight.dtype == torch.float64 else torch.float32


class _Product(torch.autograd.Function):
    """weight times factors, (K, *shape); nothing of that size is kept for the way back but the result of the sampler, if there is one."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, shape: Sequence[int], samples: int, *factors: Tensor) -> Tensor:
        out = take((samples, *shape), weight.dtype, weight.device)
        torch.mul(weight, factors[0], out=out)
        for factor in factors[1:]:
            out.mul_(factor)
        ctx.save_for_backward(weight, *factors)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        weight, *factors = ctx.saved_tensors
        needs = ctx.needs_input_grad
        to_weight = None
        if needs[0]:
            to_weight = grad * prod(factors[1:], start=factors[0])
            to_weight = to_weight if weight.dim() == grad.dim() else to_weight.sum(0)
        found: list[Tensor | None] = [None] * len(factors)
        if any(needs[3:]):
            product = torch.mul(grad, weight, out=take(grad.shape, grad.dtype, grad.device))  # (K, *shape)
            for i, factor in enumerate(factors):
                if needs[3 + i]:
                    found[i] = _folded(product, factor, [f for j, f in enumerate(factors) if j != i])
        return to_weight, None, None, *found


def _folded(product: Tensor, factor: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Return the sum of a product times the other factors over the dimensions that a factor does not have."""
    if len(others) == 1 and product.dim() == 3:  # rows and columns of a matrix: no copy of it
        (other,) = others
        rows, columns = (len(product), product.shape[1], 1), (len(product), 1, product.shape[2])
        if (factor.shape, other.shape) == (rows, columns):
            return torch.bmm(product, other.mT)
        if (factor.shape, other.shape) == (columns, rows):
            return torch.bmm(other.mT, product)
    for other in others:
        product = product * other
    dims = [d for d in range(1, product.dim()) if factor.shape[d] == 1 and product.shape[d] != 1]
    return product.sum(dims, keepdim=True) if dims else product
