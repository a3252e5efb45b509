"""Train (or load) and measure, without masks: what a network reaches that is trained on a function directly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modhook import Protocol, Task
from modhook_plugins.protocols.training import train_or_load

if TYPE_CHECKING:
    from modhook import RunContext


class Baseline(Protocol):
    """One stage, `unmasked`; the study needs no `[masks]`."""

    def stages(self, task: Task) -> tuple[str, ...]:
        """Return `unmasked`."""
        return ("unmasked",)

    def masked_stages(self, task: Task) -> tuple[str, ...]:
        """Return nothing."""
        return ()

    def run(self, context: RunContext) -> None:
        """Train the network if that is not done."""
        if not context.done("unmasked"):
            train_or_load(context)
