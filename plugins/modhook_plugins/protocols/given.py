"""Masks on a network that comes with its weights: nothing is trained or loaded before them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modhook_plugins.protocols.posthoc import Posthoc

if TYPE_CHECKING:
    from modhook import RunContext


class Given(Posthoc):
    """Stages: `unmasked` (the network as its plugin builds it, measured and kept), then the task's own, as in `posthoc`."""

    trains = False

    def run(self, context: RunContext) -> None:
        """Compute every stage that is not done."""
        if not context.done("unmasked"):
            with context.stage("unmasked", 0) as record:
                record.keep_weights = True
                context.model.eval()
                record.scores = context.score()
        super().run(context)
