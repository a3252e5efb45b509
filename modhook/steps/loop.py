"""The step loop that base training and mask training share: batches in, history out, trackers told."""

from __future__ import annotations

import functools
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import attrs
import numpy as np
import torch
import xarray as xr
from torch import Tensor

from modhook.errors import ModhookWarning, RunError, UserError
from modhook.plugin.interfaces import Tracker
from modhook.steps.checkpoint import Stateful, kept
from modhook.steps.ranks import from_first
from modhook.steps.source import Source

RECORDS = 200
"""About how many points a history keeps."""


class Engine(Stateful, Protocol):
    """One thing that learns step by step; its state is everything that the next step depends on."""

    recording: bool
    """Set before each step: whether it is one after which `measure` is called."""
    left_out: int
    """How many items of the latest batch were not used."""

    def step(self, number: int, batch: Any) -> Mapping[str, float] | None:
        """Do optimiser step `number` (from 0) and return what it measured; None if the batch could not be used."""
        ...

    def measure(self) -> Mapping[str, float | Mapping[str, float]]:
        """Return what is measured only at recorded steps: numbers, and numbers by parameter."""
        ...

    def advice(self, batch: Any) -> str:
        """Say what to do about numbers of a step that are not finite."""
        ...


class History:
    """Averages of what each step measured, over windows of `every` steps; what is measured at a window's end; the clock.

    Numbers make a row, which trackers are told. Numbers by parameter and milliseconds are kept beside it: they are many, or
    differ from run to run.
    """

    def __init__(self, steps: int) -> None:
        self.steps, self.every = steps, record_every(steps)
        self.done = 0
        self.stopped: str | None = None
        self._window: list[Mapping[str, float]] = []
        self._seconds = 0.0
        self.rows: list[dict[str, float]] = []
        self._parts: list[dict[str, dict[str, float]]] = []
        self._clock: list[float] = []

    def records(self, number: int) -> bool:
        """Return whether step `number` (from 1) ends a window."""
        return number % self.every == 0 or number == self.steps

    def add(
        self,
        number: int,
        values: Mapping[str, float],
        measure: Callable[[], Mapping[str, float | Mapping[str, float]]],
        seconds: float = 0.0,
    ) -> dict[str, float] | None:
        """Add a step's values and how long it took; at the end of a window return its row."""
        self._window.append(values)
        self._seconds += seconds
        return self._row(number, measure) if self.records(number) else None

    def end(self, number: int, measure: Callable[[], Mapping[str, float | Mapping[str, float]]]) -> None:
        """Remember that `number` steps were done; a window that is not full becomes a row."""
        self.done = number
        if self._window:
            self._row(number, measure)

    def _row(self, number: int, measure: Callable[[], Mapping[str, float | Mapping[str, float]]]) -> dict[str, float]:
        names = self._window[-1]
        row = {"step": float(number)} | {k: float(np.mean([v[k] for v in self._window])) for k in names}
        parts: dict[str, dict[str, float]] = {}
        for name, value in measure().items():
            if isinstance(value, Mapping):
                parts[name] = dict(value)
            else:
                row[name] = value
        self.rows.append(row)
        self._parts.append(parts)
        self._clock.append(1e3 * self._seconds / len(self._window))
        self._window, self._seconds = [], 0.0
        return row

    def state_dict(self) -> dict[str, Any]:
        """Return the rows and what is kept beside them, and the window that is not full yet."""
        window = [dict(values) for values in self._window]
        return {
            "rows": self.rows,
            "parts": self._parts,
            "clock": self._clock,
            "window": window,
            "seconds": self._seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`'s result."""
        self.rows, self._window, self._seconds = list(state["rows"]), list(state["window"]), state["seconds"]
        self._parts, self._clock = list(state["parts"]), list(state["clock"])

    def dataset(self) -> xr.Dataset:
        """Return the history as a Dataset over `step`, and over `parameter` where there is one value for each.

        Steps are counted from 1. Each value of a row is the mean since the step before, or measured at that step.
        """
        steps = np.array([int(r["step"]) for r in self.rows], dtype=np.int64)
        found: dict[str, Any] = {n: ("step", np.array([r[n] for r in self.rows])) for n in self._names(self.rows)}
        coords: dict[str, Any] = {"step": steps}
        for name in self._names(self._parts):
            coords["parameter"] = list(self._parts[0][name])
            values = np.array([[p[name][k] for k in coords["parameter"]] for p in self._parts])
            found[name] = (("step", "parameter"), values)
        return xr.Dataset(
            {**found, "ms_per_step": ("step", np.array(self._clock))}, coords=coords, attrs={"steps": self.done}
        )

    @staticmethod
    def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
        return [n for n in (rows[0] if rows else {}) if n != "step"]


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
    callback: Callable[[int], object] | None = None,
    say: Callable[[str], None] | None = None,
    *,
    settled: Callable[[History], bool] | None = None,
    returns: bool = False,
) -> History:
    """Run `steps` optimiser steps, one batch each.

    A re-iterable is started again at its end; an iterator that ends, ends the loop early. That, and items that could not be
    used, are said by `say`: as a warning, and to the tracker, unless it is given. A callback that returns True ends it too, and so
    does `settled`, asked at every row; and Ctrl-C if the loop `returns` what it has (see `kept`). Why is in `History.stopped`:
    None (all steps were done), "batches", "callback", "settled" or "interrupted".

    Raises:
        UserError: no batch at all, or a full pass without a usable one.
        RunError: the loss or the gradient norm is not finite.
    """
    loop = _Loop(engine, Source(batches), History(steps))
    say = say or functools.partial(_warn, tracker)
    interrupted = False
    with kept(loop, tracker.message, returns) as after_step:
        used = loop.source.passes  # the pass of the latest step
        while loop.number < steps and loop.stopped is None and not interrupted:
            try:
                batch = loop.source.draw()
            except StopIteration:
                if loop.number == 0:
                    raise UserError(
                        "there is no batch to learn from; give an iterable with at least one usable batch."
                    ) from None
                say(
                    f"the batches ended after {loop.number} of {steps} steps, and learning with them; a list or a DataLoader "
                    "would start again."
                )
                loop.stopped = "batches"
                break
            except Exception:  # Ctrl-C ends the workers of a DataLoader, too
                if not loop.number or not after_step.interrupted():
                    raise
                interrupted = after_step()
                continue
            engine.recording = loop.history.records(loop.number + 1)
            started = time.perf_counter()
            values = engine.step(loop.number, batch)
            seconds = time.perf_counter() - started
            if engine.left_out:
                loop.unusable += 1
                loop.lost += engine.left_out
                if loop.unusable == 1:
                    say(_left_out(engine.left_out, loop.number + 1, whole=values is None))
            if values is None:
                if loop.source.passes > used + 1:  # else a list of such batches would be gone through for ever
                    raise UserError(
                        f"no batch of a whole pass could be used for step {loop.number + 1}: each has fewer items than mask "
                        "samples are drawn; give larger batches."
                    )
                continue
            used = loop.source.passes
            loop.number += 1
            _require_finite(values, loop.number, engine, batch)
            row = loop.history.add(loop.number, values, engine.measure, seconds)
            tracker.step(loop.number, {k: v for k, v in (row or {}).items() if not math.isnan(v)})
            asked = callback is not None and _agreed(callback(loop.number))
            if loop.number < steps:
                if asked:
                    loop.stopped = "callback"
                elif row is not None and settled is not None and settled(loop.history):
                    loop.stopped = "settled"
            interrupted = after_step()
        if loop.unusable > 1:
            say(
                f"in all, {loop.lost} items of {loop.unusable} batches were left out: the mask samples do not divide them."
            )
        if interrupted and loop.number < steps and loop.stopped is None:
            loop.history.stopped = "interrupted"
            say(f"stopped by Ctrl-C after {loop.number} of {steps} steps; what was learned up to there is returned.")
        else:
            loop.history.stopped = loop.stopped
        loop.history.end(loop.number, engine.measure)
    return loop.history


def _agreed(answer: object) -> bool:
    """Return whether a callback's answer is True, no other value; among several ranks the first one's counts."""
    return bool(from_first([int(_is_true(answer))])[0])


def _is_true(answer: object) -> bool:
    """Return whether an answer is True, Python's or the only element of a bool tensor or array."""
    if isinstance(answer, bool | np.bool_):
        return bool(answer)
    if isinstance(answer, Tensor):
        return answer.dtype == torch.bool and answer.numel() == 1 and bool(answer.item())
    return isinstance(answer, np.ndarray) and answer.dtype == np.bool_ and answer.size == 1 and bool(answer.item())


def _left_out(items: int, step: int, whole: bool) -> str:
    """Say what is not used of a batch, and how to use it."""
    if whole:
        what = (
            f"a batch of {items} items is left out before step {step}: it has fewer items than mask samples are drawn"
        )
    else:
        what = (
            f"the last {items} items of the batch of step {step} are left out: the mask samples do not divide the batch"
        )
    return (
        f"{what}; later ones are counted at the end. Batches of one size (DataLoader(..., drop_last=True)) lose none."
    )


def _warn(tracker: Tracker, text: str) -> None:
    tracker.message(text)
    warned(text, level=5)


def warned(text: str, level: int = 4) -> None:
    """Raise a `ModhookWarning` at the line of the caller's caller's caller, the user's own, unless told of another level."""
    warnings.warn(text, ModhookWarning, stacklevel=level)


def _require_finite(values: Mapping[str, float], step: int, engine: Engine, batch: Any) -> None:
    for name, value in values.items():
        if not math.isfinite(value):  # of the gradient norm too: the next weights would not be finite
            raise RunError(f"the {name.replace('_', ' ')} is {value} at step {step}; {engine.advice(batch)}.")


@attrs.define
class _Loop:
    """Everything that the next step depends on, in one place."""

    engine: Engine
    source: Source
    history: History
    number: int = 0
    unusable: int = 0
    lost: int = 0
    stopped: str | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state of engine, batches and history, and how far the loop is."""
        return {
            "number": self.number,
            "unusable": self.unusable,
            "lost": self.lost,
            "stopped": self.stopped,
            "batches": self.source.state_dict(),
            "engine": self.engine.state_dict(),
            "history": self.history.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`'s result."""
        self.number, self.unusable, self.stopped = state["number"], state["unusable"], state["stopped"]
        self.lost = state.get("lost", 0)
        self.source.load_state_dict(state["batches"])
        self.engine.load_state_dict(state["engine"])
        self.history.load_state_dict(state["history"])
