"""Storage that fails midway, for real: a full disk, a read-only cube, a size limit.

Each time: one sentence that says where and what is safe, exit code 1, nothing corrupted, and the same command continues.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modhook.cube import open_cube

Run = Callable[..., tuple[int, str, str]]


@contextlib.contextmanager
def mounted(*arguments: str | Path) -> Iterator[None]:
    """Mount something; skip where that is not allowed."""
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(arguments[-1])], check=True)


def told(err: str, where: str | Path) -> str:
    """Return the one sentence of the failure, after checking its parts."""
    lines = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, err
    assert str(where) in lines[0]
    assert "every stage that was finished before is safe there" in lines[0]
    assert "give the same command again and it continues" in lines[0]
    return lines[0]


def untimed(files: dict[str, bytes]) -> dict[str, bytes]:
    """Leave out what depends on the clock."""
    return {k: v for k, v in files.items() if not k.startswith("timing/seconds/c/")}


def of_seed(files: dict[str, bytes], index: int) -> dict[str, bytes]:
    """Return the chunks of one seed."""
    return {k: v for k, v in files.items() if f"/c/{index}" in k}


@pytest.fixture
def whole(study: Callable[..., Path], modhook_run: Run, local_files: Any, tmp_path: Path) -> dict[str, bytes]:
    """The files of the cube that a run without any failure makes."""
    assert modhook_run("run", study(2), "--out", tmp_path / "whole")[0] == 0
    return untimed(local_files(tmp_path / "whole/tiny.zarr"))


def test_a_full_disk(
    study: Callable[..., Path], modhook_run: Run, local_files: Any, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """With no space left the run stops; the first seed is as it was; with space it continues to the same bits."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=8m", "tmpfs", disk):
        file, cube = study(2), disk / "tiny.zarr"
        assert modhook_run("run", file, "--out", disk, "--only", "seed=1")[0] == 0
        before = local_files(cube)
        with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(b"\0" * 4096)
        os.truncate(disk / "filler", os.path.getsize(disk / "filler") - 8 * 4096)
        code, _, err = modhook_run("run", file, "--out", disk)
        assert code == 1
        assert "No space left on device" in told(err, cube)
        assert of_seed(local_files(cube), 0) == of_seed(before, 0)
        open_cube(cube).load()
        (disk / "filler").unlink()
        code, out, _ = modhook_run("run", file, "--out", disk)
        assert (code, "4 were there already" in out or "5 were there already" in out) == (0, True)
        assert untimed(local_files(cube)) == whole


def test_a_cube_that_became_read_only(
    study: Callable[..., Path], modhook_run: Run, local_files: Any, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """Without the right to write the run stops, and every file is as it was."""
    file, cube = study(2), tmp_path / "tiny.zarr"
    assert modhook_run("run", file, "--out", tmp_path, "--only", "seed=1")[0] == 0
    before = local_files(cube)
    with mounted("--bind", cube, cube):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(cube)], check=True)
        code, _, err = modhook_run("run", file, "--out", tmp_path)
        assert code == 1
        assert "Read-only file system" in told(err, cube)
    assert local_files(cube) == before
    assert modhook_run("run", file, "--out", tmp_path)[0] == 0
    assert untimed(local_files(cube)) == whole


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_limit_on_the_size_of_files(
    study: Callable[..., Path], modhook_run: Run, local_files: Any, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """A quota that refuses a larger file in the middle of a stage: what was written is whole, and the stage is done again."""
    file, cube = study(2), tmp_path / "tiny.zarr"
    assert modhook_run("run", file, "--out", tmp_path, "--only", "seed=1")[0] == 0
    code = (
        "import resource, sys\nfrom modhook.cli import main\nresource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))\n"
        f"main(['run', {str(file)!r}, '--out', {str(tmp_path)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "File too large" in told(done.stderr, cube)
    open_cube(cube).load()
    assert modhook_run("run", file, "--out", tmp_path)[0] == 0
    assert untimed(local_files(cube)) == whole
