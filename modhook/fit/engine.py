"""One stage of mask learning, step by step, with its whole state in one object."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from modhook.errors import StackError, UserError
from modhook.fit.activations import Activations
from modhook.fit.among import movable
from modhook.fit.chunks import at_once, by_layers
from modhook.fit.clipping import Clipping
from modhook.fit.complement import asks, bound, inside
from modhook.fit.explain import calls_the_model, listened, scalars, without_gradient
from modhook.fit.gates import Gates
from modhook.fit.groups import batch_size, cut, one_group, part
from modhook.fit.joint import backward
from modhook.fit.layers import ROUTE, Layers, recipe
from modhook.fit.off import plus
from modhook.fit.plainly import SHORT, cut_held, mean_loss, measures
from modhook.fit.pull import counted, pull_at
from modhook.fit.scaling import GradientScale
from modhook.fit.settled import LATE, distances, has_settled
from modhook.fit.state import load_state, state_of
from modhook.fit.target import RAMP, DensityTarget
from modhook.fit.watch import Measured, Watch
from modhook.masks import Masks
from modhook.network.guard import Guard, memory_of
from modhook.network.remade import Recipe, Recipes
from modhook.network.threads import using
from modhook.network.unmasked import masking
from modhook.noise.noise import generators
from modhook.noise.randomness import undisturbed
from modhook.noise.workspace import Workspace
from modhook.plugin.contract import CarriedGradients
from modhook.plugin.interfaces import Sampler
from modhook.stacked import Stacked, prepare
from modhook.stacked.closures import reaches
from modhook.steps.loop import History
from modhook.steps.optim import LearningRates, MakeOptimizer, learning_rate, make_optimizer
from modhook.steps.ranks import add_up, agree, same, share, spread
from modhook.unit.group import Group
from modhook.values.moving import floats

Loss = Callable[[Callable[..., Any], Any], Tensor]


class MaskTrainer:
    """Logits, optimiser, noise generators and step function of one stage.

    The frozen weights get no gradient, unless `clip_over="all"` counts it. `fixed` masks are applied and not learned.
    `train_weights` marks weights that learn together with the logits (the transfer protocol). `samplers` has those of parameters
    that have one of their own.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        logits: Mapping[str, Tensor],
        sampler: Sampler,
        *,
        samples: int,
        lr: float,
        beta: float,
        fixed: Masks | None = None,
        train_weights: Mapping[str, Tensor] | None = None,
        optimizer: str | MakeOptimizer = "adam",
        clip: float | None = 1.0,
        clip_over: str = "logits",
        carried: CarriedGradients | None = None,
        warmup: int = 0,
        reg_batch: int | None = None,
        scale_regulariser: bool = False,
        executor: str = "auto",
        memory: int | None = None,
        seed: int = 0,
        label: str = "",
        reference: Mapping[str, Tensor] | None = None,
        steps: int = 1,
        target: DensityTarget | None = None,
        off: Mapping[str, Tensor] | None = None,
        held: Any = None,
        samplers: Mapping[str, Sampler] | None = None,
        beta_start: float | None = None,
        units: Sequence[Group] = (),
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
        self._loss = loss
        self._whole_batch = getattr(loss, "whole", None)
        self.loss = loss if self.gates else bound(loss, {n: self.weights[n] for n in self.masked}, off)
        self.function = inside(loss, self.gates, self._weight, off) if self.gates and asks(loss) else self.loss
        self.constants = {
            n: self._masked(n, m).detach()
            for n, m in self.fixed.items()
            if n not in self.trained and names[n] not in leaves and n not in masked
        }
        others = {names[n] for n in {**masked, **self.trained, **self.fixed}}
        self.unmasked = {n: leaf for n, leaf in leaves.items() if n not in others}
        self.activations: Activations | None = None
        """How units run where they are gates on activations; None where weights are multiplied."""
        self.refused = ""
        alone = executor == "auto" and off is None and not self.trained and not leaves and logits.keys() == self.units.keys()
        if self.gates is not None and alone:
            fixed_weights = {n: self._masked(n, m).detach() for n, m in self.fixed.items()}
            self.activations = Activations(model, loss, self.gates, self.weights, fixed_weights)
        self.learned = [*self.logits.values(), *(self.weights[n] for n in self.trained)]
        self.optimizer = make_optimizer(optimizer, self.learned, lr)
        self._rates = LearningRates(self.optimizer)
        self.warmup, self.beta, self.beta_start, self.reg_batch = warmup, beta, beta_start, reg_batch
        self.unit: float | None = None
        """What a relative beta counts in, for every weight that learns; None: beta is per item."""
        self.divisor = 1.0
        """What losses are divided by before their gradients are taken."""
        self.earlier: dict[str, Tensor] = {}
        """With a pull that rises: the logits a tenth of the steps before the end, on the CPU."""
        self.scale = GradientScale() if scale_regulariser else None
        device = next(iter(self.learned)).device
        self.generators = generators(seed, label, samples, device)
        self.executor = executor
        self.steps, self.target = steps, target
        self.workspace = Workspace()
        self.stacked: Stacked | None = None
        self.recording = False
        self.left_out = 0
        self.travelled = 0.0
        """The sum of the learning rates of all steps."""
        self.start, self.nearest = distances(movable(self.logits))
        self.watch = Watch(self.logits, reference)
        self.held = None if held is None else cut_held(self._prepared(held), samples)
        self._whole: dict[str, float] = {}
        self.guard: Guard | None = None
        self._started = False
        self._memory = memory
        self.chunk = samples
        """How many samples run at once."""
        self.layers: Layers | None = None
        """How weights are masked layer by layer; None where all are masked at once, or none are."""
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

    @torch.inference_mode(False)
    def rehearse(self, batch: Any) -> None:
        """Do what a first step would do, and learn nothing: what it would raise is raised, and the route is settled."""
        states = [g.get_state() for g in self.generators]
        groups, mine, error = cut(self._prepared(self._enough(batch)), self.samples), share(self.samples), None
        self.advance(0)
        try:
            with undisturbed(), torch.enable_grad(), self.workspace.active():
                if mine:
                    self._losses(groups, mine.start, min(mine.start + self.chunk, mine.stop))
        except Exception as failure:
            error = failure
        agree(error)
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state)

    def relate(self, unit: float, learned: int, *, measured: bool) -> None:
        """Pull relatively: beta counts in `unit`, what all weights that learn save together; whether it was measured or given."""
        self.divisor = counted(unit) if measured else 1.0
        self.unit = unit / self.divisor / max(1, learned)

    def begin_with(self, logits: Mapping[str, Tensor]) -> None:
        """Start from other logits than those that were given, before the first step."""
        with torch.no_grad():
            for name, value in logits.items():
                self.logits[name].copy_(value)
        self.start, self.nearest = distances(movable(self.logits))

    @torch.inference_mode(False)
    def step(self, number: int, batch: Any) -> dict[str, float] | None:
        """One optimiser step on all items but up to K - 1; None if there are fewer than K. In a first batch, both are errors."""
        if not self._started and self.stacked is None:
            self._enough(batch)
        items = batch_size(batch)
        self.left_out = items % self.samples
        if items < self.samples:
            return None
        groups = cut(self._prepared(batch), self.samples)
        if self.warmup and number <= self.warmup:  # later, the rates are the optimiser's, or its scheduler's
            self._rates.set(lambda lr: learning_rate(number, lr, warmup=self.warmup))
        self.advance(number)
        self.watch.begin(self.logits, self.samplers)
        self.optimizer.zero_grad()
        self.clipping.begin()
        loss: float | Tensor = 0.0
        error = None
        try:
            with torch.enable_grad():  # also within the user's no_grad
                loss = backward(self, groups)
        except Exception as failure:
            error = failure
        agree(error)
        if not self._started:
            route = self.route()
            same(f"{route['route']} {route['islands']}" if route else None, "how they run the mask samples")
        if spread():
            loss = add_up([*self.learned, *self.clipping.leaves.values()], float(loss))
        self._started = True
        if self.recording:
            self.watch.gradients(self.logits)
            # The mask before this step's update: it was not yet updated on this batch.
            self._whole = self._deterministic(groups) if measures(number + 1, self.steps) else {}
        self._regularise(items - self.left_out, number)
        norms = self.clipping.clip(list(self.logits.values()), [self.weights[n] for n in self.trained])
        self.travelled += float(self.optimizer.param_groups[0].get("lr", math.nan))
        self.optimizer.step()
        if self.target is not None:
            self.target.hold(self.logits, self.sampler, number, self.steps)
        if self.beta_start is not None and number + 1 == math.ceil((1 - LATE) * self.steps) < self.steps:
            self.earlier = {n: logit.detach().cpu().clone() for n, logit in self.logits.items()}
        return floats({"loss": loss, **norms})  # a GPU is waited for here, when it has all of the step's work

    def backward(self, groups: Any) -> float | Tensor:
        """Add the gradients of this rank's samples, and return their part of the mean loss."""
        loss: float | Tensor = 0.0
        mine = share(self.samples)
        for start in range(mine.start, mine.stop, self.chunk):
            stop = min(start + self.chunk, mine.stop)
            with self.workspace.active():
                losses = self._losses(groups, start, stop)  # (k,)
                (losses.sum() / (self.samples * self.divisor)).backward()  # type: ignore[no-untyped-call]
            total = losses.detach().sum()
            loss = loss + (float(total) if total.device.type == "cpu" else total.double()) / self.samples  # no GPU is waited for
        if mine and not self._started and all(t.grad is None for t in self.learned):
            raise UserError(without_gradient(self.model, self.loss, one_group(groups)))
        return loss

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

    def plan(self, *, layers: bool) -> None:
        """Say how many samples run at once, and whether their weights are masked layer by layer. Raises `RunError`."""
        wide = 3 + 2 * asks(self._loss) + (self.off is not None)
        masked = {n: self.weights[n] for n in self.masked} if self.gates else self.logits
        self.layers = None
        if layers and by_layers(self.samples, masked, self._memory, self.clipping.size, wide):
            self.layers, self.chunk = Layers(self.samplers, self.weights, self.logits), 1
        else:
            memory = self._memory
            self.chunk = self.samples if memory is None else at_once(self.samples, masked, memory, self.clipping.size, wide)

    def measure(self) -> Measured:
        """Return the density of the deterministic mask, and what is measured per parameter."""
        found = self.watch.measure(self.logits, self.samplers)
        if not self.recording:  # an early end: the last step was not known to be one
            found["parameter_gradient_norm"] = dict.fromkeys(self.logits, math.nan)
            self._whole = {}
        return {**found, **dict.fromkeys(("mask_loss", "unmasked_loss"), math.nan), **self._whole}

    def settled(self, history: History) -> bool:
        """Return whether the mask has settled at the latest row, where its loss was measured (`modhook.fit.settled`)."""
        number = int(history.rows[-1]["step"])
        if not measures(number, self.steps) or (self.target is not None and number <= RAMP * self.steps):
            return False
        changed = [row["changed"] for row in history.rows]
        return has_settled(changed, sum(logit.numel() for logit in self.logits.values()), self.travelled, self.start)

    def route(self) -> dict[str, Any]:
        """Return how the samples run, and why (`Stacked.report`); {} before the first step."""
        if self.stacked is None:
            return {}
        if self.activations is not None:
            return self.activations.report()
        found = {**self.stacked.report(), **({} if self.layers is None else {"route": ROUTE})}
        return {**found, "reason": f"{found['reason']}; {self.refused}"} if self.refused else found

    def masks(self) -> dict[str, Tensor]:
        """Return the deterministic masks of the learned logits."""
        return {n: self.samplers[n].deterministic(logit.detach()).cpu() for n, logit in self.logits.items()}

    def advance(self, number: int) -> None:
        """Tell every sampler how far the stage is: `number` steps are done."""
        for sampler in {id(s): s for s in self.samplers.values()}.values():
            sampler.advance(number, self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step depends on (`modhook.fit.state`)."""
        return state_of(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`'s result."""
        load_state(self, state)

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
        return sampled if self.off is None else plus(sampled, self.off[name])

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
            whole = {n: (self.weights[n] if n in self.weights else self.unmasked[n]).detach() for n in masked}
            chosen = self._told(chosen, {n: torch.ones_like(m) for n, m in kept_units.items()})
            found["unmasked_loss"] = mean_loss(self.stacked, whole, chosen, self.samples, self.chunk)
        return found

    def _told(self, groups: Any, kept: Mapping[str, Tensor]) -> Any:
        """Return groups of a batch as the function takes them; one that asks for the complement is told what each mask keeps."""
        if self.gates is None or self.function is self.loss:
            return groups
        k = self.samples
        gates = {n: m.to(self.logits[n].dtype).expand(k, -1) for n, m in kept.items() if n in self.gates.groups}
        own = {n: self._masked(n, ~m).detach().expand(k, *m.shape) for n, m in kept.items() if n not in gates}
        return groups, gates, own

    def _regularise(self, items: int, number: int) -> None:
        """Mask the gradient of trained weights, and add the gradient beta / B, scaled if asked for, to every logit."""
        pull = pull_at(self.beta, self.beta_start, number, self.steps)
        pull = pull / (self.reg_batch or items) if self.unit is None else pull * self.unit
        gradients = {}
        for name, logit in self.logits.items():
            if logit.grad is None:
                logit.grad = torch.zeros_like(logit)
            gradients[name] = logit.grad
        factors = self.scale.factors(gradients) if self.scale is not None else dict.fromkeys(gradients, 1.0)
        for name, gradient in gradients.items():
            if pull:
                slope = self.samplers[name].penalty_slope(self.logits[name].detach())
                gradient.add_(slope, alpha=pull * factors[name]) if isinstance(slope, Tensor) else gradient.add_(
                    pull * factors[name] * slope
                )
        for name, mask in self.trained.items():
            weight = self.weights[name].grad
            if weight is not None:
                weight.mul_(mask)
