"""That a run is about to make its cube, for `modhook watch`: data and network are looked at first, which may take a while.

Nothing may be written where the cube will be before a study is known to be right, so that this is said in the folder of temporary files
of the machine: one small file for every process, which goes when the cube is there, and counts for nothing when the process is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from modhook.cube import Where, place_of
from modhook.run.live import LiveRun


@contextlib.contextmanager
def making(cube: Where) -> Iterator[None]:
    """Within it, this process is seen to make the cube at this path. Where that cannot be written, nobody sees it."""
    own, path = psutil.Process(), _folder() / f"{_name(cube)}{os.getpid()}.json"
    with contextlib.suppress(OSError):
        for left in (other for other in _folder().glob(f"{_name(cube)}*.json") if not _alive(other)):
            left.unlink(missing_ok=True)  # by a process that was killed
        path.unlink(missing_ok=True)
        with path.open("x", encoding="utf-8") as file:
            json.dump({"pid": own.pid, "since": own.create_time(), "time": time.time()}, file)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def being_made(cube: Where) -> bool:
    """Return whether a process of this machine is about to make the cube at this path."""
    return any(_alive(path) for path in _folder().glob(f"{_name(cube)}*.json"))


def _alive(path: Path) -> bool:
    try:
        line = json.loads(path.read_bytes()[:1000])
        return LiveRun("", socket.gethostname(), int(line["pid"]), float(line["since"]), float(line["time"])).alive
    except (OSError, ValueError, TypeError, KeyError):  # gone by now, or not ours
        return False


def _folder() -> Path:
    return Path(tempfile.gettempdir())


def _name(cube: Where) -> str:
    path = place_of(cube).path
    text = os.path.realpath(path) if isinstance(path, Path) else path
    return f"modhook-making-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}-"
