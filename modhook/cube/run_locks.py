"""Locks of single runs, so that several modhook runs can fill one cube: operating-system locks that die with their holder.

Each run is one byte range of a file beside the store (for a cube at a URL: among this machine's temporary files), at a
place given by its name. POSIX record locks are used, which network file systems understand too; where there are none (Windows),
one lock stands for all runs.

A *claim* is held by a `modhook run` for every run that it was asked for. A run is *computing* in the process that
computes it, which may be a worker that outlives its `modhook run` by moments.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from filelock import FileLock, Timeout

from modhook.cube.place import Place, Where, reason
from modhook.cube.where import place_of
from modhook.errors import CubeError

fcntl: Any
try:
    import fcntl
except ImportError:  # no POSIX: Windows
    fcntl = None

_POLL = 0.2
"""Seconds between two tries."""


@contextlib.contextmanager
def claim(path: Where, runs: Sequence[str] | None) -> Iterator[None]:
    """Hold the claim on some runs (`"seed=3, masks.beta=1e-05"`) of the cube at `path`; None means all there could be.

    Raises `CubeError` at once if another process has claimed one of them.
    """
    with _held(place_of(path), "runs", runs, 0.0):
        yield


@contextlib.contextmanager
def computing(path: Where, run: str | Sequence[str] | None, patience: float = 0.0) -> Iterator[None]:
    """Be the one process that computes a run, or several; None means that nobody computes any.

    Not to be nested: the inner one's end would free the outer one's locks.

    Raises `CubeError` if another process still computes it after `patience` seconds.
    """
    with _held(place_of(path), "work", [run] if isinstance(run, str) else run, patience):
        yield


@contextlib.contextmanager
def _held(place: Place, kind: str, runs: Sequence[str] | None, patience: float) -> Iterator[None]:
    until = time.monotonic() + patience
    if fcntl is None:
        with _whole(place, kind, patience):
            yield
        return
    try:
        file = place.lock_file(kind)
        # Closing any descriptor of a file frees all locks of this process on it: each kind has a file of its own.
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise CubeError(f"the locks of {place} cannot be made: {reason(error)}; use another --out.") from error
    try:
        for run in [None] if runs is None else runs:
            start, length = (0, 0) if run is None else (_place(run), 1)  # length 0: to the end of all files
            while not _locked(descriptor, start, length):
                if time.monotonic() >= until:
                    raise _taken(place, run)
                time.sleep(_POLL)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _whole(place: Place, kind: str, patience: float) -> Iterator[None]:
    """Hold one lock that stands for all runs."""
    try:
        lock = FileLock(place.lock_file(kind))
        lock.acquire(timeout=patience)
    except Timeout:
        raise _taken(place, None) from None
    except OSError as error:
        raise CubeError(f"the locks of {place} cannot be made: {reason(error)}; use another --out.") from error
    try:
        yield
    finally:
        lock.release()


def _locked(descriptor: int, start: int, length: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _place(run: str) -> int:
    return int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest(), "little") >> 2


def _taken(place: Place, run: str | None) -> CubeError:
    what = "a run" if run is None else f"the run {run}"
    return CubeError(
        f"{what} of {place} is being computed by another modhook run; wait for it, choose other runs with --only, or use another --out."
    )
