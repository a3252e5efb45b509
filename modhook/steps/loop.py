"""The step loop that base training and mask training share: batches in, history out, trackers told."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import attrs
import numpy as np
import xarray as xr

from modhook.errors import RunError, UserError
from modhook.plugin.interfaces import Tracker
from modhook.steps.checkpoint import Stateful, kept
from modhook.steps.source import Source

RECORDS = 200
"""About how many points a history keeps."""


class Engine(Stateful, Protocol):
    """One thing that learns step by step; its state is everything that the next step depends on."""

    def step(self, number: int, batch: Any) -> Mapping[str, float] | None:
        """Do optimiser step `number` (from 0) and return what it measured; None if the batch could not be used."""
        ...

    def measure(self) -> Mapping[str, float]:
        """Return what is measured only at recorded steps."""
        ...


class History:
    """Averages of what each step measured, over windows of `every` steps."""

    def __init__(self, steps: int, units: Mapping[str, str] | None = None) -> None:
        self.every = record_every(steps)
        self._window: list[Mapping[str, float]] = []
        self.rows: list[dict[str, float]] = []

    def add(
        self, number: int, last: bool, values: Mapping[str, float], measure: Callable[[], Mapping[str, float]]
    ) -> dict[str, float] | None:
        """Add a step's values; at the end of a window return its row."""
        self._window.append(values)
        if number % self.every and not last:
            return None
        row = (
            {"step": float(number)}
            | {k: float(np.mean([v[k] for v in self._window])) for k in values}
            | dict(measure())
        )
        self._window = []
        self.rows.append(row)
        return row

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, and the window that is not full yet."""
        return {"rows": self.rows, "window": [dict(values) for values in self._window]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`'s result."""
        self.rows, self._window = list(state["rows"]), list(state["window"])

    def dataset(self) -> xr.Dataset:
        """Return the history as a Dataset over `step` (steps are counted from 1; each value is the mean since the step before)."""
        names = [n for n in (self.rows[0] if self.rows else {}) if n != "step"]
        steps = np.array([int(r["step"]) for r in self.rows], dtype=np.int64)
        return xr.Dataset({n: ("step", np.array([r[n] for r in self.rows])) for n in names}, coords={"step": steps})


def record_every(steps: int) -> int:
    """Return the window of a history: about `RECORDS` windows over the whole length."""
    return max(1, math.ceil(steps / RECORDS))


def recorded_steps(steps: int) -> list[int]:
    """Return the step numbers (from 1) at which a history of `steps` steps has its rows."""
    every = record_every(steps)
    rows = list(range(every, steps + 1, every))
    return rows if not steps or rows[-1] == steps else [*rows, steps]


def run_steps(
    engine: Engine,
    batches: Iterable[Any],
    steps: int,
    tracker: Tracker,
    callback: Callable[[int], None] | None = None,
) -> History:
    """Run `steps` optimiser steps, one batch each.

    A re-iterable is started again at its end; an iterator that ends, ends the loop early, and the tracker says so.

    Raises:
        UserError: no batch at all, or a full pass without a usable one.
        RunError: the loss or the gradient norm is not finite.
    """
    loop = _Loop(engine, Source(batches), History(steps))
    with kept(loop, tracker.message) as after_step:
        while loop.number < steps and not loop.ended:
            try:
                batch = loop.source.draw()
            except StopIteration:
                if loop.number == 0:
                    raise UserError(
                        "there is no batch to learn from; give an iterable with at least one usable batch."
                    ) from None
                tracker.message(f"the batches ended after {loop.number} of {steps} steps; the fit ends here.")
                loop.ended = True
                break
            values = engine.step(loop.number, batch)
            if values is None:
                loop.unusable += 1
                if loop.unusable == 1:
                    tracker.message(
                        "a batch that cannot be cut into equal groups is dropped, as every later one will be."
                    )
                continue
            loop.number += 1
            _require_finite(values, loop.number)
            row = loop.history.add(loop.number, loop.number == steps, values, engine.measure)
            tracker.step(loop.number, row or {})
            if callback is not None:
                callback(loop.number)
            after_step()
    return loop.history


def _require_finite(values: Mapping[str, float], step: int) -> None:
    for name, value in values.items():
        if not math.isfinite(value):  # of the gradient norm too: the next weights would not be finite
            raise RunError(
                f"the {name.replace('_', ' ')} is {value} at step {step}; lower the learning rate or look at the data."
            )


@attrs.define
class _Loop:
    """Everything that the next step depends on, in one place."""

    engine: Engine
    source: Source
    history: History
    number: int = 0
    unusable: int = 0
    ended: bool = False

    def state_dict(self) -> dict[str, Any]:
        """Return the state of engine, batches and history, and how far the loop is."""
        return {
            "number": self.number,
            "unusable": self.unusable,
            "ended": self.ended,
            "batches": self.source.state_dict(),
            "engine": self.engine.state_dict(),
            "history": self.history.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`'s result."""
        self.number, self.unusable, self.ended = state["number"], state["unusable"], state["ended"]
        self.source.load_state_dict(state["batches"])
        self.engine.load_state_dict(state["engine"])
        self.history.load_state_dict(state["history"])
