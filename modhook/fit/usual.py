"""What `fit_masks` does where a call does not say how to learn: the setting that `nox -s truth` found to be right (docs/real.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from modhook.fit.groups import batch_size

RANKING = "integrated_gradients"
"""The ranking whose weights masks are learned among."""
RANKED_BY = 8
"""Batches that it looks at."""
MOST_COPIES = 1 << 21
"""Weights in all samples together, above which samples are fewer, down to `FEWEST`: of 406,000 weights 4 find what 16 find."""
FEWEST = 4
WITHIN_OF_LOSS = 0.003
"""The share of what a network saves on its loss that masks may lose where nothing else is said, chosen on known ones (docs/real.md)."""
WITHIN_OF_SCORE = 0.001
"""The share of a score that masks may lose where only a score is given."""
SAYS_HOW = {
    "beta": None,
    "beta_start": None,
    "init": None,
    "density": None,
    "train_weights": None,
    "optimizer": "adam",
    "clip_over": "logits",
    "carried": None,
    "warmup": 0,
    "reg_batch": None,
    "scale_regulariser": False,
    "relative_beta": False,
    "stop": None,
    "units": "weight",
}
"""Arguments that say how to learn, with their defaults: a call that gives one of them, and no sampler, means `gumbel`."""


@attrs.frozen
class Setting:
    """Arguments of `fit_masks` that follow from the sampler, where they are not given."""

    sampler: str
    steps: int
    samples: int
    lr: float
    init: float | None = None
    beta: float | None = None
    beta_start: float | None = None
    relative_beta: bool = False
    among: str | None = None


GUMBEL = Setting("gumbel", steps=2000, samples=4, lr=1e-2)
"""The paper's, which a named sampler has, too."""
USUAL = Setting(
    "hard_concrete", steps=400, samples=16, lr=0.1, init=3.0, beta=50.0, beta_start=0.01, relative_beta=True, among=RANKING
)


def says_how(given: Mapping[str, Any]) -> bool:
    """Return whether a call says how to learn: by its sampler, or by an argument that belongs to one."""
    if given["sampler"] is not None:
        return True
    return any(given[name] is not default and given[name] != default for name, default in SAYS_HOW.items())


def most_samples(weights: int) -> int:
    """Return K for a network of so many masked weights, whatever its batches have."""
    most = USUAL.samples
    while most > FEWEST and most * weights > MOST_COPIES:
        most //= 2
    return most


def samples_for(batch: Any, weights: int) -> int:
    """Return K for the usual setting: at most 16, fewer for many weights, and a divisor of the batch's items.

    Args:
        batch: the first one. weights: those that are masked.
    """
    items, most = max(1, batch_size(batch)), most_samples(weights)
    return max(k for k in range(1, most + 1) if items % k == 0)
