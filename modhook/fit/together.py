"""`fit_masks_together`: several fits in one process, whose steps are done at once where that gives the same numbers."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from modhook.errors import UserError, listing, near_miss
from modhook.fit.api import ARGUMENTS, fit_masks
from modhook.fit.joint import Joint
from modhook.fit.result import Fit
from modhook.fit.usual import GUMBEL, USUAL, says_how
from modhook.network.kinds import Drawing, contents
from modhook.plugin.interfaces import Sampler, Tracker
from modhook.plugin.trackers import tracker_of
from modhook.steps.lockstep import Lockstep
from modhook.values.arguments import shown


def fit_masks_together(fits: Sequence[Mapping[str, Any]], *, progress: bool | Tracker = True, **common: Any) -> list[Fit]:
    """Learn the masks of several fits at once: of networks of one architecture (seeds), or of several functions of one network.

    Each fit is what `fit_masks` would return, to the last bit: it has its own network, batches, noise, pull and clipping. But the forward
    and backward passes of all fits that are at a step are one stacked pass. That saves time for networks of up to some 30,000 weights,
    eight at a time, and costs some for larger ones or few fits (docs/scale.md has what was measured). The first steps are done one by
    one, too, and compared; what does not agree to the last bit, or cannot be stacked (other architectures or losses, a network that
    writes into its buffers or draws random numbers, units, a memory limit that cuts the samples), runs one by one, and why is said in
    one sentence.

    Args:
        fits: for each fit the arguments of `fit_masks` by name, `{"model": ..., "batches": ..., "loss": ..., "seed": 1}`. Iterators,
            batches that draw from one generator of random numbers of their own, and `checkpoint` files must not be shared between fits,
            which is an error. Networks, losses and samplers may be; callbacks that change a network which others have, too, change it
            for all.
        progress: True for one progress bar, at the step that all fits have reached; False for silence, or a `Tracker`.
        common: arguments that all fits have, unless a fit gives its own.

    Returns:
        The fits, in order. Ctrl-C ends learning after the step under way and returns what there is.

    Raises:
        UserError: a wrong argument of any fit, found before its first step is done; nothing more is learned.
        Exception: a fit failed later (`RunError` for a loss that is not finite; what its batches, callback or loss raise); the others were
            learned to their ends: `error.fits` has them, None in the place of each that failed, and notes say which these are.
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
    _refuse_shared(calls)
    _own_samplers(calls)
    tracker = tracker_of(progress)
    bar = _Bar(tracker, len(calls), None if isinstance(progress, Tracker) else max(map(_steps, calls)))
    joint = Joint(tracker.message)
    wrong: list[BaseException] = []
    functions = [partial(_one, call, bar, len(calls), i, wrong) for i, call in enumerate(calls)]
    try:
        outcomes = Lockstep(joint, lambda e: e in wrong or not isinstance(e, Exception), tracker.message).run(functions)
    finally:
        if not isinstance(progress, Tracker):
            tracker.close()
    errors = {number: outcome.error for number, outcome in enumerate(outcomes, 1) if outcome.error is not None}
    if errors:
        error = next(iter(errors.values()))
        for number, other in list(errors.items())[1:]:
            if other is not error:
                error.add_note(f"modhook: fit {number} of {len(calls)} failed, too: {type(other).__name__}: {other}")
        error.fits = [outcome.value for outcome in outcomes]  # type: ignore[attr-defined]
        raise error
    return [outcome.value for outcome in outcomes]


def _refuse_shared(calls: Sequence[Mapping[str, Any]]) -> None:
    """Raise `UserError` for iterators and files that two fits would use up or overwrite for each other."""
    seen: dict[Any, int] = {}
    for number, call in enumerate(calls, 1):
        for name in ("batches", "valid"):
            found = call.get(name)
            if isinstance(found, Iterator) and (first := seen.setdefault(id(found), number)) != number:
                raise UserError(
                    f"fit {number} of {len(calls)} and fit {first} have the same iterator as {name}, so that each would get only some of "
                    "what it gives; give each fit its own, or a list."
                )
            for generator in _generators(found):
                if (first := seen.setdefault(id(generator), number)) != number:
                    raise UserError(
                        f"{name} of fit {number} of {len(calls)} and of fit {first} draw from the same generator of random numbers, so "
                        "that each would get other batches than alone; give each fit a generator of its own, or a list."
                    )
        path = call.get("checkpoint")
        if isinstance(path, str | os.PathLike) and (first := seen.setdefault(os.path.realpath(path), number)) != number:
            raise UserError(
                f"fit {number} of {len(calls)} and fit {first} have the same checkpoint file, {os.fspath(path)!r}; give each fit its own."
            )


def _generators(value: Any, depth: int = 3) -> Iterator[Any]:
    """Yield the generators of random numbers that an object and the objects in its attributes draw from; the process's own is none."""
    for content in contents(value):
        if isinstance(content, Drawing):
            yield content.owner
        elif content is not value and depth:  # attributes: what is in a list of batches draws nothing
            for _, attribute in list(content.items()):
                yield from _generators(attribute, depth - 1)


def _own_samplers(calls: Sequence[dict[str, Any]]) -> None:
    """Give each fit a sampler of its own: they are told how far a fit is. Raises `UserError` where one cannot be copied."""
    seen: dict[int, int] = {}
    for number, call in enumerate(calls, 1):
        sampler = call.get("sampler")
        if isinstance(sampler, Sampler) and (first := seen.setdefault(id(sampler), number)) != number:
            try:
                call["sampler"] = copy.deepcopy(sampler)
            except Exception as error:
                raise UserError(
                    f"fit {number} of {len(calls)} and fit {first} have the same sampler, of which no copy can be made "
                    f"({type(error).__name__}: {error}); give each fit its own."
                ) from error


def _steps(call: Mapping[str, Any]) -> int:
    """Return how many steps a fit has at most; 0 where that is not known, as of a wrong argument."""
    given = {name: parameter.default for name, parameter in inspect.signature(fit_masks).parameters.items()} | dict(call)
    steps = given["steps"]
    if steps is None:
        return (GUMBEL if says_how(given) else USUAL).steps
    return steps if isinstance(steps, int) else 0


def _one(call: Mapping[str, Any], bar: _Bar, fits: int, number: int, wrong: list[BaseException]) -> Fit:
    """Return a fit. A user's mistake that shows before its first step goes into `wrong`, too: it ends all."""
    tracker = bar.of(number)
    try:
        return fit_masks(**call, progress=tracker)
    except UserError as error:
        said = _with_number(error, f"fit {number + 1} of {fits}")
        if not bar.at(number):
            wrong.append(said)
        raise said from error.__cause__ if said is error else error
    except Exception as error:
        error.add_note(f"modhook: in fit {number + 1} of {fits}")
        raise
    finally:
        tracker.close()


def _with_number(error: UserError, where: str) -> UserError:
    """Return the error with the fit in front; as it is, with a note, where its class is made of something else than a text."""
    try:
        return type(error)(f"{where}: {error}")
    except TypeError:
        error.add_note(f"modhook: in {where}")
        return error


class _Bar:
    """One stage for the progress of several fits: as far as the last of them; of `steps` steps, where it is to be begun here."""

    def __init__(self, tracker: Tracker, fits: int, steps: int | None) -> None:
        self._tracker, self._at = tracker, dict.fromkeys(range(fits), 0)
        self._shown, self._steps = 0, steps

    def of(self, number: int) -> Tracker:
        """Return the tracker of one fit."""
        return _Part(self, number)

    def at(self, number: int) -> int:
        """Return how many steps one has done."""
        return self._at[number]

    def step(self, number: int, step: int, values: Mapping[str, float]) -> None:
        """Note how far one is, and tell when all are there."""
        self._at[number] = step
        if (now := min(self._at.values())) > self._shown:
            if not self._shown and self._steps is not None:
                self._tracker.stage_started("masks", self._steps)
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

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Pass it on."""
        self._bar.step(self._number, step, values)

    def message(self, text: str) -> None:
        """Pass it on."""
        self._bar.message(self._number, text)

    def close(self) -> None:
        """Pass it on."""
        self._bar.ended(self._number)
