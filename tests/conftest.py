"""Shared fixtures: small networks and a thread count that keeps parallel test workers from fighting."""

from __future__ import annotations

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Two test workers on two cores: one thread each."""
    torch.set_num_threads(1)


@pytest.fixture
def net() -> nn.Module:
    """A small network with weights, biases and a buffer."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).eval()
