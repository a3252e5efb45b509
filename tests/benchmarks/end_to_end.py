"""Whole commands: a small add/mul study, how much of it is the runner, and how long `--help` takes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from networks import Case, fnn
from steps import masked

STUDY = Path(__file__).parent / "end_to_end.toml"


def measure(repeats: int = 3) -> dict[str, float]:
    """Return seconds: the study, `--help`, `list`; and milliseconds per mask step, bare and in the runner."""
    found = {
        "study_s": statistics.median(_study() for _ in range(repeats)),
        "help_s": statistics.median(_command("--help") for _ in range(5)),
        "list_s": statistics.median(_command("list") for _ in range(5)),
    }
    # The slope between a short and a long study has neither start-up nor evaluation in it.
    bare, runner = [], []
    for _ in range(repeats):
        bare.append(_bare())
        short, long = _stages(300), _stages(1300)
        runner.append((long - short) / 3000)
        bare.append(_bare())
    found["bare_step_ms"], found["runner_step_ms"] = statistics.median(bare), 1e3 * statistics.median(runner)
    return found


def _study(*extra: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return _command("run", str(STUDY), "--out", folder, *extra)


def _command(*args: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "modhook", *args], check=True, capture_output=True)
    return time.perf_counter() - start


def _stages(steps: int) -> float:
    """Return the seconds that the study's three mask stages take by the cube's own clock."""
    from modhook import open_cube

    with tempfile.TemporaryDirectory() as folder:
        _command("run", str(STUDY), "--out", folder, "--set", f"masks.steps={steps}", "--set", "train.steps=1")
        with open_cube(next(Path(folder).glob("*.zarr"))) as cube:
            seconds = cube["timing"]["seconds"].sel(stage=["control", "add", "mul"])
            return float(seconds.sum())


def _bare() -> float:
    """Return milliseconds of one mask step of the same network and batch size, in a bare loop over one batch."""
    case = Case(
        "fnn", lambda: fnn(42, [400, 400, 200], 20), lambda n: (torch.rand(n, 42), torch.randint(0, 10, (n, 2))),
        lambda net, batch: torch.nn.functional.cross_entropy(net(batch[0]).reshape(-1, 10), batch[1].reshape(-1)), 128, 0,
    )  # fmt: skip
    step = masked(case, case.make().eval(), case.batch(128), 4)
    for _ in range(20):
        step()
    start = time.perf_counter()
    for _ in range(300):
        step()
    return 1e3 * (time.perf_counter() - start) / 300
