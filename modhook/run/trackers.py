"""Several trackers as one. What a tracker does wrong never harms a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from modhook.errors import printable
from modhook.plugin.interfaces import Tracker
from modhook.plugin.manager import Plugins
from modhook.study import Study

EVENTS = tuple(name for name, found in vars(Tracker).items() if callable(found) and not name.startswith("_") and name != "now")


def also_tracked(study: Study, names: Iterable[str]) -> Study:
    """Return the study with further trackers."""
    every = dict.fromkeys((*study.run.trackers, *names))
    return attrs.evolve(study, run=attrs.evolve(study.run, trackers=tuple(every)))


def make_trackers(names: Iterable[str], plugins: Plugins, cube: str, **others: Tracker) -> Trackers:
    """Return the named trackers, and others, as one, told where the cube is. Raises `UserError`, `PluginError`."""
    made = Trackers({**others, **{name: plugins.load("trackers", name)() for name in names}})
    made.place(cube)
    return made


class Trackers(Tracker):
    """Passes every event on to several trackers, in order.

    A tracker that raises is left out from then on, and the others are told; results do not depend on it.

    Attributes:
        failures: one sentence per tracker that failed.
    """

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self.failures: list[str] = []
        self._trackers = dict(trackers)
        self._begun: dict[str, tuple[Any, ...]] = {}
        self._say: Callable[[str], None] = lambda text: self._tell("message", text)

    def divided(self, runs: int) -> tuple[Trackers, list[Trackers]]:
        """Return trackers for runs at once: those that hear of one after the other, and for each run those of its own (`Tracker.apart`)."""
        apart = {name: type(tracker) for name, tracker in self._trackers.items() if tracker.apart}
        rest = Trackers({name: tracker for name, tracker in self._trackers.items() if name not in apart})
        every = [rest, *(Trackers({}) for _ in range(runs))]
        for one in every:
            one.failures = self.failures
        for one in every[1:]:
            one._say = rest.message
            for name, made in apart.items():
                try:
                    one._trackers[name] = made()
                except Exception as error:
                    one._leave_out(name, error)
            for event, arguments in self._begun.items():
                one._tell(event, *arguments)
        return rest, every[1:]

    def _tell(self, event: str, *arguments: Any) -> None:
        shown = [_printable(argument) for argument in arguments]
        if event in ("place", "study_started"):
            self._begun[event] = arguments
        for name, tracker in list(self._trackers.items()):
            try:
                getattr(tracker, event)(*shown)
            except Exception as error:
                del self._trackers[name]
                self._leave_out(name, error)

    def _leave_out(self, name: str, error: Exception) -> None:
        said = str(error).strip().partition("\n")[0]
        text = f"the tracker {name!r} failed ({type(error).__name__}: {said}) and is left out from here on"
        if (failure := f"{text}; the cube has everything.") not in self.failures:
            self.failures.append(failure)
            self._say(text)


def _printable(argument: Any) -> Any:
    """Return what a tracker may show as it stands: labels and reasons may come from a stranger's cube."""
    if isinstance(argument, Mapping):
        return {_printable(key): value for key, value in argument.items()}
    return printable(argument) if isinstance(argument, str) else argument


def _passing_on(event: str) -> Callable[..., None]:
    def tell(self: Trackers, *arguments: Any) -> None:
        self._tell(event, *arguments)

    return tell


for _event in EVENTS:
    setattr(Trackers, _event, _passing_on(_event))
