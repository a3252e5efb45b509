"""Base training as every protocol does it: train, or load weights, then measure without masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import modhook

if TYPE_CHECKING:
    from modhook import RunContext


def train_or_load(context: RunContext, carries: bool = False) -> None:
    """Compute the stage `unmasked`: the trained weights are kept, and measured in eval mode.

    If it `carries`, the gradients of the last step are kept for the first mask stage; loaded weights have none.
    """
    train = context.study.train
    steps = 0 if train.weights else train.steps
    with context.stage("unmasked", steps, common=True) as record:
        if train.weights:
            context.load_pretrained()
        else:
            record.history = modhook.train(
                context.model,
                context.batches(None, train.batch),
                context.task.loss,
                steps,
                context.tracker,
                context.validator(record, steps, train.validate_every),
                optimizer=train.optimizer,
                lr=train.lr,
                weight_decay=train.weight_decay,
                momentum=train.momentum,
                betas=train.betas,
                eps=train.eps,
                clip=train.clip,
                warmup=train.warmup,
                decay_at=train.decay_at,
                decay=train.decay,
                schedule=train.schedule,
            )
        if carries:
            record.carried = modhook.CarriedGradients.of(context.model)
        context.model.zero_grad()
        record.keep_weights = True
        context.model.eval()
        record.scores = context.score()
