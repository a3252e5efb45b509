"""Several computations in one process that meet where they have work which can be done at once.

Each runs in a thread of its own, but only one of them at a time: up to where it meets the others, then the next one; when all wait
(or have ended), their work is done at once. Each has global random states and context variables of its own, so that it computes what it
computes alone, whoever else is there, and an error ends only the one that raised it.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import attrs
import torch

from modhook.steps.checkpoint import PRESSED, interrupts
from modhook.values.randomness import random_state, set_random_state, undisturbed

Meet = Callable[[Any], Any]

_MEET: ContextVar[Meet | None] = ContextVar("modhook_meet", default=None)


def meeting() -> Meet | None:
    """Return what this computation meets others with, `answer = meet(work)`; None where it runs alone."""
    return _MEET.get()


class Abandoned(BaseException):
    """Ends a computation because the others were ended; no `Exception`, so that nobody takes it for a failure of its own."""


@attrs.frozen
class Outcome:
    """How a computation ended: with a value, or with an error."""

    value: Any = None
    error: BaseException | None = None


@attrs.define(eq=False)
class _Member:
    function: Callable[[], Any]
    state: dict[str, Any]
    turn: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))
    work: Any = None
    answer: Any = None
    value: Any = None
    error: BaseException | None = None
    begun: bool = False
    ended: bool = False


class Lockstep:
    """Runs computations up to their meetings, and their work at once.

    Args:
        join: called with the works of all that wait; returns one answer for each. An exception among the answers is raised there.
        ends_all: whether an error of one computation ends all others.
        say: told what Ctrl-C does: step loops of the computations end as they do alone.
    """

    def __init__(
        self,
        join: Callable[[Sequence[Any]], Sequence[Any]],
        ends_all: Callable[[BaseException], bool] = lambda error: False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._join, self._ends_all, self._say = join, ends_all, say
        self._back = threading.Semaphore(0)
        self._running: _Member | None = None
        self._abandoned = False
        self.interrupted = False
        """Whether Ctrl-C was pressed, or ended one of them: the step loops of all end; what is past its last one does not notice."""

    def run(self, functions: Sequence[Callable[[], Any]]) -> list[Outcome]:
        """Return how each ended, when all have. Raises the error that ends all."""
        state = random_state()
        members = [_Member(function, state) for function in functions]
        with undisturbed(), interrupts(self._say) as pressed, _pressed_here(lambda: pressed() or self.interrupted):
            threads = [self._thread(member) for member in members]
            try:
                while any(not member.ended for member in members):
                    for member in members:
                        if not member.begun and (self.interrupted or pressed()):
                            member.error = KeyboardInterrupt()  # it has nothing to lose, and would begin only to end
                        self._give(member)
                        if member.error is not None and self._ends_all(member.error):
                            raise member.error
                        self.interrupted |= isinstance(member.error, KeyboardInterrupt)
                    waiting = [member for member in members if not member.ended]
                    for member, answer in zip(waiting, self._join([m.work for m in waiting]) if waiting else (), strict=True):
                        member.answer = answer
            finally:
                self._end(members, threads)
            self.interrupted |= pressed()
        return [Outcome(member.value, member.error) for member in members]

    # -- inside

    def _thread(self, member: _Member) -> threading.Thread:
        context = contextvars.copy_context()
        context.run(_MEET.set, lambda work: self._meet(member, work))
        device, autocast = _default_device(), _autocast()

        def life() -> None:
            member.turn.acquire()
            try:
                if member.error is None and not self._abandoned:
                    with contextlib.ExitStack() as stack:  # what torch keeps for each thread
                        if device.type != "cpu":
                            stack.enter_context(device)
                        for kind, dtype in autocast:
                            stack.enter_context(torch.autocast(kind, dtype=dtype))
                        member.value = context.run(member.function)
            except BaseException as error:
                member.error = error
            finally:
                member.ended = True
                self._back.release()

        thread = threading.Thread(target=life, name="modhook run", daemon=True)
        thread.start()
        return thread

    def _give(self, member: _Member) -> None:
        """Let a computation run up to its next meeting, or its end."""
        if member.ended:
            return
        set_random_state(member.state)
        member.begun, self._running = True, member
        member.turn.release()
        self._back.acquire()
        self._running = None
        member.state = random_state()

    def _meet(self, member: _Member, work: Any) -> Any:
        member.work = work
        self._back.release()
        member.turn.acquire()
        if self._abandoned:
            raise Abandoned
        answer, member.answer, member.work = member.answer, None, None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _end(self, members: Sequence[_Member], threads: Sequence[threading.Thread]) -> None:
        """Let what has not ended put everything back: each raises `Abandoned` where it waits."""
        self._abandoned = True
        if self._running is not None:  # a second Ctrl-C came while it ran
            self._back.acquire()
            self._running = None
        for member in members:
            while not member.ended:
                self._give(member)
        for thread in threads:
            thread.join()


def _default_device() -> torch.device:
    try:
        return torch.get_default_device()
    except AttributeError:  # torch 2.6, once it was set to None
        return torch.device("cpu")


def _autocast() -> list[tuple[str, torch.dtype]]:
    kinds = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    return [(kind, torch.get_autocast_dtype(kind)) for kind in kinds if torch.is_autocast_enabled(kind)]


@contextlib.contextmanager
def _pressed_here(pressed: Callable[[], bool]) -> Iterator[None]:
    """Within it, and in threads that copy its context, loops ask this whether Ctrl-C was pressed."""
    token = PRESSED.set(pressed)
    try:
        yield
    finally:
        PRESSED.reset(token)
