"""Posthoc masking, the paper's main protocol: train (or load), freeze, then one mask per stage on the frozen weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

import modhook
from modhook import Masks, Protocol, RunError, Stage, Task, matching
from modhook_plugins.protocols.cutting import cut
from modhook_plugins.protocols.training import train_or_load

if TYPE_CHECKING:
    from torch import nn

    from modhook import RunContext, StageRecord
    from modhook.fit.engine import MaskTrainer


class Posthoc(Protocol):
    """Stages: `unmasked` (base training, weights kept), then the task's own, the control first."""

    cuts = True

    def stages(self, task: Task) -> tuple[str, ...]:
        """Return `unmasked` and the task's stages."""
        return ("unmasked", *self.masked_stages(task))

    def masked_stages(self, task: Task) -> tuple[str, ...]:
        """Return the task's stages."""
        return tuple(stage.name for stage in task.stages)

    def run(self, context: RunContext) -> None:
        """Compute every stage that is not done; the frozen weights come from the cube where they are.

        Where a stage fails, those after it are computed only if the task says that they need nothing of it (`independent`).
        Where clipping covers all (`masks.clip_over`), each stage starts with the gradients that the one before left.
        """
        carries = context.study.masks.clip_over == "all"
        if context.done("unmasked"):
            context.load_weights()
        else:
            train_or_load(context, carries)
        # What the network itself never trains is left out of the clipping (the second bias vector of an LSTM).
        context.model.eval()
        if not carries:
            context.model.requires_grad_(False)
        before, last = "unmasked", context.task.stages[-1].name
        failed: RunError | None = None
        for stage in context.task.stages:
            if not context.done(stage.name):
                try:
                    self._mask(context, stage, before if carries else None, last=stage.name == last)
                except RunError as error:
                    if carries or not context.task.independent:
                        raise
                    failed = failed or error
            before = stage.name
        if failed is not None:
            raise failed

    def _mask(self, context: RunContext, stage: Stage, before: str | None, *, last: bool) -> None:
        study, masks = context.study, context.study.masks
        model = context.model
        if type(context.task).edit_network is not Task.edit_network:
            model = Masks({}).materialize(model)
            with torch.no_grad():
                context.task.edit_network(model, stage.name)
        with context.stage(stage.name, masks.steps) as record:
            copied = self._copied(context, stage)
            with context.mask_mode(model):
                fit = modhook.fit_masks(
                    model,
                    context.batches(stage.name, study.mask_batch),
                    context.task.loss,
                    samples=masks.samples * stage.draws,
                    init=masks.init,
                    fixed=copied,
                    carried=None if before is None else context.carried(before),
                    label=stage.name,
                    **context.mask_options(),
                    callback=self._validator(context, record, copied, model),
                )
            record.history, record.route, record.masks = fit.history, fit.route, cut(context, fit, model, stage.name)
            record.carried = None if last else fit.carried
            record.logits = dict(fit.logits)
            if copied is not None:
                control = context.logits(context.task.stages[0].name)
                record.logits |= {n: control[n] for n in copied}
            record.scores = context.score(record.masks, model)

    def _copied(self, context: RunContext, stage: Stage) -> Masks | None:
        """Return the first stage's masks of the parameters that this stage copies."""
        if not stage.copied:
            return None
        first = context.masks(context.task.stages[0].name)
        if first.units is not None:
            return first.select(stage.copied)
        names = matching(context.model, stage.copied, f"stage {stage.name}: copied")
        return first.like({n: m for n, m in first.items() if n in names})

    def _validator(self, context: RunContext, record: StageRecord, copied: Masks | None, model: nn.Module):  # type: ignore[no-untyped-def]
        """Measure on the way under the masks as they are."""
        current: dict[str, MaskTrainer] = {}

        def now() -> Masks:
            trainer = current["trainer"]
            return Masks({**trainer.masks(), **(copied or {})}, units={**trainer.units, **((copied and copied.units) or {})})

        masks = context.study.masks
        validate = context.validator(record, masks.steps, masks.validate_every, now, model)

        def after(step: int, trainer: MaskTrainer) -> None:
            current["trainer"] = trainer
            validate(step)

        return after
