"""Ctrl-C and a results folder that vanishes, with one process and with workers."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from warm import Process

Start = Callable[..., Process]


def _until(process: Process, text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"{text!r} was never said")


def test_ctrl_c_keeps_a_checkpoint_per_running_stage(
    four: Path, start: Start, alone: Path, contents: Any, tmp_path: Path
) -> None:
    """With two workers in the middle of a stage each, Ctrl-C leaves two checkpoints, from which the same command goes on."""
    # Every call of the network takes half a second, and no checkpoint is written by the clock.
    process = start("run", four, "--out", tmp_path, "--workers", "2", "--checkpoint-every", "10000", SLOW="0.5")
    _until(process, "2 running")
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "stopping after this step" in err
    assert "Traceback" not in err
    assert len(list((tmp_path / "four.zarr.checkpoints").glob("*.safetensors"))) == 2
    process = start("run", four, "--out", tmp_path, "--workers", "2")
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert err.count("continues from its checkpoint") == 2
    assert contents(tmp_path / "four.zarr") == contents(alone)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_results_folder_that_vanishes_stops_all(workers: int, four: Path, start: Start, tmp_path: Path) -> None:
    """Deleted in the middle of a run, the folder is not made again: the whole run stops with one sentence and exit code 1."""
    out = tmp_path / "results"
    more = ["--workers", str(workers)] if workers else []
    process = start("run", four, "--out", out, *more, SLOW="0.1")
    _until(process, "running" if workers else "run seed=1")
    time.sleep(1.0)
    out.rename(tmp_path / "elsewhere")  # in one step: what a half-deleted cube is told stands in tests/run/test_vanishing.py
    _, err = process.communicate(timeout=200)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    last = [line for line in err.splitlines() if line.startswith("Error")]
    assert len(last) == 1
    assert "is gone: it was moved or deleted while modhook was at work" in last[0]
    assert "every stage that was finished before is safe" not in err
    assert not (out / "four.zarr").exists()
