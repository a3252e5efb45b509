"""The interface of trackers, and when what they are told happened."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

_AT: ContextVar[float | None] = ContextVar("modhook_told_at", default=None)


class Tracker:
    """Receives the events of a run's life. Every method may be left as it is.

    A tracker that cannot work here (a package is missing) raises `UserError` when it is made, before anything is computed;
    one that raises later is left out from then on, and said to have failed.

    Attributes:
        apart: whether several of the class can be at work in one process, each for one run. Then runs that are computed at once have one
            each, which is made anew and told of its own run alone, as it goes. Another tracker is told of them one after the other.
    """

    apart: ClassVar[bool] = False

    def now(self) -> float:
        """Return when what is told happened, in seconds of `time.monotonic()`: of runs at once it may have been a while ago."""
        at = _AT.get()
        return time.monotonic() if at is None else at

    def place(self, cube: str) -> None:
        """Told first of all: where the cube is. Logs go beside it."""

    def study_started(self, name: str, runs: int) -> None:
        """A study of `runs` runs begins."""

    def study_progress(self, done: int, failed: int, running: int, runs: int) -> None:
        """Of `runs` runs that workers compute, this many are done, have failed and are under way."""

    def run_started(self, label: str) -> None:
        """One run (`seed=3, masks.beta=1e-4`) begins."""

    def run_settings(self, settings: Mapping[str, Any]) -> None:
        """What the run that has begun is computed with, `{"seed": 3, "masks.beta": 1e-4, ...}`: numbers, bools and texts."""

    def stage_started(self, stage: str, steps: int) -> None:
        """A stage of `steps` optimiser steps begins (0: nothing to iterate)."""

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Step number `step` (from 1) is done; `values` holds what was logged at it, often nothing."""

    def stage_finished(self, stage: str, scores: Mapping[str, float]) -> None:
        """A stage is done and its scores (`accuracy/split`) are in the cube."""

    def stage_masks(self, stage: str, masks: Mapping[str, Tensor]) -> None:
        """The masks of a stage that is done, `{parameter: bool tensor of its shape}`; told before `stage_finished`. Change none."""

    def run_scores(self, scores: Mapping[str, float]) -> None:
        """The scores of the run that ends now, also from earlier, `{"add/accuracy/iid": 0.98, ...}`; NaN: the stage is not done."""

    def run_finished(self, label: str) -> None:
        """A run is done."""

    def message(self, text: str) -> None:
        """Say something once, such as a dropped last batch."""

    def close(self) -> None:
        """Nothing follows."""


@contextlib.contextmanager
def told_of(at: float) -> Iterator[None]:
    """Within it trackers are told what happened at this time (`Tracker.now`)."""
    token = _AT.set(at)
    try:
        yield
    finally:
        _AT.reset(token)
