"""Weights drawn at random, as many of each tensor as a mask has: what masks and removals must be compared with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from modhook import Masks, Task, Variable


def drawn(size: Masks, *labels: str | int) -> Masks:
    """Return masks that keep as many weights of each tensor as `size` does, each set of them equally likely.

    The draw depends on the labels and on the tensor's name alone, on no other tensor and no order.
    """
    return size.like({name: _one(mask.shape, int(mask.sum()), [*labels, name]) for name, mask in size.items()})


def score_variables(group: str, task: Task, doc: str) -> list[Variable]:
    """Declare the scores of several draws: their mean (stage, split), and each in the group's `draws`."""
    mean, each = group, f"{group.partition('/')[0]}/draws"
    return [
        *(
            Variable(
                f"{mean}/{m}",
                ("stage", "split"),
                "float64",
                f"mean {m} {doc}, mean over the draws",
                attrs={"table": task.table(m)},
            )
            for m in task.metrics
        ),
        *(Variable(f"{each}/{m}", ("stage", "draw", "split"), "float64", f"mean {m} {doc}") for m in task.metrics),
    ]


def mean_and_each(group: str, each: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Return the values of `score_variables` from those of every draw: {metric: (stage, draw, split)}."""
    draws = f"{group.partition('/')[0]}/draws"
    return {f"{group}/{m}": v.mean(1) for m, v in each.items()} | {f"{draws}/{m}": v for m, v in each.items()}


def _one(shape: Sequence[int], count: int, labels: Sequence[str | int]) -> torch.Tensor:
    text = json.dumps(labels).encode()
    rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little"))
    flat = np.zeros(int(np.prod(shape, dtype=np.int64)), dtype=bool)
    flat[rng.choice(flat.size, count, replace=False, shuffle=False)] = True
    return torch.from_numpy(flat).view(tuple(shape))
