"""One stage of mask learning, step by step, with its whole state in one object."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modhook.errors import UserError
from modhook.fit.among import movable
from modhook.fit.explain import alone, without_gradient
from modhook.fit.finite import advice
from modhook.fit.groups import batch_size, cut, in_one, one_group, part
from modhook.fit.joint import backward
from modhook.fit.losses import Loss, SampledLosses
from modhook.fit.plainly import measures
from modhook.fit.pull import counted, pull_at
from modhook.fit.scaling import GradientScale
from modhook.fit.settled import LATE, distances, has_settled
from modhook.fit.state import load_state, state_of
from modhook.fit.target import RAMP, DensityTarget
from modhook.fit.watch import Measured, Watch
from modhook.masks import Masks
from modhook.noise.workspace import Workspace
from modhook.plugin.contract import CarriedGradients
from modhook.plugin.interfaces import Sampler
from modhook.steps.loop import History
from modhook.steps.optim import LearningRates, MakeOptimizer, learning_rate, make_optimizer
from modhook.steps.ranks import add_up, agree, same, share, spread
from modhook.unit.group import Group
from modhook.values.moving import floats
from modhook.values.randomness import undisturbed


class MaskTrainer(SampledLosses):
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
        super().__init__(
            model,
            loss,
            logits,
            sampler,
            samples=samples,
            fixed=fixed,
            train_weights=train_weights,
            clip=clip,
            clip_over=clip_over,
            carried=carried,
            executor=executor,
            memory=memory,
            seed=seed,
            label=label,
            steps=steps,
            off=off,
            held=held,
            samplers=samplers,
            units=units,
        )
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
        self.target = target
        self.workspace = Workspace()
        self.recording = False
        self.left_out = 0
        self.travelled = 0.0
        """The sum of the learning rates of all steps."""
        self.start, self.nearest = distances(movable(self.logits))
        self.watch = Watch(self.logits, reference)
        self._whole: dict[str, float] = {}
        self._started = False

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
                (losses.sum() / (self.samples * self.divisor)).backward()
            total = losses.detach().sum()
            loss = loss + (float(total) if total.device.type == "cpu" else total.double()) / self.samples  # no GPU is waited for
        if mine and not self._started and all(t.grad is None for t in self.learned):
            raise UserError(without_gradient(self.model, self.loss, one_group(groups)))
        return loss

    def measure(self) -> Measured:
        """Return the density of the deterministic mask, and what is measured per parameter."""
        found = self.watch.measure(self.logits, self.samplers)
        if not self.recording:  # an early end: the last step was not known to be one
            found["parameter_gradient_norm"] = dict.fromkeys(self.logits, math.nan)
            self._whole = {}
        return {**found, **dict.fromkeys(("mask_loss", "unmasked_loss"), math.nan), **self._whole}

    def advice(self, batch: Any) -> str:
        """Say what to do about numbers of a step that are not finite: masks may make them so where the network's own loss is."""
        groups = cut(self._prepared(batch), self.samples)
        whole: float | None
        if self.activations is None:
            kept = {n: logit.detach() >= 0 for n, logit in self.logits.items()}
            whole = self._unmasked_loss(groups, dict.fromkeys((*self.masked, *self.constant())), kept)
        else:
            found = [alone(self.model, self.loss, one_group(part(groups, k, k + 1))) for k in range(self.samples)]
            whole = None if None in found else sum(x for x in found if x is not None) / self.samples
        broken = whole is not None and not math.isfinite(whole)
        uncut = alone(self.model, self.loss, in_one(groups)) if broken and self.samples > 1 else None
        return advice(self.model, self.masked, whole, learning=bool(self.trained), samples=self.samples, uncut=uncut)

    def settled(self, history: History) -> bool:
        """Return whether the mask has settled at the latest row, where its loss was measured (`modhook.fit.settled`)."""
        number = int(history.rows[-1]["step"])
        if not measures(number, self.steps) or (self.target is not None and number <= RAMP * self.steps):
            return False
        changed = [row["changed"] for row in history.rows]
        return has_settled(changed, sum(logit.numel() for logit in self.logits.values()), self.travelled, self.start)

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
