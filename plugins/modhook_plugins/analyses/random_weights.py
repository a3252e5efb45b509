"""Weights drawn at random, as many of each tensor as a mask has: what masks and removals must be compared with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from modhook import Masks, Task, Variable


def drawn(size: Masks, *labels: str | int, spared: Masks | None = None) -> Masks:
    """Return masks that keep as many weights of each tensor as `size` does, each set of them equally likely.

    With `spared`, of the weights that it does not keep; where these are fewer, all of them. The draw depends on the labels and on the
    tensor's name alone, on no other tensor and no order.
    """
    left = dict.fromkeys(size) if spared is None else {name: ~spared[name] for name in size}
    return size.like({n: _one(mask.shape, int(mask.sum()), left[n], [*labels, n]) for n, mask in size.items()})


def score_variables(group: str, task: Task, doc: str, draws: str | None = None) -> list[Variable]:
    """Declare the scores of several draws: their mean (stage, split), and each in `draws`, by default beside the group."""
    mean, each = group, draws or _draws(group)
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


def mean_and_each(
    group: str, each: Mapping[str, NDArray[np.float64]], draws: str | None = None
) -> dict[str, NDArray[np.float64]]:
    """Return the values of `score_variables` from those of every draw: {metric: (stage, draw, split)}."""
    apart = draws or _draws(group)
    return {f"{group}/{m}": v.mean(1) for m, v in each.items()} | {f"{apart}/{m}": v for m, v in each.items()}


def _draws(group: str) -> str:
    return f"{group.partition('/')[0]}/draws"


def _one(
    shape: Sequence[int], count: int, among: torch.Tensor | None, labels: Sequence[str | int]
) -> torch.Tensor:
    """Return a tensor with `count` of its places chosen, or of those of `among`, and no more than there are."""
    text = json.dumps(labels).encode()
    rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little"))
    flat = np.zeros(int(np.prod(shape, dtype=np.int64)), dtype=bool)
    if among is None:
        flat[rng.choice(flat.size, count, replace=False, shuffle=False)] = True
    else:
        places = np.flatnonzero(among.numpy())
        flat[places[rng.choice(places.size, min(count, places.size), replace=False, shuffle=False)]] = True
    return torch.from_numpy(flat).view(tuple(shape))
