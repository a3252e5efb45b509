"""The weights of a network under masks: those that are sampled, those that are fixed, and those that learn as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from modhook.fit.clipping import Clipping
from modhook.fit.gates import Gates
from modhook.fit.layers import Layers
from modhook.fit.off import plus
from modhook.masks import Masks
from modhook.noise.noise import generators
from modhook.plugin.contract import CarriedGradients
from modhook.plugin.interfaces import Sampler
from modhook.unit.group import Group

_FIRST = 2**62
"""A place in autograd's order before all that a step computes."""


class MaskedWeights:
    """The logits of masks, the weights that these are multiplied with, and the noise that they are drawn by.

    Arguments are those of `modhook.fit.engine.MaskTrainer`.
    """

    def __init__(
        self,
        model: nn.Module,
        logits: Mapping[str, Tensor],
        sampler: Sampler,
        *,
        samples: int,
        fixed: Masks | None,
        train_weights: Mapping[str, Tensor] | None,
        clip: float | None,
        clip_over: str,
        carried: CarriedGradients | None,
        seed: int,
        label: str,
        off: Mapping[str, Tensor] | None,
        samplers: Mapping[str, Sampler] | None,
        units: Sequence[Group],
    ) -> None:
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self.gates = Gates(units, parameters, everything=off is not None) if units else None
        masked = dict.fromkeys([*(n for n in logits if n in parameters), *(self.gates.factors if self.gates else ())])
        self.units = {g.name: g for g in units}
        """The units among the logits, by group: what `Masks(trainer.masks(), units=trainer.units)` takes."""
        self.model, self.sampler, self.samples = model, sampler, samples
        self.samplers = {n: (samplers or {}).get(n, sampler) for n in logits}
        """The sampler of each parameter: the same for all, unless they are to have different densities."""
        self.logits = {n: logit.clone().requires_grad_() for n, logit in logits.items()}
        self.trained = {n: m.to(parameters[n].device) for n, m in (train_weights or {}).items()}
        first = {id(p): n for n, p in reversed(list(parameters.items()))}
        self.fixed = {n: ~m.to(parameters[n].device) for n, m in (fixed._on(model) if fixed is not None else {}).items()}
        whole = {p: None for g in units for p in g.parameters}
        names = {n: first[id(parameters[n])] for n in {**masked, **whole, **self.trained, **self.fixed}}
        self.clipping = Clipping(model, {names[n] for n in self.trained}, clip, clip_over, carried)
        leaves = self.clipping.leaves
        self.weights = {n: leaves.get(names[n], parameters[n].detach()) for n in names}
        for name in self.trained:
            self.weights[name] = self.weights[name].clone().requires_grad_()
        self.off = off
        self.masked = tuple(masked)
        """The parameters that are another one under every sample."""
        self.changes = {n: self._change(n) for n in self.masked if off and not self.weights[n].requires_grad}
        self.constants = {
            n: self._masked(n, m).detach()
            for n, m in self.fixed.items()
            if n not in self.trained and names[n] not in leaves and n not in masked
        }
        others = {names[n] for n in {**masked, **self.trained, **self.fixed}}
        self.unmasked = {n: leaf for n, leaf in leaves.items() if n not in others}
        self.learned = [*self.logits.values(), *(self.weights[n] for n in self.trained)]
        self.generators = generators(seed, label, samples, next(iter(self.learned)).device)
        self.layers: Layers | None = None
        """How weights are masked layer by layer; None where all are masked at once, or none are."""

    def drawn(self, start: int, stop: int) -> dict[str, Tensor]:
        """Return the weights under newly drawn masks of samples `start` to `stop`, and those that are the same under each: (k, *shape)."""
        found = {n: self._sample(n, self.generators[start:stop]) for n in self.logits}
        return found | {n: c.expand(stop - start, *c.shape) for n, c in self.constant().items()}

    def constant(self) -> dict[str, Tensor]:
        """Return the weights that are the same under every sample but not the model's own.

        They are fixed masks, trained weights, and all others that clipping covers.
        """
        constants = {**self.constants, **self.unmasked}
        for name, mask in self.fixed.items():
            if name not in constants and name not in self.trained:
                constants[name] = self._masked(name, mask)
        for name in self.trained:
            if name in self.fixed:
                constants[name] = self._masked(name, self.fixed[name])
            elif name not in self.masked:
                constants[name] = self.weights[name]
        return constants if self.gates is None else {n: c for n, c in constants.items() if n not in self.masked}

    def masks(self) -> dict[str, Tensor]:
        """Return the deterministic masks of the learned logits."""
        return {n: self.samplers[n].deterministic(logit.detach()).cpu() for n, logit in self.logits.items()}

    # -- inside

    def _sample(self, name: str, drawn: Sequence[torch.Generator] | Tensor) -> Tensor:
        """Return one parameter under a sampled mask per generator, or that of one generator's state: (k, *shape)."""
        logit, weight = self.logits[name], self.weights[name]
        if self.off is not None:
            weight = self.changes[name] if name in self.changes else self._change(name)
        if isinstance(drawn, Tensor):
            assert self.layers is not None
            sampled = self.layers.masked(name, weight, logit, drawn)
        else:
            sampled = self.samplers[name].apply(weight, logit, drawn)
        return at_once(sampled if self.off is None else plus(at_once(sampled), self.off[name]))

    def _gated(self, name: str, gates: Mapping[str, Tensor], own: Tensor | None, samples: int) -> Tensor:
        """Return one parameter under gates of units, (k, *shape); `own`: it has a sampled mask of its own, too."""
        assert self.gates is not None
        if name not in self.gates.factors:
            assert own is not None
            return own
        if self.off is None:
            return self.gates.under(name, self._weight(name) if own is None else own, gates, samples)
        change = self._weight(name) - self.off[name] if own is None else own - self.off[name]
        return plus(self.gates.under(name, change, gates, samples), self.off[name])

    def _weight(self, name: str) -> Tensor:
        """Return a parameter as fixed masks leave it."""
        return self._masked(name, self.fixed[name]) if name in self.fixed else self.weights[name]

    def _change(self, name: str) -> Tensor:
        """Return w - off."""
        assert self.off is not None
        return self.weights[name] - self.off[name]

    def _masked(self, name: str, gone: Tensor) -> Tensor:
        """Return one parameter under a fixed mask, True for what is not kept."""
        if self.off is None:
            return self.weights[name].masked_fill(gone, 0)
        return torch.where(gone, self.off[name], self.weights[name])


def at_once(made: Tensor) -> Tensor:
    """Return a masked weight, whose gradient goes on to its logits as soon as it is known.

    Masks are made before the rest, so that autograd would pull back last: K gradients of a layer would be read when no cache holds them.
    """
    if made.grad_fn is not None and hasattr(made.grad_fn, "_set_sequence_nr"):  # a private name, which another torch may not have
        made.grad_fn._set_sequence_nr(_FIRST)
    return made
