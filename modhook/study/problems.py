"""Collects the mistakes of a study, so that all of them are reported at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from modhook.values.text import Path, dotted


@attrs.frozen
class Problem:
    """One mistake: where in the file, and what. `known` is False when the key itself does not exist."""

    path: Path
    text: str
    known: bool = True


class Problems:
    """The mistakes found so far, in order, each once.

    `origins` says where a value came from when that is not the file's own table (`--set`, a variant); it is added to
    the message.
    """

    def __init__(self, origins: Mapping[Path, str] | None = None) -> None:
        self._found: dict[Problem, None] = {}
        self._origins = dict(origins or {})
        self.cause: BaseException | None = None

    def add(self, path: Path, text: str, *, known: bool = True) -> None:
        """Note a mistake."""
        self._found[Problem(path, text, known)] = None

    def __bool__(self) -> bool:
        return bool(self._found)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._found)

    def lines(self) -> tuple[str, ...]:
        """Return each mistake as `path: what (where it came from)`."""
        return tuple(self._line(problem) for problem in self._found)

    def _line(self, problem: Problem) -> str:
        origin = next((o for n in range(len(problem.path), 0, -1) if (o := self._origins.get(problem.path[:n]))), "")
        if not origin and not problem.known:  # a whole unknown section that a dotted key made
            origin = next((o for path, o in self._origins.items() if path[: len(problem.path)] == problem.path), "")
        return f"{line(problem)} ({origin})" if origin else line(problem)


def line(problem: Problem) -> str:
    """Write a problem as `path: what`."""
    return f"{dotted(problem.path)}: {problem.text}" if problem.path else problem.text
