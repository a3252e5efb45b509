"""Python loads this by itself in the processes that are to be killed: it says in a file what they are doing.

It wraps functions of modhook and zarr as their modules are imported, and makes every write of a file slow enough that a
kill can come in its middle. Nothing of it is in modhook.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.machinery
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

SIZE = 64
SLOW = float(os.environ.get("KILLS_SLOW", "0"))
"""Seconds that each write of a file takes longer."""


class Phase:
    """The current phase, in a file that outlives the process: `number name`."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), SIZE)
        self._lock = threading.Lock()
        self._stack = ["start-up"]
        self._number = 0
        self._mark()

    def _mark(self) -> None:
        self._number += 1
        self._map[:SIZE] = f"{self._number} {self._stack[-1]}".encode().ljust(SIZE)

    def now(self, name: str) -> None:
        """Replace what everything else happens in."""
        with self._lock:
            self._stack[0] = name
            self._mark()

    @contextlib.contextmanager
    def during(self, name: str) -> Iterator[None]:
        """Be in a phase for a while. zarr writes in threads, several files at once."""
        with self._lock:
            self._stack.append(name)
            self._mark()
        try:
            yield
        finally:
            with self._lock:
                del self._stack[len(self._stack) - 1 - self._stack[::-1].index(name)]
                self._mark()


def _around(phase: Phase, name: Callable[..., str]) -> Callable[[Any], Any]:
    def wrap(function: Any) -> Any:
        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with phase.during(name(*args, **kwargs)):
                return function(*args, **kwargs)

        return inside

    return wrap


def _patches(phase: Phase) -> dict[str, Callable[[Any], None]]:
    """Return what to do with each module when it was loaded, before anybody else imports from it."""
    stage = [""]

    def loop(module: Any) -> None:
        name = lambda *a, **k: "base training" if stage[0] == "unmasked" else "mask stage"  # noqa: E731
        module.run_steps = _around(phase, name)(module.run_steps)

    def snapshot(module: Any) -> None:
        module.write_snapshot = _around(phase, lambda *a, **k: "checkpoint write")(module.write_snapshot)
        flush = module._flush

        def slow(path: Any) -> None:
            time.sleep(SLOW)
            flush(path)

        module._flush = slow

    def creation(module: Any) -> None:
        module.create = _around(phase, lambda *a, **k: "cube creation")(module.create)

    def local(module: Any) -> None:
        def put(path: Any, value: Any, exclusive: bool = False) -> int:
            if phase._stack[-1] == "cube creation":  # hundreds of files, all beside the cube's place
                return original(path, value, exclusive)
            with phase.during("cube write"):
                path.parent.mkdir(parents=True, exist_ok=True)
                view = memoryview(value.as_buffer_like()).cast("B")
                with module._atomic_write(path, "wb", exclusive=exclusive) as file:
                    file.write(view[: len(view) // 2])
                    file.flush()
                    time.sleep(SLOW)
                    file.write(view[len(view) // 2 :])
                time.sleep(SLOW / 4)
                return len(view)

        original, module._put = module._put, put

    def context(module: Any) -> None:
        original = module.Context.stage

        @contextlib.contextmanager
        def in_stage(self: Any, name: str, steps: int, **more: Any) -> Iterator[Any]:
            stage[0] = name
            phase.now("measuring and between")
            with original(self, name, steps, **more) as record:
                yield record

        module.Context.stage = in_stage

    def finished(module: Any) -> None:
        original = module.Finished.__init__

        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            phase.now("analysis")

        module.Finished.__init__ = init

    return {
        "modhook.steps.loop": loop,
        "modhook.steps.snapshot": snapshot,
        "modhook.cube.creation": creation,
        "zarr.storage._local": local,
        "modhook.run.context": context,
        "modhook.run.finished": finished,
    }


class Patching(importlib.abc.MetaPathFinder):
    """Finds modules as usual, and patches some of them when they were loaded."""

    def __init__(self, patches: dict[str, Callable[[Any], None]]) -> None:
        self._patches = patches

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """Return the usual spec; its loader patches."""
        if name not in self._patches:
            return None
        patch = self._patches.pop(name)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def patched(module: Any) -> None:
            execute(module)
            patch(module)

        spec.loader.exec_module = patched  # type: ignore[method-assign]
        return spec


if file := os.environ.get("KILLS_PHASE"):
    sys.meta_path.insert(0, Patching(_patches(Phase(file))))
