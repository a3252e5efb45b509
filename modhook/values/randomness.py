"""The random states that belong to the process and not to us: torch's, numpy's and Python's own."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def random_state() -> dict[str, Any]:
    """Return every global random state: torch's (with those of CUDA devices in use), numpy's, Python's."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda_states(),
        "numpy": np.random.get_state(legacy=False),
        "python": random.getstate(),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Set every global random state to `random_state()`'s result."""
    torch.set_rng_state(state["torch"])
    set_cuda_states(state["cuda"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])


def cuda_states() -> list[Tensor]:
    """Return the random state of every CUDA device, as long as CUDA is in use: what dropout on a GPU draws from."""
    return list(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else []


def set_cuda_states(states: Sequence[Tensor]) -> None:
    """Set them to `cuda_states()`'s result; those of devices that are not here have no place."""
    for device, state in zip(range(torch.cuda.device_count()), states, strict=False):
        torch.cuda.set_rng_state(state, device)


def drawing(device: torch.device) -> str:
    """Return what numbers drawn on a device depend on: its name, and of a GPU its kind, by which torch divides a draw among its parts."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """At the end every global random state is as it was before, whatever was drawn within it."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed every global random state; at the end each is as it was before."""
    with undisturbed():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield
