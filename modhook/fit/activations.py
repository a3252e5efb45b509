"""Units that are learned as gates on activations: one plain pass over the batch for all samples, and no copy of a weight.

A weight under gates is w times a factor per column or row, and a layer is linear in its weight. So the group of sample k runs with what
its layers take, or give, multiplied by the gates of sample k: the same numbers as with K masked copies of the weights, and a gradient
that is a sum over activations (`modhook.stacked.rules.gated`). Where the network does anything else with such a weight, there is more to
multiply than gates (`off`, masks of single weights, weights that learn), or the check on the first batch finds a difference, the
weights are multiplied. That is decided by what the network is and does, never by the clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from modhook.fit.complement import asks
from modhook.fit.gates import Gates
from modhook.fit.plainly import mean_loss
from modhook.network.guard import Guard
from modhook.network.scope import refresh
from modhook.stacked import Stacked
from modhook.stacked.admitted import admitted
from modhook.stacked.rules.gated import gated
from modhook.unit.group import Part

ROUTE = "activations"


class Activations:
    """The network under gates on its activations.

    Args:
        model: the network. loss: the user's, which may ask for the complement. gates: the units.
        weights: those that masks are about, without any: {first name: (*shape)}. fixed: as fixed masks leave them, where there are such.

    Attributes:
        stacked: runs `function(net, (batch, factors))` for all samples; None until it was admitted.
        refused: why the weights are multiplied; "" if they are not, or that is not known yet.
    """

    def __init__(
        self, model: nn.Module, loss: Any, gates: Gates, weights: Mapping[str, Tensor], fixed: Mapping[str, Tensor]
    ) -> None:
        self.model, self.refused = model, ""
        self.stacked: Stacked | None = None
        self._loss, self._gates, self._weights, self._fixed = loss, gates, weights, fixed
        self._asks, self._bare = asks(loss), False
        self._used: set[str] = set()
        masked = {id(parameter): n for n, parameter in model.named_parameters() if n in {**gates.factors, **fixed}}
        self._places: dict[str, list[tuple[str, str]]] = {}
        for path, module in model.named_modules():
            for key, parameter in module._parameters.items():
                if id(parameter) in masked:
                    self._places.setdefault(masked[id(parameter)], []).append((path, key))
        self._labels = {name: [_label(*part) for part in parts] for name, parts in gates.factors.items()}

    def admit(self, groups: Any, gates: Mapping[str, Tensor], guard: Guard | None) -> bool:
        """Return whether this is the route of a fit: looked at on its first batch, cut into groups, with gates (K, n)."""
        try:
            self.stacked, self.refused = admitted(
                self.model, self.function, self.spread, self._multiplied, groups, gates, guard
            )
        except Exception as error:  # the other route says what is wrong, or does what this one cannot
            self.stacked, self.refused = None, f"{type(error).__name__} in the check"
        return self.stacked is not None and self.holds()

    def __call__(self, groups: Any, gates: Mapping[str, Tensor]) -> Any:
        """Return the losses of groups under gates (K, n): (K,)."""
        assert self.stacked is not None
        return self.stacked({}, (groups, self.spread(gates)))

    def holds(self) -> bool:
        """Return whether no weight had to be multiplied up to now."""
        if self._used:
            self.refused = f"{min(self._used)!r} is used otherwise than by a layer that is linear in it"
        return not self._used

    def spread(self, gates: Mapping[str, Tensor]) -> Any:
        """Return what the function takes of gates, (K, n) or (n,): the factors of each weight, and for the complement."""
        found = self._factors(gates)
        return (found, self._factors({n: 1 - g for n, g in gates.items()})) if self._asks else (found,)

    def function(self, net: Any, told: Any) -> Tensor:
        """Return the loss of one group, (batch, factors)."""
        batch, factors = told
        with self._under(net, factors[0]):
            if not self._asks:
                return self._loss(net, batch)  # type: ignore[no-any-return]
            complement: Callable[[], AbstractContextManager[None]] = lambda: self._under(net, factors[1])  # noqa: E731
            return self._loss(net, batch, complement)  # type: ignore[no-any-return]

    def resume(self, samples: int, guard: Guard | None, routes: Mapping[str, Any]) -> Stacked:
        """Return what runs a fit that goes on, whose route was settled before."""
        self.stacked = Stacked(self.model, self.function, (), samples, "auto", guard)
        self.stacked.load_state_dict(routes)
        return self.stacked

    def measured(
        self, groups: Any, kept: Mapping[str, Tensor], samples: int, chunk: int, *, whole: bool
    ) -> dict[str, float]:
        """Return the mean loss of groups under one mask of the units, (n,), and without any mask where `whole`."""

        def loss(kept: Mapping[str, Tensor]) -> float:
            gates = {n: self._gates.gate(n, m).expand(samples, -1) for n, m in kept.items()}  # (K, n)
            return mean_loss(self.stacked, {}, (groups, self.spread(gates)), samples, chunk)

        found = {"mask_loss": loss(kept)}
        if whole:
            self._bare = True
            try:
                found["unmasked_loss"] = loss({n: torch.ones_like(m) for n, m in kept.items()})
            finally:
                self._bare = False
        return found

    def report(self) -> dict[str, Any]:
        """Return how the samples run: as `Stacked.report`."""
        assert self.stacked is not None
        reason = "gates on activations agree with masks of weights; one vectorised pass for all samples, without copies of weights"
        return {**self.stacked.report(), "route": ROUTE, "reason": reason}

    # -- inside

    def _factors(self, gates: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
        """Return the factors of each weight, (..., *1 or size), of gates (..., n)."""
        made: dict[str, Tensor] = {}
        found: dict[str, list[Tensor]] = {}
        for name, parts in self._gates.factors.items():
            for label, (group, part) in zip(self._labels[name], parts, strict=True):
                lead = gates[group].shape[:-1]
                if label not in made:  # rows of several weights are looked up once
                    made[label] = part.spread(gates[group])
                found.setdefault(name, []).append(made[label].reshape(*lead, *part.owner.shape))
        return found

    @contextmanager
    def _under(self, net: nn.Module, factors: Mapping[str, Sequence[Tensor]]) -> Iterator[None]:
        """Within it the network has its weights under factors in their places, and those that fixed masks leave."""
        before: list[tuple[dict[str, Any], str, Any]] = []
        modules: list[nn.Module] = []
        try:
            for name, places in self._places.items():
                new: Tensor | None = None
                for path, key in places:
                    module = net.get_submodule(path)
                    slots: dict[str, Any] = module._parameters
                    if new is None:
                        new = self._made(name, slots[key], factors.get(name, ()))
                    before.append((slots, key, slots[key]))
                    slots[key] = new
                    modules.append(module)
            _refresh(modules)
            yield
        finally:
            for slots, key, tensor in reversed(before):
                slots[key] = tensor
            _refresh(modules)

    def _multiplied(self, net: nn.Module, factors: Any) -> dict[str, Tensor]:
        """Return the weights of a network under factors of one sample."""
        now = dict(net.named_parameters())
        return {name: self._made(name, now[name], factors[0].get(name, ())) for name in self._places}

    def _made(self, name: str, now: Tensor, factors: Sequence[Tensor]) -> Tensor:
        plain = self._weights[name] if self._bare or name not in self._fixed else self._fixed[name]
        factors = [f.to(now.dtype) for f in factors]
        return gated(plain.to(now.dtype), list(zip(self._labels.get(name, ()), factors, strict=True)), name, self._used)


def _label(group: str, part: Part) -> str:
    """Return a text that is equal for parts that give every place along their dimensions the same unit."""
    owner = part.owner.reshape(-1).cpu()
    return f"{group} {part.pool} {hashlib.sha256(owner.numpy().tobytes()).hexdigest()}"


def _refresh(modules: Sequence[nn.Module]) -> None:
    for module in modules:
        if isinstance(module, nn.RNNBase):
            refresh(module)
