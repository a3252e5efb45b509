"""Runs on workers and array jobs, with real processes that are really killed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from warm import Process, Warm

from modhook.cube import claim, computing
from modhook.errors import CubeError
from modhook.launch.local import worker_options

Start = Callable[..., Process]


def test_workers_fill_the_cube_of_one_process_though_one_is_killed(
    four: Path, start: Start, alone: Path, contents: Any, tmp_path: Path
) -> None:
    """Two workers, one of which dies by SIGKILL in the middle of a run: the cube has the bytes of one process' cube."""
    (four.parent / "kill").touch()
    process = start("run", four, "--out", tmp_path, "--workers", "2")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert not (four.parent / "kill").exists()  # a worker did die
    assert "goes on elsewhere: its worker was lost" in err
    assert "4 of 4 runs done" in err
    assert "19 stages computed, 1 were there already" in out  # the dead worker's finished stage is not computed again
    assert contents(tmp_path / "four.zarr") == contents(alone)


def test_two_array_jobs_fill_one_cube(four: Path, start: Start, alone: Path, contents: Any, tmp_path: Path) -> None:
    """Two processes with different --only start at once on a cube that is not there: both end well, and nothing differs."""
    jobs = [start("run", four, "--out", tmp_path, "--only", f"seed={seed}") for seed in (1, 2)]
    for job in jobs:
        _, err = job.communicate()
        assert job.returncode == 0, err
    assert contents(tmp_path / "four.zarr") == contents(alone)


def test_a_killed_run_leaves_no_worker_and_no_lock(four: Path, start: Start, tmp_path: Path) -> None:
    """While workers compute, the same command is refused; after SIGKILL of the first its workers end and the locks are free."""
    first = start("run", four, "--out", tmp_path, "--workers", "2", SLOW="0.5")
    assert first.stderr is not None
    line = next(line for line in first.stderr if "running" in line and "0 running" not in line)
    assert "0 of 4 runs done" in line
    children = psutil.Process(first.pid).children(recursive=True)
    assert len(children) >= 2
    second = start("run", four, "--out", tmp_path)
    _, err = second.communicate()
    assert second.returncode == 2
    assert "is being computed by another modhook run" in err
    first.kill()
    first.communicate()
    deadline = time.monotonic() + 30
    while left := [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.1)
    with claim(tmp_path / "four.zarr", None), computing(tmp_path / "four.zarr", None):
        pass


HOLD = """
import signal, sys
from modhook.cube import claim
with claim(sys.argv[1], sys.argv[2:]):
    print("held", flush=True)
    signal.pause()
"""


def test_a_run_is_claimed_alone(tmp_path: Path, hold: Callable[..., Process]) -> None:
    """A claimed run is refused to others and named, another one is not; all runs are refused while one is claimed."""
    cube = tmp_path / "a.zarr"
    process = hold(HOLD, cube, "seed=1", "seed=2")
    with claim(cube, ["seed=3"]):
        pass
    with pytest.raises(CubeError, match=r"the run seed=2 of .*a\.zarr is being computed by another modhook run"):
        claim(cube, ["seed=3", "seed=2"]).__enter__()
    with pytest.raises(CubeError, match=r"a run of .*a\.zarr is being computed"):
        claim(cube, None).__enter__()
    process.kill()
    process.wait()
    with claim(cube, None):
        pass


@pytest.fixture
def hold(warm: Warm) -> Any:
    """Start a Python that says `held`, and end it."""
    started = []

    def begin(code: str, *arguments: Any) -> Process:
        process = warm.start("-c", code, *arguments)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_each_worker_has_a_gpu() -> None:
    """On three GPUs five workers take turns; a study that names a GPU keeps it; a CPU worker offers none."""
    some = [worker_options(i, torch.device("cuda"), 3) for i in range(5)]
    assert [o["env"]["CUDA_VISIBLE_DEVICES"] for o in some] == ["0", "1", "2", "0", "1"]
    assert all(o["resources"] == {"GPU": 1} for o in some)
    assert "env" not in worker_options(0, torch.device("cuda:1"), 3)
    assert worker_options(0, torch.device("cpu"), 0)["resources"] == {}
