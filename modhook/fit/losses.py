"""The losses of the groups of a batch, each under masks of its own, by whichever route the network allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from modhook.errors import ModhookError, StackError, UserError
from modhook.fit.activations import Activations
from modhook.fit.chunks import at_once, by_layers
from modhook.fit.complement import asks, bound, inside
from modhook.fit.explain import cut_up, runs, scalars
from modhook.fit.groups import batch_size, in_one, one_group, part
from modhook.fit.layers import ROUTE, Layers, recipe
from modhook.fit.masked import MaskedWeights
from modhook.fit.plainly import SHORT, cut_held, mean_loss
from modhook.network.called import calls_the_model, listened, refuse_own
from modhook.network.guard import Guard, memory_of
from modhook.network.place import on_one_device
from modhook.network.remade import Recipe, Recipes
from modhook.network.threads import using
from modhook.network.unmasked import masking
from modhook.noise.workspace import Workspace
from modhook.plugin.interfaces import Sampler
from modhook.stacked import Stacked, prepare
from modhook.stacked.closures import reaches

Loss = Callable[[Callable[..., Any], Any], Tensor]


class SampledLosses(MaskedWeights):
    """Runs the network under K sampled masks: its routes, what they refused, and how many samples run at once.

    Arguments are those of `modhook.fit.engine.MaskTrainer`; `more` are those of `MaskedWeights`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        logits: Mapping[str, Tensor],
        sampler: Sampler,
        *,
        executor: str,
        memory: int | None,
        held: Any,
        steps: int,
        **more: Any,
    ) -> None:
        super().__init__(model, logits, sampler, **more)
        self._loss = loss
        self._whole_batch = getattr(loss, "whole", None)
        self.loss = loss if self.gates else bound(loss, {n: self.weights[n] for n in self.masked}, self.off)
        self.function = inside(loss, self.gates, self._weight, self.off) if self.gates and asks(loss) else self.loss
        self.activations: Activations | None = None
        """How units run where they are gates on activations; None where weights are multiplied."""
        self.refused = ""
        plain = self.off is None and not self.trained and not self.clipping.leaves
        alone = executor == "auto" and plain and logits.keys() == self.units.keys()
        if self.gates is not None and alone:
            fixed_weights = {n: self._masked(n, m).detach() for n, m in self.fixed.items()}
            self.activations = Activations(model, loss, self.gates, self.weights, fixed_weights)
        self.executor, self.steps = executor, steps
        self.stacked: Stacked | None = None
        self.held = None if held is None else cut_held(self._prepared(held), self.samples)
        self.guard: Guard | None = None
        self._memory = memory
        self.chunk = self.samples
        """How many samples run at once."""
        if self.activations is None:
            self.plan(layers=executor in ("auto", "loop") and not asks(loss))

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Within it the network is this trainer's: its values are looked at once for all steps, and put back at the end."""
        # As many numbers as a hundredth of a step's time allows, at some ns per sampled weight; at least 16,000.
        numbers = max(2**14, self.samples * sum(self.weights[n].numel() for n in self.masked) // 8)
        with using(self.model):
            own = dict(self.model.named_parameters(remove_duplicate=False))
            given = [*self.masked, *(n for n, c in self.constant().items() if memory_of(c) != memory_of(own[n]))]
            self.guard = Guard(self.model, given, numbers)
            if self.stacked is not None:
                self.stacked.guard = self.guard
        try:
            with masking(self.weights):
                yield
        finally:
            with using(self.model):
                self.guard.put_back()
            self.guard = None
            if self.stacked is not None:
                self.stacked.guard = None

    def plan(self, *, layers: bool) -> None:
        """Say how many samples run at once, and whether their weights are masked layer by layer. Raises `UserError`."""
        wide = 3 + 2 * asks(self._loss) + (self.off is not None)
        masked = {n: self.weights[n] for n in self.masked} if self.gates else self.logits
        self.layers = None
        if layers and by_layers(self.samples, masked, self._memory, self.clipping.size, wide):
            self.layers, self.chunk = Layers(self.samplers, self.weights, self.logits), 1
        else:
            memory = self._memory
            self.chunk = self.samples if memory is None else at_once(self.samples, masked, memory, self.clipping.size, wide)

    def route(self) -> dict[str, Any]:
        """Return how the samples run, and why (`Stacked.report`); {} before the first step."""
        if self.stacked is None:
            return {}
        if self.activations is not None:
            return self.activations.report()
        found = {**self.stacked.report(), **({} if self.layers is None else {"route": ROUTE})}
        return {**found, "reason": f"{found['reason']}; {self.refused}"} if self.refused else found

    # -- inside

    def _enough(self, batch: Any) -> Any:
        """Return a first batch. Raises `UserError` if it cannot be cut into groups."""
        items = batch_size(batch)
        if items % self.samples or not items:
            raise UserError(
                f"a batch of {items} items cannot be cut into {self.samples} equal groups, one per mask sample; "
                f"choose a batch size that {self.samples} divides."
            )
        return batch

    def _prepared(self, batch: Any) -> Any:
        """Return the batch with what a loss wants each group to know of the whole: `loss.whole(net, batch, samples)`, if it has it."""
        return batch if self._whole_batch is None else self._whole_batch(self.model, batch, self.samples)

    def _losses(self, groups: Any, start: int, stop: int) -> Tensor:
        with on_one_device(self.model, groups):
            if self.stacked is not None:
                return self._found(groups, start, stop)
            if not any(True for _ in reaches(self.model)):  # a hook may call it, and is told of by the route
                refuse_own("loss", self.model, self._loss, lambda net: self.loss(net, one_group(groups)), self.masked)
            try:
                return self._found(groups, start, stop)
            except ModhookError:
                raise
            except Exception as error:
                if self.samples > 1 and runs(self.model, self.loss, in_one(groups)):
                    error.add_note(cut_up(self.samples))
                raise

    def _found(self, groups: Any, start: int, stop: int) -> Tensor:
        drawn = self.generators[start:stop]
        chosen = groups if stop - start == self.samples else part(groups, start, stop)
        gates = None if self.gates is None else self.gates.drawn(self.logits, self.samplers, drawn)
        if gates is not None and (found := self._activated(chosen, gates)) is not None:
            return scalars(self.model, self.loss, found, groups)
        if (found := self._layered(groups, chosen, gates, drawn)) is not None:
            return scalars(self.model, self.loss, found, groups)
        if self.gates is None or gates is None:
            if self.stacked is None:  # before anything is sampled: the check and the samples take turns in memory
                self._settle(groups, groups)
            params = self.drawn(start, stop)
        else:
            own = {n: self._sample(n, drawn) for n in self.logits if n not in self.gates.groups}
            params = {n: self._gated(n, gates, own.get(n), stop - start) for n in self.masked}
            chosen = (chosen, gates, own) if self.function is not self.loss else chosen
            params |= {n: c.expand(stop - start, *c.shape) for n, c in self.constant().items()}  # (k, ...)
        if self.stacked is None:
            whole = self.function is not self.loss
            self._settle(groups, chosen if whole and stop - start == self.samples else None if whole else groups)
        with self._told_why(groups):
            losses = self.stacked(params, chosen)  # type: ignore[misc]
        return scalars(self.model, self.loss, losses, groups)

    def _settle(self, groups: Any, example: Any) -> None:
        """Settle the route on the first batch, before a second one is asked for; without an example, at the first call."""
        names = (*self.masked, *(n for n in self.constant() if n not in self.masked))
        trees = None if example is None else (example,)
        with self._told_why(groups), Workspace().active():  # of its own: what the check takes goes back to the system
            self.stacked = prepare(self.model, self.function, trees, names, self.samples, self.executor, self.guard)

    @contextmanager
    def _told_why(self, groups: Any) -> Iterator[None]:
        """Tell of a loss that calls the network itself what it should do instead."""
        try:
            yield
        except StackError as error:
            calls = listened(self.model, self.loss, one_group(groups))
            reached = any(True for _ in reaches(self.model))  # then it may be a hook that called it, and the error says so
            if calls is not None and calls.own is not None and not reached:
                raise UserError(calls_the_model(calls.own)) from error
            raise

    def _activated(self, groups: Any, gates: Mapping[str, Tensor]) -> Any:
        """Return the losses of groups, units as gates on activations; None where weights are multiplied, as the first batch decides."""
        if self.activations is None:
            return None
        if self.stacked is not None or self.activations.admit(groups, gates, self.guard):
            self.stacked = self.activations.stacked
            losses = self.activations(groups, gates)
            if self.activations.holds():
                return losses
        self.refused = f"weights are multiplied and not activations: {self.activations.refused}"
        self.activations = self.stacked = None
        self.plan(layers=not asks(self._loss))
        return None

    def _layered(self, groups: Any, chosen: Any, gates: Mapping[str, Tensor] | None, drawn: Sequence[torch.Generator]) -> Any:
        """Return the losses of one group, its weights masked layer by layer; None where they are not, as the first batch decides."""
        if self.layers is None or len(drawn) != 1:
            return None
        if self.stacked is None:
            names = (*self.masked, *(n for n in self.constant() if n not in self.masked))
            refused = self.layers.look(self.weights, self.logits)
            try:
                if not refused:
                    self.stacked = prepare(self.model, self.function, (groups,), names, self.samples, "loop", self.guard, layers=True)
            except StackError as error:
                refused = str(error)
            if refused:
                self.refused = f"weights are not masked layer by layer: {refused}"
                self.plan(layers=False)
                return None
        assert self.stacked is not None
        params: dict[str, Tensor | Recipes] = {n: Recipes([r]) for n, r in self._recipes(gates, drawn[0]).items()}
        params |= {n: c.expand(1, *c.shape) for n, c in self.constant().items()}  # (1, ...)
        return self.stacked(params, chosen)

    def _recipes(self, gates: Mapping[str, Tensor] | None, generator: torch.Generator) -> dict[str, Recipe]:
        """Return how each parameter of one sample is made, its noise drawn in their order."""
        own: dict[str, Recipe] = {}
        for name, logit in self.logits.items():
            if gates is None or name not in gates:
                assert self.layers is not None
                state = self.layers.draw(name, self.weights[name], logit, generator)
                own[name] = recipe(lambda _, n=name, s=state: self._sample(n, s), self.weights[name])  # type: ignore[misc]
        if gates is None:
            return own

        def gated(again: Callable[[Recipe], Tensor], name: str) -> Tensor:
            return self._gated(name, gates, again(own[name]).unsqueeze(0) if name in own else None, 1)

        return {n: recipe(lambda again, n=n: gated(again, n), self.weights[n]) for n in self.masked}  # type: ignore[misc]

    def _deterministic(self, groups: Any) -> dict[str, float]:
        """Return the mean loss of the groups, or of the held-out ones, under the deterministic mask, and without any mask."""
        kept = {n: self.samplers[n].deterministic(logit.detach()) for n, logit in self.logits.items()}
        kept_units = kept
        if self.gates is not None:
            kept = {n: m for n, m in self.gates.on(kept, self.weights).items() if n in self.masked}
            kept = {n: m & ~self.fixed[n] if n in self.fixed else m for n, m in kept.items()}
        masked = {n: self._masked(n, ~mask).detach() for n, mask in kept.items()}
        masked |= {n: c.detach() for n, c in self.constant().items()}
        chosen = groups if self.held is None else self.held
        if self.activations is not None:
            return self.activations.measured(chosen, kept_units, self.samples, self.chunk, whole=self.steps >= SHORT)
        found = {"mask_loss": mean_loss(self.stacked, masked, self._told(chosen, kept_units), self.samples, self.chunk)}
        if self.steps >= SHORT:
            found["unmasked_loss"] = self._unmasked_loss(chosen, masked, kept_units)
        return found

    def _unmasked_loss(self, groups: Any, masked: Iterable[str], kept: Mapping[str, Tensor]) -> float:
        """Return the mean loss of groups without masks; `masked` parameters have some, `kept` has those of the logits, of any values."""
        whole = {n: (self.weights[n] if n in self.weights else self.unmasked[n]).detach() for n in masked}
        told = self._told(groups, {n: torch.ones_like(m) for n, m in kept.items()})
        return mean_loss(self.stacked, whole, told, self.samples, self.chunk)

    def _told(self, groups: Any, kept: Mapping[str, Tensor]) -> Any:
        """Return groups of a batch as the function takes them; one that asks for the complement is told what each mask keeps."""
        if self.gates is None or self.function is self.loss:
            return groups
        k = self.samples
        gates = {n: m.to(self.logits[n].dtype).expand(k, -1) for n, m in kept.items() if n in self.gates.groups}
        own = {n: self._masked(n, ~m).detach().expand(k, *m.shape) for n, m in kept.items() if n not in gates}
        return groups, gates, own
