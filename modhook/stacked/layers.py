"""The check of the loop under weights that are made layer by layer: sample by sample, a gradient compared as soon as it is there.

At its peak it holds beside the network one plain copy, the values of both, and the gradients of one sample. Of the route itself there is
one layer at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from modhook.errors import StackError
from modhook.network.guard import same_bits
from modhook.network.remade import Again, Recipe, Recipes
from modhook.network.twin import twin
from modhook.stacked import canary
from modhook.stacked.blame import from_their_code, users_own
from modhook.stacked.near import Alone, Numbers
from modhook.stacked.routes import Function, Job, own_tensors, run_loop
from modhook.stacked.settle import CANARY_SAMPLES, ROUNDING, Choice, few, in_double, refusal
from modhook.stacked.trees import Tree, flatten
from modhook.stacked.watch import Written

REASON = "sample by sample, masked weights made layer by layer, and again in the backward pass"


def settle_layers(model: nn.Module, function: Function, names: Sequence[str], arguments: Tree) -> Choice:
    """Run the canary on two samples of these arguments, (K, ...) or shared, one after the other.

    Raises:
        StackError: this route does not reproduce a plain run.
        Exception: whatever the user's own code raises in a plain run.
    """
    written: frozenset[str] = frozenset()
    sparse, worst = False, 0.0
    numbers = Numbers(model, names, CANARY_SAMPLES)
    for k in range(CANARY_SAMPLES):
        tensors = [t.tensor.detach() if t.shared else few(t.tensor.detach())[k : k + 1] for t in arguments.leaves]
        check = _Check(model, function, arguments.with_tensors(tensors), Alone(numbers, k))
        found, expected = canary.quietly(model, check.compared)
        if 0 < found.worst < ROUNDING and found.text and check.agrees_in_double():
            found = canary.Finding(worst=found.worst)
        if found.error and users_own(found.error):
            raise from_their_code(found.error)  # with a note of the sample
        if found.text:
            raise StackError(refusal(model, found.text))
        written, sparse, worst = written | expected.written, sparse or expected.sparse, max(worst, found.worst)
    return Choice("loop", REASON, written, error=worst, sparse=sparse)


class _InDouble(Alone):
    """The same numbers in float64."""

    def __init__(self, near: Alone) -> None:
        super().__init__(near.numbers, near.k)
        self.own = {name: in_double(value) for name, value in near.own.items()}

    def __getitem__(self, name: str) -> Tensor:
        return in_double(super().__getitem__(name))

    def same(self, name: str, k: int, tensor: Tensor) -> bool:
        """Return whether a tensor (*shape) still is the sample of a parameter, bit for bit."""
        return same_bits(tensor, self[name][0])


@attrs.frozen
class _Check:
    """The comparison for one sample."""

    model: nn.Module
    function: Function
    arguments: Tree
    sets: Alone

    def compared(self) -> tuple[canary.Finding, canary.Reference]:
        """Return what the comparison gave, and what a plain copy computed, less its gradients."""
        expected = canary.reference(self.model, self.function, self.arguments, self.sets, 1)
        rest = _Rest(expected.gradients.pop())
        own = own_tensors(self.model, expected.written, self.sets)
        recipes = {n: Recipes([rest.recipe(n, self.sets)]) for n in self.sets}
        arguments = self.arguments.with_tensors([leaf.tensor.clone() for leaf in self.arguments.leaves])
        job = Job(self.model, self.function, recipes, arguments, 1, expected.written, own)
        try:
            with torch.enable_grad():
                outputs = [leaf.tensor for leaf in flatten(run_loop(job, canary.NoDropout)).leaves]
                canary.gradients_of(outputs, {"": rest.anchor}, stacked=True)
        except Written as error:
            return canary.Finding(f"it writes into its weights ({error})"), expected
        except Exception as error:
            return canary.Finding(canary.described(error), error), expected
        same = canary.compare_outputs(outputs, expected)
        return (same if same.text else rest.finding(same.worst)), expected

    def agrees_in_double(self) -> bool:
        """Return whether it is exact in float64, so that what was found is float32's rounding."""
        arguments = self.arguments.with_tensors([in_double(leaf.tensor) for leaf in self.arguments.leaves])
        try:
            wide = attrs.evolve(self, model=twin(self.model).double(), arguments=arguments, sets=_InDouble(self.sets))
            found, _ = canary.quietly(self.model, wide.compared)
        except Exception:  # a model or loss that insists on float32 gets no second look
            return False
        return not found.text


class _Rest:
    """The gradients that a plain copy computed, {name: (*shape)}, less what has come of a route's, part by part."""

    def __init__(self, expected: dict[str, Tensor]) -> None:
        self.anchor = torch.zeros((), requires_grad=True, device="cpu")
        self._rest = expected
        self._scales = {n: float(canary.largest(g)) if g.numel() else 0.0 for n, g in expected.items()}
        self._odd = {n: (g, torch.zeros_like(g)) for n, g in expected.items() if not isfinite(self._scales[n])}

    def recipe(self, name: str, sets: Alone) -> Recipe:
        """Return how a weight is made whose gradients come here."""

        def make(again: Again) -> Tensor:
            value: Tensor = _Fold.apply(self.anchor, sets[name][0], lambda grad: self._take(name, grad))
            return value

        return Recipe(make, sets.own[name])

    def finding(self, worst: float) -> canary.Finding:
        """Return what is different now that all have come; `worst` is known already."""
        largest = max((s for n, s in self._scales.items() if n not in self._odd), default=0.0)
        for name, rest in self._rest.items():
            floor = 1e-3 * largest
            if name in self._odd:
                expected, come = self._odd[name]
                found = canary.difference(come, expected, floor=floor)
            else:
                gap = float(canary.largest(rest)) if rest.numel() else 0.0
                found = gap / max(self._scales[name], floor, 1e-6) if gap == gap else float("inf")
            worst = max(worst, found)
            if found > canary.tolerance(rest.dtype):
                return canary.Finding(f"the gradient of {name!r} differs from a plain run by {found:.1e}", worst=found)
        return canary.Finding(worst=worst)

    def _take(self, name: str, grad: Tensor) -> None:
        if name in self._odd:
            self._odd[name][1].add_(grad)
        elif name in self._rest:
            self._rest[name] = self._rest[name] - grad  # not in place: two weights may have one gradient


class _Fold(torch.autograd.Function):
    """A weight whose gradient goes to a function and no further."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, value: Tensor, take: Any) -> Tensor:
        ctx.take = take
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None]:
        ctx.take(grad)
        return None, None, None
