"""One run shared by the ranks of torchrun, with real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from warm import Process

from modhook.cube import open_cube

Start = Callable[..., Process]


def ranks(start: Start, *arguments: str | Path, **environment: str) -> list[tuple[int, str, str]]:
    """Start two ranks with the variables that torchrun sets; return exit codes, output and errors."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", **environment}
    processes = [start(*arguments, RANK=str(r), LOCAL_RANK=str(r), **shared) for r in range(2)]
    said = [process.communicate() for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def test_torchrun_computes_what_one_process_computes(four: Path, alone: Path, tmp_path: Path) -> None:
    """The ranks share every batch of base training; weights and losses agree but for the order of sums; one rank writes and prints."""
    paths = os.pathsep.join([str(four.parent), *(p for p in sys.path if p)])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "modhook"]
    arguments = ["run", str(four), "--out", str(tmp_path), "--only", "seed=1", "--only", "masks.beta=0.1"]
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("5 stages computed; the cube is") == 1
    assert done.stderr.count("base training is spread over 2 ranks, which share each batch") == 1
    at = {"seed": 1, "masks.beta": 0.1}
    with open_cube(tmp_path / "four.zarr") as found, open_cube(alone) as expected:
        assert (found["runs/status"].sel(at) == 1).all()
        assert int(found["runs/sharing"].sel(at)) == 1
        one, two = (cube["masks/layout0"].sel(at) for cube in (found, expected))
        # Adam makes whole steps of gradients that are nothing but rounding, so single weights may be a part of a step apart.
        np.testing.assert_allclose(one["weights"], two["weights"], rtol=0, atol=1e-4)
        np.testing.assert_allclose(found["history/train_loss"].sel(at), expected["history/train_loss"].sel(at), rtol=1e-6)
        for history in ("history", "controls/history"):
            np.testing.assert_allclose(found[f"{history}/loss"].sel(at), expected[f"{history}/loss"].sel(at), rtol=1e-5)
        np.testing.assert_allclose(one["logits"], two["logits"], atol=2e-3)  # stored as float16


def test_a_failure_on_one_rank_is_the_runs_reason(four: Path, start: Start, tmp_path: Path) -> None:
    """What fails on the second rank ends the run on both, with its message in the cube and exit code 1; one rank speaks."""
    only = ("--only", "seed=1", "--only", "masks.beta=0.1")
    (code, out, err), (other, quiet, silent) = ranks(start, "run", four, "--out", tmp_path, *only, BROKEN_RANK="1")
    assert (code, other) == (1, 1), err + silent
    assert "Failed: seed=1, masks.beta=0.1, control: rank 1 stopped: ValueError: broken on purpose" in err
    assert "1 stages computed" in out
    assert "Failed" not in silent
    assert quiet == ""


ENDED = """
import gc, torch
from pathlib import Path
from torch import distributed as dist
from modhook.launch.ranks import joined

with joined(True, "cpu", "auto"):
    import torch.distributed.nn.functional  # as torch does by itself at some functions' first call
    dist.all_reduce(torch.ones(3))
    named = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    assert any("gloo" in name for name in named), named
gc.collect()
print([name for task in Path("/proc/self/task").iterdir() if "gloo" in (name := (task / "comm").read_text().strip())])
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads the names of threads where Linux has them")
def test_no_thread_of_the_group_outlives_it() -> None:
    """A rank leaves its group's threads before its interpreter ends, even where torch imports what keeps the group; they could abort it."""
    alone = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **alone}
    done = subprocess.run([sys.executable, "-c", ENDED], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_other_stages_and_controls_go_on_after_a_failure(four: Path, start: Start, tmp_path: Path) -> None:
    """A stage and a control that fail on the second rank stop as little as in one process: the same stages are done, with its numbers."""
    options = ["--set", "task.name=test_network:Independent", "--set", 'controls.untrained={ stages = ["mul"] }', "--only", "seed=1"]
    options += ["--only", "masks.beta=0.1"]
    broken = {"BROKEN_STAGES": "add|mul (shuffled)"}
    process = start("run", four, "--out", tmp_path / "one", *options, BROKEN_RANK="none", **broken)
    _, err = process.communicate()
    assert process.returncode == 1, err
    for code, _, err in ranks(start, "run", four, "--out", tmp_path / "two", *options, BROKEN_RANK="1", **broken):
        assert code == 1, err
    at = {"seed": 1, "masks.beta": 0.1}
    with open_cube(tmp_path / "one/four.zarr") as one, open_cube(tmp_path / "two/four.zarr") as two:
        states = [cube["runs/status"].sel(at).load() for cube in (one, two)]
        expected = {"unmasked": 1, "control": 1, "add": 2, "mul": 1, "mul (shuffled)": 2, "mul (untrained)": 1}
        assert [dict(zip(s["stage"].values, s.values.tolist(), strict=True)) for s in states] == [expected] * 2
        reasons = [str(cube["runs/reason"].sel(**at, stage="mul (shuffled)").item()) for cube in (one, two)]
        assert ["broken on purpose" in reason for reason in reasons] == [True, True]
        assert "rank 1 stopped" in reasons[1]
        name = "controls/history/loss"
        losses = [cube[name].sel(**at, stage="mul (untrained)").values for cube in (one, two)]
        np.testing.assert_allclose(*losses, rtol=1e-5)


def test_a_mistake_is_said_once(four: Path, start: Start, tmp_path: Path) -> None:
    """A mistake in the study ends every rank with exit code 2 and is printed by the first."""
    (code, _, err), (other, _, silent) = ranks(start, "run", four, "--out", tmp_path, "--set", "masks.stepps=3")
    assert (code, other) == (2, 2)
    assert "masks.stepps" in err
    assert silent == ""


def test_ranks_carry_what_stages_leave(four: Path, start: Start, tmp_path: Path) -> None:
    """With clipping over all, two ranks that are started again at every stage learn what one process learns without a stop."""
    options = (
        "--only",
        "seed=1",
        "--only",
        "masks.beta=0.1",
        "--set",
        "masks.clip_over=all",
        "--set",
        "masks.clip=0.05",
    )
    whole = start("run", four, "--out", tmp_path / "one", *options)
    _, err = whole.communicate()
    assert whole.returncode == 0, err
    for stage in ("control", "mul"):
        for code, _, err in ranks(start, "run", four, "--out", tmp_path / "two", *options, STOP_BEFORE=stage):
            assert code == 130, err
    for code, _, err in ranks(start, "run", four, "--out", tmp_path / "two", *options):
        assert (code, "starts without" in err) == (0, False), err
    at = {"seed": 1, "masks.beta": 0.1}
    with open_cube(tmp_path / "one/four.zarr") as one, open_cube(tmp_path / "two/four.zarr") as two:
        np.testing.assert_allclose(two["history/loss"].sel(at), one["history/loss"].sel(at), rtol=1e-6)
        logits = [cube["masks/layout0/logits"].sel(at) for cube in (one, two)]
        np.testing.assert_allclose(*logits, atol=2e-3)  # stored as float16
