"""What a running run does just now, in a small file beside its cube, for `modhook watch`.

`.NAME.zarr.live/` holds a file for every run that is being computed, or was when its process ended: a JSON object per line, written
by the process that computes it and read by anybody. Nothing depends on these files; they go when their run is done.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import attrs
import psutil

from modhook.cube import Where
from modhook.plugin.interfaces import Tracker
from modhook.run.beside import beside, readable

SUFFIX = ".jsonl"
EVERY = 2.0
"""Seconds between two lines that only say which step a stage is at."""
_LONGEST = 8_000_000
"""Bytes of a file that are read at most: nobody writes as many."""


class Live(Tracker):
    """Writes the events of the runs that this process computes. Where they cannot be written, nobody watches."""

    def __init__(self, cube: Where) -> None:
        self._folder = beside(cube, "live", hidden=True)
        self._file: TextIO | None = None
        self._path = self._folder
        self._next = 0.0

    def run_started(self, label: str) -> None:
        """Begin the run's file, over what an earlier process left of it."""
        self._end()
        self._path = self._folder / name_of(label)
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            # A process that lost its run to this one may still have the old file open: it goes, and is not emptied.
            self._path.unlink(missing_ok=True)
            self._file = self._path.open("x", encoding="utf-8", buffering=1)
        own = psutil.Process()
        self._write(run=label, host=socket.gethostname(), pid=own.pid, since=own.create_time())

    def stage_started(self, stage: str, steps: int) -> None:
        """Name the stage."""
        self._next = 0.0
        self._write(stage=stage, steps=steps)

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Write what was logged, and now and then where nothing was."""
        if self._file is not None and (values or time.monotonic() >= self._next):
            self._next = time.monotonic() + EVERY
            finite = {k: float(v) if math.isfinite(v) else None for k, v in values.items() if k != "step"}
            self._write(step=step, values=finite)

    def stage_finished(self, stage: str, scores: Mapping[str, float]) -> None:
        """Say that the stage is done."""
        self._write(finished=stage)

    def message(self, text: str) -> None:
        """Keep it."""
        self._write(message=text)

    def run_finished(self, label: str) -> None:
        """Remove the file: from now on the cube says what became of the run."""
        self._end()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            self._folder.rmdir()

    def close(self) -> None:
        """Say that a run which is under way was stopped."""
        self._write(stopped=True)
        self._end()

    def _end(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _write(self, **line: Any) -> None:
        if self._file is None:
            return
        try:
            self._file.write(json.dumps({"time": time.time(), **line}, allow_nan=False) + "\n")
        except OSError:  # the disk is full, or the folder gone
            self._end()


@attrs.define
class Stage:
    """A stage under way. Attributes: its name, its steps, the step that is done, the rows of its history (step, values)."""

    name: str
    steps: int
    step: int = 0
    rows: list[tuple[int, dict[str, float | None]]] = attrs.Factory(list)
    first: tuple[float, int] | None = None
    """Time and number of the first step that was seen: a continued stage does not begin at 1."""
    last: float = 0.0
    finished: bool = False

    @property
    def speed(self) -> float | None:
        """Steps per second since the stage began in this process."""
        if self.first is None or self.step <= self.first[1] or self.last <= self.first[0]:
            return None
        return (self.step - self.first[1]) / (self.last - self.first[0])

    @property
    def left(self) -> float | None:
        """Seconds that the rest of its steps takes."""
        return None if self.speed is None else (self.steps - self.step) / self.speed


@attrs.define
class LiveRun:
    """A run as its file tells it."""

    label: str
    host: str
    pid: int
    since: float
    last: float
    """When the last line was written, in seconds since 1970."""
    stage: Stage | None = None
    messages: list[str] = attrs.Factory(list)
    stopped: bool = False

    @property
    def alive(self) -> bool:
        """Whether it is being computed: the process is there. Of other machines that is not known, and taken to be."""
        if self.stopped:
            return False
        if self.host != socket.gethostname():
            return True
        try:
            began = float(psutil.Process(self.pid).create_time())
        except psutil.Error:
            return False
        return abs(began - self.since) < 1.0  # else the number was given to another process


def live_runs(cube: Where) -> Iterator[LiveRun]:
    """Yield the runs that have a file. What is no line of `Live`'s is passed over."""
    folder = beside(cube, "live", hidden=True)
    for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else ():
        try:
            with path.open("rb") as file:
                lines = file.read(_LONGEST).decode("utf-8", errors="replace").splitlines()
        except OSError:  # it is done by now
            continue
        if (run := _read(lines)) is not None:
            yield run


def name_of(label: str) -> str:
    """Return the name of the file of one run."""
    return f"{readable(label)}-{hashlib.blake2b(label.encode(), digest_size=6).hexdigest()}{SUFFIX}"


def clear(cube: Where) -> None:
    """Remove all of it."""
    folder = beside(cube, "live", hidden=True)
    with contextlib.suppress(OSError):
        for path in folder.glob(f"*{SUFFIX}"):
            path.unlink(missing_ok=True)
        os.rmdir(folder)


def _read(lines: list[str]) -> LiveRun | None:
    run: LiveRun | None = None
    for text in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            line = json.loads(text)
            at = float(line["time"])
            if "run" in line:
                run = LiveRun(str(line["run"]), str(line["host"]), int(line["pid"]), float(line["since"]), at)
            elif run is not None:
                _add(run, line, at)
    return run


def _add(run: LiveRun, line: Mapping[str, Any], at: float) -> None:
    run.last = at
    if "stage" in line:
        run.stage = Stage(str(line["stage"]), int(line["steps"]))
    elif "stopped" in line:
        run.stopped = True
    elif "message" in line:
        run.messages.append(str(line["message"]))
    elif (stage := run.stage) is not None and "step" in line:
        stage.step, stage.last = int(line["step"]), at
        if stage.first is None:
            stage.first = (at, stage.step)
        if values := line["values"]:
            stage.rows.append((stage.step, {str(k): None if v is None else float(v) for k, v in values.items()}))
    elif stage is not None and "finished" in line:
        stage.finished = True
