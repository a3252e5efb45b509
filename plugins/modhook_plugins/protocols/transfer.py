"""Transfer (reference, section 3): one function after the other, weights and masks together.

Before each stage after the first, *used* is the union of all earlier masks. Used weights are frozen, unused ones are
re-initialised; the first layer counts as unused in every stage. Then unused weights and all logits are trained together.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

import modhook
from modhook import Masks, Protocol, Task, matching, select

if TYPE_CHECKING:
    from modhook import RunContext


@attrs.frozen
class TransferOptions:
    """Options of the protocol `transfer` (`[protocol]`)."""

    used_init: float = 2.0
    """Where the logits of used weights start. The first stage's logits start at `masks.init`, or where the sampler starts them."""
    new_init: float = 2.0
    """Where the logits of unused weights start."""
    reset: tuple[str, ...] = ("layer1.*",)
    """Patterns of the first layer, which counts as unused in every stage."""


class Transfer(Protocol):
    """Stages: the task's own. Split number i belongs to stage number i.

    `scores` of a stage hold every split up to its own, each under its own stage's mask and with the weights as they are now;
    later splits are NaN. The cube keeps the weights after every stage.
    """

    Options = TransferOptions
    trains = False
    options: TransferOptions
    weights_per_stage = True

    def stages(self, task: Task) -> tuple[str, ...]:
        """Return the task's stages."""
        return tuple(stage.name for stage in task.stages)

    def masked_stages(self, task: Task) -> tuple[str, ...]:
        """Return the task's stages."""
        return self.stages(task)

    def run(self, context: RunContext) -> None:
        """Compute every stage that is not done, each from the weights of the one before."""
        names = self.stages(context.task)
        if len(names) != len(context.task.splits):
            raise modhook.UserError(
                f"the protocol 'transfer' needs one split per stage, but the task has {len(context.task.splits)} splits "
                f"and {len(names)} stages."
            )
        context.model.eval()
        for i, name in enumerate(names):
            if context.done(name):
                continue
            if i:
                context.load_weights(names[i - 1])
            self._stage(context, names[: i + 1])

    def _stage(self, context: RunContext, names: tuple[str, ...]) -> None:
        """Learn the last of `names`; the others are done."""
        study, masks, model = context.study, context.study.masks, context.model
        *earlier, name = names
        carries = bool(earlier) and masks.clip_over == "all"
        parameters = dict(model.named_parameters())
        with context.stage(name, masks.steps) as record:
            found = {s: context.masks(s) for s in earlier}
            used = self._used(context, list(found.values()))
            if earlier:
                fresh = dict(context.new_model(name).named_parameters())
                with torch.no_grad():
                    for n, p in parameters.items():
                        p.copy_(torch.where(used[n].to(p.device), p, fresh[n]))
            start = {n: torch.where(used[n], self.options.used_init, self.options.new_init) for n in _masked(context)}
            with context.mask_mode(model):
                fit = modhook.fit_masks(
                    model,
                    context.batches(name, study.mask_batch),
                    context.task.loss,
                    samples=masks.samples,
                    init=start if earlier else masks.init,
                    train_weights={n: ~u for n, u in used.items()},
                    carried=context.carried(earlier[-1]) if carries else None,
                    label=name,
                    **context.mask_options(),
                )
            with torch.no_grad():
                for n, weight in fit.weights.items():
                    parameters[n].copy_(weight)
            record.history, record.route, record.masks, record.logits = fit.history, fit.route, fit.masks, fit.logits
            record.keep_weights = True
            record.carried = None if name == context.task.stages[-1].name else fit.carried
            found[name] = fit.masks
            nan = {s: float("nan") for s in context.task.splits}
            record.scores = {m: dict(nan) for m in context.task.metrics}
            for split, mask in zip(context.task.splits, found.values(), strict=False):
                for metric, by_split in context.score(mask, splits=(split,)).items():
                    record.scores[metric] |= by_split

    def _used(self, context: RunContext, earlier: list[Masks]) -> dict[str, Tensor]:
        """Return for every parameter which weights an earlier mask keeps; none of the first layer's, none that have no mask."""
        used = {n: torch.zeros(p.shape, dtype=torch.bool, device="cpu") for n, p in context.model.named_parameters()}
        if earlier:
            used |= dict(reduce(or_, earlier))
        for n in matching(context.model, self.options.reset, "protocol.reset"):
            used[n] = torch.zeros_like(used[n])
        return used


def _masked(context: RunContext) -> tuple[str, ...]:
    masks = context.study.masks
    return select(context.model, masks.include, masks.exclude)
