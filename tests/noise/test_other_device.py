"""What every machine can say of other devices: the tests for GPUs, run on a device that is made of the CPU but is not it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch.utils.backend_registration", reason="torch has no backends of others")
from torch.utils import backend_registration

CHOSEN = (
    "(plain_loop and auto) or wait_once or waits_once or stopped_fit or another_device or equal_scores or together or told_of or "
    "(waits_twice and auto and (perceptron or units or hard or clipped or top_k or readout)) or (that_of_the_cpu and "
    "(gumbel or hard_concrete or integrated or lstm or units or clipped or among or off or chunks))"
)
"""`nox -s cuda` runs all of them; these cost seconds."""
FOLDER = Path(__file__).parents[1] / "cuda"


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"), reason="this torch has no backends in Python"
)
def test_the_tests_for_gpus_pass_on_a_device_made_of_the_cpu() -> None:
    """No tensor or generator of the CPU gets into a step on another device, numbers are the CPU's, and a step waits for it twice."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(FOLDER), "-k", CHOSEN]
    environment = {**os.environ, "MODHOOK_CUDA_TESTS_ON": "pretend", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 20
