"""A study of four runs whose network can be slow or kill its process, and ways to run it."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from warm import Process, Warm

NETWORK = """
import os, signal, time
from pathlib import Path
from torch import nn
from modhook.run.context import Context
from modhook_tasks.addmul import AddMul

FOLDER = Path(__file__).parent
BROKEN = os.environ.get("BROKEN_STAGES", "").split("|") if "BROKEN_STAGES" in os.environ else ()
calls, now = 0, ""


class Independent(AddMul):
    independent = True


class Net(nn.Sequential):
    def forward(self, x):
        global calls
        calls += 1
        time.sleep(float(os.environ.get("SLOW", 0)))
        fatal = FOLDER / "kill"
        if calls == 12 and fatal.exists():
            fatal.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if now in BROKEN and os.environ.get("BROKEN_RANK") == os.environ.get("RANK", "none"):
            raise ValueError("broken on purpose")
        if not BROKEN and calls >= 14 and os.environ.get("BROKEN_RANK") == os.environ.get("RANK", "none"):
            raise ValueError("broken on purpose")
        return super().forward(x)


stop, begin = os.environ.get("STOP_BEFORE"), Context.stage  # a stage: every rank is interrupted there


def stage(context, name, steps, **more):
    global now
    now = name
    if name == stop:
        raise KeyboardInterrupt
    return begin(context, name, steps, **more)


Context.stage = stage


def make():
    return Net(nn.Linear(42, 10), nn.ReLU(), nn.Linear(10, 20))
"""
STUDY = """
[study]
name = "four"
seeds = 2
[task]
name = "addmul"
train_size = 300
valid_size = 40
[model]
name = "test_network:make"
[train]
steps = 5
batch = 16
[masks]
steps = 4
samples = 2
lr = 0.8
[analyses]
sharing = {}
[controls]
shuffled = { stages = ["mul"] }
[sweep]
"masks.beta" = [1e-4, 0.1]
[run]
threads = 1
"""


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study file; its network lies beside it."""
    folder = tmp_path_factory.mktemp("four")
    (folder / "test_network.py").write_text(NETWORK)
    (folder / "four.toml").write_text(STUDY)
    return folder / "four.toml"


@pytest.fixture(scope="session")
def start(four: Path, warm: Warm) -> Callable[..., Process]:
    """Start `modhook ARGUMENTS` as a process of its own."""

    def begin(*arguments: str | Path, **environment: str) -> Process:
        paths = [str(four.parent), *(p for p in sys.path if p)]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment}
        return warm.start("-m", "modhook", *arguments, env=env)

    return begin


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, str]]:
    """Hashes of a cube's files, the timing group aside."""

    def hashed(cube: Path) -> dict[str, str]:
        files = (p for p in sorted(cube.rglob("*")) if p.is_file() and p.relative_to(cube).parts[0] != "timing")
        return {str(p.relative_to(cube)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    return hashed


@pytest.fixture(scope="session")
def alone(four: Path, start: Callable[..., Process], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cube that one process computes."""
    out = tmp_path_factory.mktemp("alone")
    process = start("run", four, "--out", out)
    _, err = process.communicate()
    assert process.returncode == 0, err
    return out / "four.zarr"
