"""Batches without end, and where in them a step loop stands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from modhook.errors import RunError
from modhook.steps.snapshot import digest
from modhook.values.randomness import random_state, set_random_state


class Source:
    """Batches of any iterable: a re-iterable starts again at its end, an iterator does not.

    The state is the iterable's own where it has `state_dict` and `load_state_dict`. Otherwise it is the random state at the
    start of the pass and the number of batches drawn since; to continue, that many are drawn again and thrown away.

    Attributes:
        passes: how many passes were begun.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self._batches = batches
        self._once = iter(batches) is batches
        self._iterator: Iterator[Any] | None = None
        self._stateful = hasattr(batches, "state_dict") and hasattr(batches, "load_state_dict")
        self._began: dict[str, Any] | None = None
        self._drawn = 0
        self.passes = 0
        self._last: Any = None

    def draw(self) -> Any:
        """Return the next batch. Raises `StopIteration` at the end of an iterator, and where a pass has no batch."""
        if self._iterator is None:
            self._start()
        assert self._iterator is not None
        try:
            batch = next(self._iterator)
        except StopIteration:
            if self._once or not self._drawn:
                raise
            self._start()
            batch = next(self._iterator)
        self._drawn += 1
        if not self._stateful:
            self._last = batch
        return batch

    def _start(self) -> None:
        if not self._stateful:
            self._began = random_state()
        self._iterator, self._drawn = iter(self._batches), 0
        self.passes += 1

    def state_dict(self) -> dict[str, Any]:
        """Return where the batches stand."""
        if self._stateful:
            return {"own": self._batches.state_dict(), "drawn": self._drawn}  # type: ignore[attr-defined]
        return {"began": self._began, "drawn": self._drawn, "last": digest(self._last)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`'s result. Raises `RunError` if the batches are not the same when drawn again."""
        if self._stateful:
            self._batches.load_state_dict(state["own"])  # type: ignore[attr-defined]
            self._iterator, self._drawn = iter(self._batches), state["drawn"]
            return
        if state["began"] is None:
            return
        set_random_state(state["began"])
        self._start()
        assert self._iterator is not None
        for _ in range(state["drawn"]):
            self._last = next(self._iterator, None)
        self._drawn = state["drawn"]
        if digest(self._last) != state["last"]:
            raise RunError(
                "the batches are not the same when they are drawn again, so that this cannot be continued exactly; give them state_dict() "
                "and load_state_dict(), or start over (a stage of a study by --retry-failed, a fit by deleting its checkpoint)."
            )
