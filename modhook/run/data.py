"""Batches of a task: drawn with replacement for training, in order for measuring."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modhook.errors import DataError, listing
from modhook.noise.seeding import derive
from modhook.plugin.interfaces import Batch, Task
from modhook.values.moving import moved

SUBSET_SEED = 0xB0C1FA53
SUBSET_SIZE = 1_000


def items(data: Any, what: str) -> int:
    """Return the number of items. Raises `DataError` for what is no data set: tensors by name, with as many items each."""
    if not isinstance(data, Mapping) or not data:
        found = "nothing" if data is None else "no tensor" if isinstance(data, Mapping) else type(data).__name__
        raise DataError(f"{what} must be tensors by name, such as {{'inputs': (N, 8)}}; found {found}.")
    if wrong := [n for n, t in data.items() if not isinstance(t, Tensor) or not t.dim()]:
        found = (
            type(data[wrong[0]]).__name__ if not isinstance(data[wrong[0]], Tensor) else "a tensor without dimensions"
        )
        raise DataError(f"{what} must be tensors by name, with the items first, but {wrong[0]!r} is {found}.")
    sizes = {name: len(t) for name, t in data.items()}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        told = listing(f"{name} {size}" for name, size in sizes.items())
        raise DataError(f"{what} must be tensors with the same number of items, at least one; found {told}.")
    return next(iter(sizes.values()))


class Draw:
    """Endless batches drawn with replacement (reference, section 2); its whole state is two random generators and the task's."""

    def __init__(self, task: Task, stage: str | None, size: int, seed: int, device: torch.device) -> None:
        label = stage or "train"
        self.task, self.size = task, size
        self.data = to_device(task.train_set(stage), device)
        self.count = items(self.data, f"the training data of {label}")
        self.order = np.random.default_rng(derive(seed, label, "order"))
        self.rng = np.random.default_rng(derive(seed, label, "prepare"))
        self.device = device

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        chosen = moved(torch.from_numpy(self.order.integers(self.count, size=self.size)), self.device)  # (B,)
        return self.task.prepare({n: t[chosen] for n, t in self.data.items()}, self.rng, True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both generators and of the task."""
        return {
            "order": self.order.bit_generator.state,
            "prepare": self.rng.bit_generator.state,
            "task": self.task.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`'s result."""
        self.order.bit_generator.state = state["order"]
        self.rng.bit_generator.state = state["prepare"]
        self.task.load_state_dict(state["task"])


def in_order(task: Task, data: Mapping[str, Tensor], size: int, device: torch.device) -> Iterator[Batch]:
    """Yield all items once, in batches of `size`, prepared for measuring."""
    rng = np.random.default_rng(derive("measure"))
    count = items(data, "the data of a split")
    for start in range(0, count, size):
        part = {n: moved(t[start : start + size], device) for n, t in data.items()}
        yield task.prepare(part, rng, False)


def train_subset(task: Task) -> Batch:
    """Return a fixed random subset of the base training set, for measuring: as large as the split `iid`, or else 1,000 items.

    Chosen by `RandomState(0xB0C1FA53)` without replacement (reference, section 2), in the training set's order.
    """
    data = task.train_set(None)
    count = items(data, "the training data of train")
    size = items(task.test_set("iid"), "the data of split iid") if "iid" in task.splits else SUBSET_SIZE
    return _drawn(data, np.random.RandomState(SUBSET_SEED), count, size)


def drawn_once(data: Mapping[str, Tensor], count: int, stage: str) -> Batch:
    """Return `count` items of a stage's training data, or all if it has no more: drawn without replacement, in its order."""
    there = items(data, f"the training data of {stage}")
    return _drawn(data, np.random.default_rng(derive("training items", stage)), there, count)


def _drawn(data: Mapping[str, Tensor], rng: np.random.Generator | np.random.RandomState, there: int, count: int) -> Batch:
    """Return `count` of the items that are there, or all, drawn without replacement, in their order."""
    index = torch.from_numpy(np.sort(rng.choice(there, min(count, there), replace=False)))  # (n,)
    return {name: tensor[index] for name, tensor in data.items()}


def to_device(data: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return the data on a device."""
    return {n: t.to(device) for n, t in data.items()}


def data_fingerprint(task: Task) -> dict[str, str]:
    """Return a hash of every data set of a task: what a cube was computed from."""
    sets = {"train": task.train_set(None)} | {f"test {s}": task.test_set(s) for s in task.splits}
    return {label: _hash(data) for label, data in sets.items()}


def _hash(data: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(data):
        array = data[name].contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape};".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()
