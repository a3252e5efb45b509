"""The lock of a cube: one writing run at a time, and none for ever."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modhook.cube import Cube, open_cube, open_for_writing, writer_lock
from modhook.errors import CubeError

HOLD = """
import sys
from modhook.cube import writer_lock
with writer_lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
WRITE = """
import sys
import numpy as np
from modhook.cube import open_for_writing
cube = open_for_writing(sys.argv[1])
seed = int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for turn in range(20):
    for beta in (1e-5, 3e-5):
        for i, stage in enumerate(("unmasked", "control", "add")):
            run = {"seed": seed, "masks.beta": beta}
            cube.write("scores/accuracy", np.array([seed * 10.0 + i, turn + beta]), run, stage=stage)
            cube.set_status(run, stage, "done", route=f"{seed} {beta} {stage}", threads=turn)
"""


def start(code: str, *args: str) -> subprocess.Popen[str]:
    """Start a second Python and wait for its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() in ("held", "ready")
    return process


def test_a_second_process_is_refused_until_the_first_dies(cube: Cube) -> None:
    """The message names the process that writes; when that one is killed, the lock is free at once."""
    process = start(HOLD, str(cube.path))
    message = f"is being written by another modhook run (process {process.pid}); wait for it or use another --out"
    try:
        for attempt in (lambda: cube.grow_seeds(3), lambda: cube.add_variables([]), lambda: cube.set_attrs(a=1)):
            with pytest.raises(CubeError, match=re.escape(message)):
                attempt()
        assert cube.run_dims["seed"] == [1, 2]
        open_cube(cube.path)  # reading needs no lock
    finally:
        process.kill()
        process.communicate()
    cube.grow_seeds(3)
    assert cube.run_dims["seed"] == [1, 2, 3]


def test_the_holder_may_take_it_again(cube: Cube) -> None:
    """A run that holds the lock can grow its own cube; afterwards the holder's file is gone."""
    holder = cube.path.with_name(f".{cube.path.name}.lock.pid")
    with writer_lock(cube.path):
        assert holder.read_text() == str(os.getpid())
        cube.grow_seeds(3)
        assert holder.exists()
    assert not holder.exists()


def test_an_error_frees_the_lock(cube: Cube, tmp_path: Path) -> None:
    """What goes wrong under the lock does not leave it held; a folder above the cube is made where needed."""
    with pytest.raises(ZeroDivisionError), writer_lock(tmp_path / "new" / "a.zarr"):
        raise ZeroDivisionError
    process = start(HOLD, str(tmp_path / "new" / "a.zarr"))
    process.communicate("")
    assert process.returncode == 0


def test_processes_that_write_different_runs_lose_nothing(cube: Cube) -> None:
    """Two processes write their own seed at the same time, over and over; every value of both is there."""
    processes = [start(WRITE, str(cube.path), str(seed)) for seed in (1, 2)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    found = open_for_writing(cube.path)
    for seed in (1, 2):
        for beta in (1e-5, 3e-5):
            run = {"seed": seed, "masks.beta": beta}
            expected = np.array([[seed * 10.0 + i, 19 + beta] for i in range(3)])
            np.testing.assert_array_equal(found.read("scores/accuracy", run), expected)
            assert found.read("runs/route", run).tolist() == [
                f"{seed} {beta} {s}" for s in ("unmasked", "control", "add")
            ]
            assert [found.status(run, s) for s in ("unmasked", "control", "add")] == ["done"] * 3
    assert not list(cube.path.rglob("*.partial"))
