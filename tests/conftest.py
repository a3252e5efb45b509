"""Shared fixtures: small networks and a thread count that keeps parallel test workers from fighting."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import nn

# Helpers beside the tests are imported by their file's name.
sys.path.insert(0, str(Path(__file__).parent / "processes"))
sys.path.insert(0, str(Path(__file__).parent / "small"))

from warm import Warm

# The suite tries the same examples everywhere and every time, however slow the machine is; `nox -s properties` tries many others.
settings.register_profile("suite", derandomize=True, deadline=None)
settings.register_profile("many", derandomize=False, deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Two test workers on two cores: one thread each."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """Ctrl-C reaches the tests and their child processes also where the suite itself runs in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Starts processes of modhook that have imported everything already; begins with the first test that wants one."""
    started = Warm()
    yield started
    started.close()


@pytest.fixture
def net() -> nn.Module:
    """A small network with weights, biases and a buffer."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).eval()


def _digest(model: nn.Module) -> str:
    """Hash all values, buffers, object identities and flags of a model."""
    h = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        h.update(f"{name} {id(tensor)} {tensor.data_ptr()} {tensor.requires_grad} {tensor.dtype}".encode())
        h.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    h.update(str([m.training for m in model.modules()]).encode())
    return h.hexdigest()


@pytest.fixture
def digest() -> Callable[[nn.Module], str]:
    """A hash of all values, buffers, object identities and flags of a model."""
    return _digest
