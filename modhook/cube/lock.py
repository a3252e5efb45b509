"""One writer per cube: an operating-system lock beside the store, which dies with its holder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from modhook.cube.store import local
from modhook.errors import CubeError


@contextlib.contextmanager
def writer_lock(path: str | Path, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of the cube at `path`; taking it again within the same thread is allowed.

    The folder above `path` is created. Raises `CubeError` if another process holds the lock, also after `patience` seconds,
    or if the folder cannot be written.
    """
    path = local(path)
    holder = path.with_name(path.name + ".lock.pid")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Older versions of filelock empty a locked file that somebody else waits for: the holder's number has its own.
        lock = FileLock(str(path) + ".lock", timeout=0, is_singleton=True)
        lock.acquire(timeout=patience)
    except Timeout:
        raise CubeError(
            f"{path} is being written by another modhook run (process {_holder(holder)}); wait for it or use another --out."
        ) from None
    except OSError as error:
        raise CubeError(f"{path.parent} cannot be written: {error.strerror or error}; use another --out.") from error
    outermost = lock.lock_counter == 1
    try:
        if outermost:
            holder.write_text(str(os.getpid()))
        yield
    finally:
        if outermost:
            holder.unlink(missing_ok=True)
        lock.release()


def _holder(file: Path) -> str:
    try:
        return file.read_text().strip() or "unknown"
    except OSError:
        return "unknown"
