"""Checkpoints within a stage: what a step loop needs to continue as if it had never stopped.

Whoever runs a stage activates a `Keeper`; every step loop inside finds it by itself, restores what it holds and saves from
time to time. Protocols and plugins need not know.
"""

from __future__ import annotations

import contextlib
import copy
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import attrs

from modhook.errors import CheckpointError, GoneError, RunError
from modhook.steps.ranks import spread
from modhook.steps.snapshot import read_snapshot, write_snapshot
from modhook.values.randomness import random_state, set_random_state

SHARE = 0.01
"""Most of a run's time that saving may take; a checkpoint that takes long is written more rarely than asked for."""

_STOP = threading.Event()
_ACTIVE: ContextVar[Keeper | None] = ContextVar("modhook_checkpoint", default=None)
_ENDS: ContextVar[bool] = ContextVar("modhook_interrupt_ends", default=False)
PRESSED: ContextVar[Callable[[], bool] | None] = ContextVar("modhook_interrupt_pressed", default=None)
"""Whether Ctrl-C was pressed, where the main thread has seen it for computations in other threads."""


class Stateful(Protocol):
    """Something with its whole state in one dictionary."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state: nested dicts, lists and tuples of tensors, arrays, numbers and strings."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`'s result."""
        ...


@attrs.frozen
class Common:
    """A stage that several runs compute alike: one leaves how its step loops ended, and the others start from there.

    Attributes:
        path: the file. identity: what the state depends on, as `Keeper.identity`; another one is not used.
        stage: its name. run: the run that writes it, in words.
    """

    path: Path
    identity: Mapping[str, Any]
    stage: str
    run: str


@attrs.define
class Keeper:
    """The checkpoint of one stage of one run, in one file.

    Attributes:
        path: the file. Its folder is made when it is needed.
        identity: what the state depends on, as JSON: study, data, versions, threads. A file with another one is not used.
        every: seconds between two checkpoints; 0: after every step.
        own: what the stage itself remembers, saved and restored with the rest.
        say: told in one sentence what is continued, and why a file is not used.
        returns: whether Ctrl-C lets a loop that can do so return what it has; else it ends everything.
        warn: told instead of `say` what goes wrong with writing.
        refuses: whether a file that cannot be used is an error, instead of being said and overwritten.
        common: what another run may have left of this stage, used where there is no file of its own.
    """

    path: Path
    identity: Mapping[str, Any]
    every: float
    own: Stateful
    say: Callable[[str], None]
    returns: bool = False
    warn: Callable[[str], None] | None = None
    refuses: bool = False
    common: Common | None = None
    _from: str = attrs.field(default="continues from its checkpoint", init=False)
    _calls: list[Any] = attrs.field(factory=list, init=False)
    """State of every step loop of the stage: those that ended, then the one that was running."""
    _index: int = attrs.field(default=0, init=False)
    _before: float = attrs.field(default=0.0, init=False)
    _started: float = attrs.field(factory=time.monotonic, init=False)
    _due: float = attrs.field(default=0.0, init=False)
    _broken: bool = attrs.field(default=False, init=False)

    @contextlib.contextmanager
    def active(self, keep: bool = True) -> Iterator[None]:
        """Restore what the file holds; within, step loops of this thread are kept by this keeper, unless not to `keep`."""
        if not keep:
            yield
            return
        self._restore()
        self._due = time.monotonic() + self.every
        token = _ACTIVE.set(self)
        try:
            yield
        finally:
            _ACTIVE.reset(token)

    @property
    def seconds(self) -> float:
        """Time that the stage took up to now, that of earlier processes up to the checkpoint included."""
        return self._before + time.monotonic() - self._started

    def remove(self) -> None:
        """Remove the file: the stage is done."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    # -- used by `kept`

    def begin(self, part: Stateful) -> None:
        """Restore the next step loop of the stage, if the file has it."""
        if self._index < len(self._calls):
            saved = self._calls[self._index]
            try:
                part.load_state_dict(saved["loop"])
            except RunError:
                self.remove()  # the next attempt starts over
                raise
            set_random_state(saved["random"])
            self.say(self._from)

    def save(self, part: Stateful | None = None) -> None:
        """Write the state of the running step loop, or of those that ended. A disk that refuses it does not end the run."""
        if self._broken:
            return
        started = time.monotonic()
        try:
            current = [] if part is None else [{"loop": part.state_dict(), "random": random_state()}]
            self._write(self.path, self.identity, [*self._calls[: self._index], *current], seconds=self.seconds)
        except CheckpointError as error:
            self._broken = True
            (self.warn or self.say)(f"this stage gets no checkpoints, and would start over after an interruption: {error}")
        except GoneError:
            raise
        except OSError as error:
            (self.warn or self.say)(f"the checkpoint {self.path} cannot be written ({error.strerror or error}); the run goes on.")
        now = time.monotonic()
        self._due = now + max(self.every, (now - started) / SHARE if self.every else 0.0)

    def save_if_due(self, part: Stateful) -> None:
        """Save when the time has come."""
        if time.monotonic() >= self._due:
            self.save(part)

    def leave(self) -> None:
        """Write how the stage's loops ended for the other runs that have it in common; where that fails, each computes it."""
        if self.common is None or not self._index or self.common.path.exists():
            return
        with contextlib.suppress(CheckpointError, OSError):
            self._write(self.common.path, self.common.identity, self._calls[: self._index], run=self.common.run)

    def end(self, part: Stateful) -> None:
        """Remember how a step loop ended, for a stage that has several."""
        ended = {"loop": copy.deepcopy(part.state_dict()), "random": random_state()}
        self._calls[self._index : self._index + 1] = [ended]
        self._index += 1

    # -- inside

    def _write(self, path: Path, identity: Mapping[str, Any], calls: list[Any], **more: Any) -> None:
        if not path.parent.parent.is_dir():
            raise GoneError(
                f"{path.parent.parent} is gone: it was moved or deleted while modhook was at work; put it back and give the "
                "same command again, or start over."
            )
        path.parent.mkdir(exist_ok=True)
        write_snapshot(path, {"identity": dict(identity), "own": self.own.state_dict(), "calls": calls, **more})

    def _restore(self) -> None:
        if not self.path.exists():
            self._start_from_common()
            return
        try:
            state = read_snapshot(self.path)
            if differs := list(_differences(state["identity"], dict(self.identity))):
                raise CheckpointError(f"the checkpoint {self.path} is of another computation: {'; '.join(differs)}.")
        except CheckpointError as error:
            if self.refuses:
                raise CheckpointError(f"{str(error).rstrip('.')}; delete it, or give another file.") from error
            self.say(f"{error} It is not used, and the stage starts over.")
            return
        self._before, self._calls = state["seconds"], state["calls"]
        self.own.load_state_dict(state["own"])

    def _start_from_common(self) -> None:
        """Take what another run left; nothing is lost where it cannot be used: the stage is computed then."""
        if self.common is None or not self.common.path.exists():
            return
        with contextlib.suppress(CheckpointError):
            state = read_snapshot(self.common.path)
            if state["identity"] == dict(self.common.identity):
                self._calls, self._from = state["calls"], f"{self.common.stage} is the same in run {state['run']}, and taken from there"
                self.own.load_state_dict(state["own"])


@attrs.frozen
class Kept:
    """How a step loop is kept: call it after every step, when the loop's part is consistent; True asks the loop to end."""

    _after: Callable[[], bool] = lambda: False
    interrupted: Callable[[], bool] = lambda: False
    """Whether Ctrl-C was pressed."""

    def __call__(self) -> bool:
        """Save where it is time to."""
        return self._after()


@contextlib.contextmanager
def kept(part: Stateful, say: Callable[[str], None], returns: bool = False) -> Iterator[Kept]:
    """Keep a step loop: `part` is restored first; call what is yielded after every step.

    A loop within a loop is part of the outer one's step and is not kept. With a keeper, Ctrl-C waits for the end of the step and
    saves; the second one stops at once. A loop that `returns` what it has is asked to end by Ctrl-C, with a keeper that allows
    it, or without one; not among several ranks, nor within `interrupts_end`.
    """
    keeper = _ACTIVE.get()
    if keeper is None:
        if not returns or _ENDS.get() or spread():
            yield Kept()
            return
        with interrupts(say) as interrupted:
            yield Kept(interrupted, interrupted)
        return
    token = _ACTIVE.set(None)
    try:
        keeper.begin(part)
        with interrupts(say) as interrupted:

            def after_step() -> bool:
                if interrupted() or _STOP.is_set():
                    keeper.save(part)
                    if returns and keeper.returns and not _STOP.is_set():
                        return True
                    raise KeyboardInterrupt
                keeper.save_if_due(part)
                return False

            yield Kept(after_step, interrupted)
        keeper.end(part)
    finally:
        _ACTIVE.reset(token)


@contextlib.contextmanager
def interrupted_after(say: Callable[[str], None]) -> Iterator[Callable[[], bool] | None]:
    """Yield a function that says whether Ctrl-C was pressed, for what follows a loop that returns what it has.

    A second Ctrl-C raises `KeyboardInterrupt` as usual. None where the first one does: where loops return nothing.
    """
    if _ACTIVE.get() is not None or _ENDS.get() or spread():
        yield None
        return
    with interrupts(say, "this measurement") as pressed:
        yield pressed


@contextlib.contextmanager
def interrupts_end() -> Iterator[None]:
    """Within it Ctrl-C ends what is being computed: no step loop returns half a result, which would count as a whole one."""
    token = _ENDS.set(True)
    try:
        yield
    finally:
        _ENDS.reset(token)


def stop_loops(stop: bool = True) -> None:
    """Make every step loop of this process that is kept save after its step and raise `KeyboardInterrupt`, as Ctrl-C does.

    For loops in other threads than the main one, which Ctrl-C does not reach. With `stop` False loops go on as ever.
    """
    (_STOP.set if stop else _STOP.clear)()


def active() -> bool:
    """Whether step loops are kept here."""
    return _ACTIVE.get() is not None


@contextlib.contextmanager
def interrupts(say: Callable[[str], None], what: str = "this step") -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C was pressed; only where Python's own handling of it is in place."""
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield PRESSED.get() or (lambda: False)
        return
    pressed = False

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            signal.default_int_handler(number, frame)
        pressed = True
        with contextlib.suppress(RuntimeError):  # in the middle of another line of output
            say(f"stopping after {what}; Ctrl-C again stops at once.")

    signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Say where two identities differ: `threads was 2 and is 1`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(k for k in new if k not in old)]:
            yield from _differences(
                old.get(key, "absent"), new.get(key, "absent"), f"{where}.{key}" if where else str(key)
            )
    elif old != new:
        yield f"{where} was {old} and is {new}"
