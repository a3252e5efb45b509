"""Where the system has no POSIX: no `fcntl`, folders that cannot be opened or flushed, files that are flushed only when writable."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modhook.cube import claim, computing, run_locks
from modhook.errors import CubeError
from modhook.steps.snapshot import read_snapshot, write_snapshot

CHILD = """
import sys
sys.modules["fcntl"] = None  # what an import finds on Windows
import modhook.cube.run_locks as locks
assert locks.fcntl is None
with locks.claim({path!r}, ["seed=2"]):
    print("held", flush=True)
    input()
"""


def test_one_lock_stands_for_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without record locks two processes never claim runs of one cube at once, and what was held is free again afterwards."""
    path = tmp_path / "tiny.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(run_locks, "fcntl", None)
        with contextlib.ExitStack() as held:
            held.enter_context(claim(path, ["seed=1"]))
            held.enter_context(computing(path, "seed=1"))
            with pytest.raises(CubeError, match=r"a run of .* is being computed by another modhook run"):
                held.enter_context(computing(path, None))
        with claim(path, None), computing(path, "seed=2"):
            pass


def test_an_import_without_fcntl(tmp_path: Path) -> None:
    """The module loads where there is no `fcntl`, and its lock can be taken."""
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD.format(path=str(tmp_path / "x.zarr"))],
        input="\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout) == (0, "held\n"), found.stderr


@pytest.mark.parametrize("refusal", ["open", "fsync"])
def test_a_checkpoint_where_folders_cannot_be_flushed(
    refusal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that cannot be opened or flushed is no failure; a file is, and is flushed through a handle that may write."""
    folders: set[int] = set()
    readers: set[int] = set()
    really_open, really_flush = os.open, os.fsync

    def opened(path: str | os.PathLike[str], flags: int, *more: int, **options: object) -> int:
        if Path(path).is_dir() and refusal == "open":
            raise PermissionError(errno.EACCES, "Permission denied")
        handle = really_open(path, flags, *more, **options)  # type: ignore[arg-type]
        (folders if Path(path).is_dir() else readers if flags & os.O_ACCMODE == os.O_RDONLY else set()).add(handle)
        return handle

    def flushed(handle: int) -> None:
        if handle in folders | readers:
            raise OSError(errno.EINVAL if handle in folders else errno.EBADF, "refused")
        really_flush(handle)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fsync", flushed)
    write_snapshot(tmp_path / "c.safetensors", {"a": torch.arange(3)})
    assert read_snapshot(tmp_path / "c.safetensors")["a"].tolist() == [0, 1, 2]
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.EIO, "broken disk")))
    with pytest.raises(OSError, match="broken disk"):
        write_snapshot(tmp_path / "c.safetensors", {"a": torch.arange(4)})
    assert read_snapshot(tmp_path / "c.safetensors")["a"].tolist() == [0, 1, 2]
