"""Storage that fails midway, for real: a full disk, a read-only cube, a size limit, a cut connection.

Each time: one sentence that says where and what is safe, exit code 1, nothing corrupted, and the same command continues.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from warm import Warm
from zarr.storage import LocalStore

from modhook.cube import open_cube

Run = Callable[..., tuple[int, str, str]]
# Passes bytes on in both directions; killing it cuts every connection, and nobody answers any more.
PROXY = """
import asyncio, sys
host, port, own = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
async def serve(reader, writer):
    there, back = await asyncio.open_connection(host, port)
    await asyncio.gather(copy(reader, back), copy(there, writer), return_exceptions=True)
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", own)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


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
    return {k: v for k, v in files.items() if not (k.startswith("timing/") and "/c/" in k)}


def of_seed(files: dict[str, bytes], index: int) -> dict[str, bytes]:
    """Return the chunks of one seed."""
    return {k: v for k, v in files.items() if f"/c/{index}" in k}


@pytest.fixture
def half(made: Path) -> Callable[[Path], Path]:
    """Put the cube whose first seed is done into a folder; return its path."""
    return lambda out: shutil.copytree(made / "half/tiny.zarr", out / "tiny.zarr")


@pytest.fixture
def whole(made: Path, local_files: Any) -> dict[str, bytes]:
    """The files of the cube that a run without any failure makes."""
    return untimed(local_files(made / "whole/tiny.zarr"))


def test_a_full_disk(
    study: Callable[..., Path],
    modhook_run: Run,
    local_files: Any,
    tmp_path: Path,
    half: Callable[[Path], Path],
    whole: dict[str, bytes],
) -> None:
    """With no space left the run stops; the first seed is as it was; with space it continues to the same bits."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=8m", "tmpfs", disk):
        file, cube = study(2), half(disk)
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
    study: Callable[..., Path],
    modhook_run: Run,
    local_files: Any,
    tmp_path: Path,
    half: Callable[[Path], Path],
    whole: dict[str, bytes],
) -> None:
    """Without the right to write the run stops, and every file is as it was."""
    file, cube = study(2), half(tmp_path)
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
    study: Callable[..., Path],
    modhook_run: Run,
    local_files: Any,
    tmp_path: Path,
    half: Callable[[Path], Path],
    whole: dict[str, bytes],
    warm: Warm,
) -> None:
    """A quota that refuses a larger file in the middle of a stage: what was written is whole, and the stage is done again."""
    file, cube = study(2), half(tmp_path)
    code = (
        "import resource, sys\nfrom modhook.cli import main\nresource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))\n"
        f"main(['run', {str(file)!r}, '--out', {str(tmp_path)!r}])"
    )
    done = warm.run("-c", code)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "File too large" in told(done.stderr, cube)
    open_cube(cube).load()
    assert modhook_run("run", file, "--out", tmp_path)[0] == 0
    assert untimed(local_files(cube)) == whole


def test_a_place_that_can_no_longer_be_read(
    study: Callable[..., Path],
    modhook_run: Run,
    local_files: Any,
    tmp_path: Path,
    half: Callable[[Path], Path],
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A read that fails in the middle of a run stops it as a write does, and says as much."""
    file, cube = study(2), half(tmp_path)
    get = LocalStore.get

    async def broken(store: LocalStore, key: str, *rest: Any, **named: Any) -> Any:
        if "/c/1" in key and key.startswith("masks/"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return await get(store, key, *rest, **named)

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "get", broken)
        code, _, err = modhook_run("run", file, "--out", tmp_path)
    assert code == 1
    assert "cannot be read: Input/output error" in told(err, cube)
    assert modhook_run("run", file, "--out", tmp_path)[0] == 0
    assert untimed(local_files(cube)) == whole


def test_a_connection_that_is_cut(s3: Any, study: Callable[..., Path], tmp_path: Path, whole: dict[str, bytes]) -> None:
    """The way to the server is cut, by killing a real process, while a run writes; when it is back the run continues."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    host, there = s3.url.removeprefix("http://").split(":")

    def connect() -> subprocess.Popen[str]:
        proxy = subprocess.Popen(
            [sys.executable, "-c", PROXY, host, there, str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert proxy.stdout is not None
        assert proxy.stdout.readline()
        return proxy

    file = study(2)
    command = [sys.executable, "-m", "modhook", "run", str(file), "--out", "s3://bucket/cut"]
    environment = {**os.environ, **s3.environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "OMP_NUM_THREADS": "1"}
    proxy = connect()
    run = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        status = "runs/status/c/0/0"  # the first stage of the first seed is done
        until = time.monotonic() + 240
        while status not in s3.names("cut/tiny.zarr") and time.monotonic() < until:
            time.sleep(0.2)
        proxy.kill()
        proxy.communicate()
        _, err = run.communicate(timeout=240)
        assert run.returncode == 1, err
        assert "Traceback" not in err
        told(err, "s3://bucket/cut/tiny.zarr")
        proxy = connect()
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "were there already" in done.stdout
        assert untimed(s3.files("cut/tiny.zarr")) == whole
    finally:
        for process in (proxy, run):
            with process:
                process.kill()
