"""Stops runs at a step of a stage, for the tests of what is continued."""

from __future__ import annotations

from typing import Any

import pytest

from modhook_plugins.trackers.progress import Progress


class Stop:
    """Stops the run as a kill does: an exception that nobody expects, at a chosen step of a chosen stage."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.at: tuple[str, int] | None = None
        self.steps: list[tuple[str, int]] = []
        step = Progress.step

        def stopping(tracker: Progress, number: int, values: Any) -> None:
            self.steps.append((tracker._stage, number))
            if (tracker._stage, number) == self.at:
                self.at = None
                raise KeyboardInterrupt
            step(tracker, number, values)

        patch.setattr(Progress, "step", stopping)

    def first(self, stage: str) -> int:
        """The first step that was done in a stage since the last `clear`."""
        return next(n for s, n in self.steps if s == stage)
