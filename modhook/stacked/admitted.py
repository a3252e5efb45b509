"""Whether a function that takes factors of weights as an argument may run in one vectorised pass over the weights' own memory.

It runs by that route and on plain deep copies whose weights are multiplied, under factors that are no whole numbers, so that neither
zeros nor ones hide anything: results and the gradients of all factors must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from modhook.errors import StackError
from modhook.network.guard import Guard, lent
from modhook.network.recurrent import with_gradients
from modhook.network.threads import using
from modhook.network.twin import twin
from modhook.stacked import canary
from modhook.stacked.routes import Around, Function, Job, own_tensors, run_vmap
from modhook.stacked.rules import stock_switches
from modhook.stacked.settle import CANARY_SAMPLES, ROUNDING, few, in_double
from modhook.stacked.stacked import Stacked
from modhook.stacked.trees import Tree, flatten

Spread = Callable[[Mapping[str, Tensor]], Any]
"""Makes what the function takes of factors by name, (K, n) or (n,): a tree of tensors."""


def admitted(
    model: nn.Module,
    function: Function,
    spread: Spread,
    multiplied: Callable[[nn.Module, Any], Mapping[str, Tensor]],
    groups: Any,
    factors: Mapping[str, Tensor],
    guard: Guard | None = None,
) -> tuple[Stacked | None, str]:
    """Return `function(net, (batch, spread(factors)))` for all samples at once, its route settled; or None, and why not.

    The function must compute the same where factors are stacked by vmap as where they are not, which is looked at.

    Args:
        multiplied: gives the weights of a network, by name, as they are under what `spread` makes of one sample's factors.
        groups: a cut batch, its tensors (K, ...). factors: those of K samples: (K, n) each. guard: as in `prepare`.
    """
    samples = len(next(iter(factors.values())))
    stacked = Stacked(model, function, (), samples, "auto", guard)
    try:
        choice = stacked.settle_on({}, flatten((((groups, spread(factors)),), {})))
    except StackError as error:
        return None, str(error)
    if choice.route != "vmap":
        return None, choice.reason
    batch = flatten(groups)
    batch = batch.with_tensors(
        [leaf.tensor.detach() if leaf.shared else few(leaf.tensor.detach()) for leaf in batch.leaves]
    )
    with using(model), lent(model):
        check = _Check(model, function, spread, multiplied, groups, batch, _perturbed(factors), choice.written)
        found = canary.quietly(model, check.compared)
        if found.text and 0 < found.worst < ROUNDING and check.agrees_in_double():
            found = canary.Finding(worst=found.worst)
        if not found.text and any(m.training for m in model.modules()) and canary.quietly(model, check.draws):
            return None, "the network draws random numbers in training mode"
    return (None, found.text) if found.text else (stacked, "")


@attrs.frozen
class _Check:
    """The comparison: two groups of a batch, and factors (2, n)."""

    model: nn.Module
    function: Function
    spread: Spread
    multiplied: Callable[[nn.Module, Any], Mapping[str, Tensor]]
    groups: Any
    batch: Tree
    factors: Mapping[str, Tensor]
    written: frozenset[str]

    def compared(self) -> canary.Finding:
        """Return what the comparison gave."""
        outputs, gradients = [], []
        for k in range(CANARY_SAMPLES):
            copy = twin(self.model).requires_grad_(False)
            own = {n: f[k].clone().requires_grad_() for n, f in self.factors.items()}
            factors = self.spread(own)
            with (
                torch.no_grad()
            ):  # in their memory, too, so that a weight that is read from elsewhere makes a difference
                weights = dict(copy.named_parameters())
                for name, value in self.multiplied(copy, factors).items():
                    weights[name].copy_(value)
            group = self.batch.rebuild([t.tensor if t.shared else t.tensor[k].clone() for t in self.batch.leaves])
            with torch.enable_grad(), canary.NoDropout(), with_gradients(copy), stock_switches():
                found = [leaf.tensor for leaf in flatten(self.function(copy, (group, factors))).leaves]
                gradients.append(canary.gradients_of(found, own))
            outputs.append([t.detach() for t in found])
        expected = canary.Reference(dict(self.factors), outputs, gradients, self.written)
        return canary.compare(self._route, self._job(), expected)

    def agrees_in_double(self) -> bool:
        """Return whether it is exact in float64, so that what was found is float32's rounding."""
        wide = {n: f.double() for n, f in self.factors.items()}
        batch = self.batch.with_tensors([in_double(leaf.tensor) for leaf in self.batch.leaves])
        try:
            check = attrs.evolve(self, model=twin(self.model).double(), batch=batch, factors=wide)
            found: canary.Finding = canary.quietly(self.model, check.compared)
        except Exception:  # a network or loss that insists on float32 gets no second look
            return False
        return not found.text

    def draws(self) -> bool:
        """Return whether the function draws random numbers."""
        before = _states()
        self._route(attrs.evolve(self._job(), parameters=self.factors), torch.enable_grad)
        return not all(torch.equal(a, b) for a, b in zip(before, _states(), strict=True))

    def _job(self) -> Job:
        own = own_tensors(self.model, self.written, ())
        return Job(self.model, self.function, {}, self.batch, CANARY_SAMPLES, self.written, own)

    def _route(self, job: Job, around: Around) -> Any:
        """Run all groups at once; the job's parameters are the factors, and its arguments the batch."""
        whole = flatten((((self.groups, self.spread(job.parameters)),), {}))
        batch = [leaf.tensor for leaf in job.arguments.leaves]
        new = [*batch, *(leaf.tensor for leaf in whole.leaves[len(batch) :])]
        return run_vmap(attrs.evolve(job, parameters={}, arguments=whole.with_tensors(new)), around)


def _perturbed(factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return factors between a half and three halves, the same in every process: (2, n) each."""
    generator = torch.Generator().manual_seed(0)
    return {
        n: (torch.rand(CANARY_SAMPLES, f.shape[1], generator=generator, device="cpu") + 0.5).to(f.device, f.dtype)
        for n, f in factors.items()
    }


def _states() -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ())]
