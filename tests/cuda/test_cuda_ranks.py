"""torchrun over several GPUs, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import modhook


def test_ranks_share_a_run(device: str, tmp_path: Path) -> None:
    """Two ranks, NCCL on two GPUs, compute what one process computes: the same noise, and logits but for the order of sums."""
    if device == "pretend":
        pytest.skip("processes of their own do not have the device made of the CPU")
    if device == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip(f"torchrun needs two GPUs, and {torch.cuda.device_count()} is here")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    options = ["run", "quickstart", "--variant", "smoke", "--device", device, "--only", "seed=1", "--set", "run.threads=1"]
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for before, out in (([], alone), (ranks, shared)):
        command = [sys.executable, *before, "-m", "modhook", *options, "--out", str(out)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    one, two = (modhook.open_cube(out / "quickstart-smoke.zarr") for out in (alone, shared))
    np.testing.assert_allclose(
        one["history/loss"].sel(seed=1).values, two["history/loss"].sel(seed=1).values, rtol=1e-4, equal_nan=True
    )
