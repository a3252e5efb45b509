"""`fit_masks_together`: several fits in one process, whose steps are done at once where that gives the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from modhook.errors import UserError, listing, near_miss
from modhook.fit.api import ARGUMENTS, fit_masks
from modhook.fit.joint import Joint
from modhook.fit.result import Fit
from modhook.plugin.interfaces import Tracker
from modhook.plugin.trackers import tracker_of
from modhook.steps.lockstep import Lockstep
from modhook.values.arguments import shown


def fit_masks_together(fits: Sequence[Mapping[str, Any]], *, progress: bool | Tracker = True, **common: Any) -> list[Fit]:
    """Learn the masks of several fits at once: of networks of one architecture (seeds), or of several functions of one network.

    Each fit is what `fit_masks` would return, to the last bit: it has its own network, batches, noise, pull and clipping. But the forward
    and backward passes of all fits that are at a step are one stacked pass, which for small networks takes little longer than that of one
    (docs/executor.md has the figures). The first steps are done one by one, too, and compared; what does not agree to the last bit, or
    cannot be stacked (other architectures or losses, a network that writes into its buffers or draws random numbers, units, a memory limit
    that cuts the samples), runs one by one, and why is said in one sentence.

    Args:
        fits: for each fit the arguments of `fit_masks` by name, `{"model": ..., "batches": ..., "loss": ..., "seed": 1}`. Iterators
            and `checkpoint` files must not be shared between fits. Networks and losses may be.
        progress: True for one progress bar, at the step that all fits have reached; False for silence, or a `Tracker`.
        common: arguments that all fits have, unless a fit gives its own.

    Returns:
        The fits, in order. Ctrl-C ends learning after the step under way and returns what there is.

    Raises:
        UserError: a wrong argument of any fit; nothing more is learned.
        RunError: a fit failed (its loss is not finite, say); the others were learned to their ends: `error.fits` has them, None in the
            place of each that failed.
    """
    given: Any = fits
    if not isinstance(given, list | tuple) or not all(isinstance(one, Mapping) for one in given):
        raise UserError(f"fits must be a list of {{argument of fit_masks: value}}, one for each fit; it is {shown(fits)}.")
    if not fits:
        raise UserError("fits is empty, so there is nothing to learn; give the arguments of fit_masks for each fit.")
    calls = [{**common, **one} for one in fits]
    for number, call in enumerate(calls, 1):
        where = f"fit {number} of {len(calls)}"
        if unknown := [name for name in call if name not in ARGUMENTS or name == "progress"]:
            hint = "; progress= belongs to all fits" if unknown[0] == "progress" else near_miss(str(unknown[0]), ARGUMENTS)
            raise UserError(f"{where}: fit_masks has no argument {str(unknown[0])!r} here{hint}.")
        if missing := [name for name in ("model", "batches", "loss") if name not in call]:
            raise UserError(f"{where} lacks {listing(missing)}; give it there, or for all.")
    tracker = tracker_of(progress)
    bar = _Bar(tracker, len(calls))
    joint = Joint(tracker.message)
    functions = [partial(_one, call, bar.of(i), len(calls), i) for i, call in enumerate(calls)]
    try:
        outcomes = Lockstep(joint, _ends_all, tracker.message).run(functions)
    finally:
        if not isinstance(progress, Tracker):
            tracker.close()
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if errors:
        error = errors[0]
        error.fits = [outcome.value for outcome in outcomes]  # type: ignore[attr-defined]
        raise error
    return [outcome.value for outcome in outcomes]


def _one(call: Mapping[str, Any], tracker: Tracker, fits: int, number: int) -> Fit:
    try:
        return fit_masks(**call, progress=tracker)
    except UserError as error:
        raise type(error)(f"fit {number + 1} of {fits}: {error}") from error
    except Exception as error:
        error.add_note(f"modhook: in fit {number + 1} of {fits}")
        raise
    finally:
        tracker.close()


def _ends_all(error: BaseException) -> bool:
    return isinstance(error, UserError) or not isinstance(error, Exception)


class _Bar:
    """One stage for the progress of several fits: as far as the last of them."""

    def __init__(self, tracker: Tracker, fits: int) -> None:
        self._tracker, self._at = tracker, dict.fromkeys(range(fits), 0)
        self._shown, self._started = 0, False

    def of(self, number: int) -> Tracker:
        """Return the tracker of one fit."""
        return _Part(self, number)

    def started(self, stage: str, steps: int) -> None:
        """Begin the stage, with the first of them."""
        if not self._started:
            self._started = True
            self._tracker.stage_started(stage, steps)

    def step(self, number: int, step: int, values: Mapping[str, float]) -> None:
        """Note how far one is, and tell when all are there."""
        self._at[number] = step
        if (now := min(self._at.values())) > self._shown:
            self._shown = now
            self._tracker.step(now, values)

    def ended(self, number: int) -> None:
        """Wait for this one no longer."""
        self._at.pop(number, None)

    def message(self, number: int, text: str) -> None:
        """Say of which fit it is."""
        self._tracker.message(f"fit {number + 1}: {text}")


class _Part(Tracker):
    """What one fit tells."""

    def __init__(self, bar: _Bar, number: int) -> None:
        self._bar, self._number = bar, number

    def stage_started(self, stage: str, steps: int) -> None:
        """Pass it on."""
        self._bar.started(stage, steps)

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Pass it on."""
        self._bar.step(self._number, step, values)

    def message(self, text: str) -> None:
        """Pass it on."""
        self._bar.message(self._number, text)

    def close(self) -> None:
        """Pass it on."""
        self._bar.ended(self._number)
