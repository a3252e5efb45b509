"""A study on a scheduler and workers that somebody else started, one of which is killed: `nox -s cluster`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from modhook.errors import UserError
from modhook.launch.cluster import OnWorkers

ROOT = Path(__file__).parents[2]
SMOKE = (
    str(ROOT / "studies/addmul_fnn.toml"),
    "--variant",
    "smoke",
    "--set",
    "study.seeds=4",
    "--set",
    "train.steps=400",
)


def modhook(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run([sys.executable, "-m", "modhook", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    """A dask scheduler with two workers, started from the shell as the documentation says."""
    file = tmp_path / "scheduler.json"
    where = ["--scheduler-file", str(file)]
    started = [subprocess.Popen([sys.executable, "-m", "dask", "scheduler", "--port", "0", "--no-dashboard", *where])]
    more = ["--nthreads", "1", "--memory-limit", "0", "--death-timeout", "60", "--no-dashboard"]
    started += [subprocess.Popen([sys.executable, "-m", "dask", "worker", *where, *more]) for _ in range(2)]
    while not file.exists():
        time.sleep(0.1)
    import json

    yield json.loads(file.read_text())["address"]
    for process in reversed(started):
        process.terminate()
        process.wait()


def test_a_killed_worker_of_a_scheduler(scheduler: str, tmp_path: Path) -> None:
    """`--scheduler` computes on its workers; one that is killed comes back, and the cube has the bytes of one process' cube."""
    running = subprocess.Popen(
        [sys.executable, "-m", "modhook", "run", *SMOKE, "--out", str(tmp_path / "far"), "--scheduler", scheduler],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    said = [next(line for line in running.stderr if "2 running" in line)]
    own = psutil.Process().children(recursive=True)
    worker = next(p for p in own if "spawn_main" in " ".join(p.cmdline()))
    os.kill(worker.pid, signal.SIGKILL)
    _, err = running.communicate()
    assert running.returncode == 0, "".join(said) + err
    assert "4 of 4 runs done" in err
    assert modhook("run", *SMOKE, "--out", str(tmp_path / "near")).returncode == 0
    near, far = tmp_path / "near/addmul_fnn-smoke.zarr", tmp_path / "far/addmul_fnn-smoke.zarr"
    for file in (p for p in near.rglob("*") if p.is_file() and "timing" not in p.parts):
        assert file.read_bytes() == (far / file.relative_to(near)).read_bytes(), file


def test_no_scheduler(tmp_path: Path) -> None:
    """An address at which nothing answers is one sentence and exit code 2."""
    done = modhook("run", *SMOKE, "--out", str(tmp_path), "--scheduler", "tcp://127.0.0.1:1")
    assert (done.returncode, "no dask scheduler answers at 'tcp://127.0.0.1:1'" in done.stderr) == (2, True), (
        done.stderr
    )


@pytest.mark.parametrize("address", ["", "foo", "tcp://host", "http://host:1", "tcp://host:abc", "tcp://host:99999"])
def test_no_address_of_a_scheduler(tmp_path: Path, address: str) -> None:
    """What cannot be an address is said at once, in one sentence, before there is a cube; a client would wait for its own end."""
    with pytest.raises(UserError, match=re.escape(f"--scheduler {address!r} is no address of a dask scheduler (")):
        OnWorkers(scheduler=address)
    if address == "foo":
        done = modhook("run", *SMOKE, "--out", str(tmp_path / "out"), "--scheduler", address)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert not (tmp_path / "out").exists()
