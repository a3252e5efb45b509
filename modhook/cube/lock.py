"""One writer per cube: an operating-system lock, which dies with its holder.

A local cube's lock lies beside it. That of a cube at a URL stands for the URL on this machine: it cannot keep another
machine from growing the cube, though runs never share a file.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from modhook.cube.place import Where, reason
from modhook.cube.where import place_of
from modhook.errors import CubeError


@contextlib.contextmanager
def writer_lock(path: Where, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of the cube at `path`; taking it again within the same thread is allowed.

    The folder above a local `path` is created. Raises `CubeError` if another process holds the lock, also after
    `patience` seconds, or if the folder cannot be written.
    """
    place = place_of(path)
    try:
        file = place.lock_file()
        holder = file.with_name(file.name + ".pid")
        # Older versions of filelock empty a locked file that somebody else waits for: the holder's number has its own.
        lock = FileLock(str(file), timeout=0, is_singleton=True)
        lock.acquire(timeout=patience)
    except Timeout:
        raise CubeError(
            f"{place} is being written by another modhook run (process {_holder(holder)}); wait for it or use another --out."
        ) from None
    except OSError as error:
        folder = place.path.parent if isinstance(place.path, Path) else tempfile.gettempdir()
        raise CubeError(f"{folder} cannot be written: {reason(error)}; use another --out.") from error
    outermost = lock.lock_counter == 1
    try:
        if outermost:
            with contextlib.suppress(OSError):  # it only helps to say who holds the lock
                holder.write_text(str(os.getpid()))
        yield
    finally:
        if outermost:
            with contextlib.suppress(OSError):
                holder.unlink(missing_ok=True)
        lock.release()


def _holder(file: Path) -> str:
    try:
        return file.read_text().strip() or "unknown"
    except OSError:
        return "unknown"
