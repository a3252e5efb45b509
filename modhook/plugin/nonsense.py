"""Answers that mean nothing: the classes of a task change places.

Like the interfaces, this module imports torch only when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modhook.errors import DataError, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from modhook.plugin.interfaces import Batch, Task


def permuted(task: Task, data: Batch, stage: str, seed: int) -> Batch:
    """Return `data` with the classes of the stage's training data moved in one cycle; see `Task.nonsense`."""
    import torch

    name = task.label_name
    if name is None:
        raise UserError(
            f"the task {type(task).__name__} does not say what its labels are: give it label_name, or a method nonsense."
        )
    found = _labels(task.train_set(stage), name, f"the training data of {stage}")
    known: Tensor = torch.unique(found.long())  # (C,), in order
    if len(known) < 2:
        raise UserError(f"the labels {name!r} of stage {stage!r} are all of one class, which cannot change places.")
    return {**data, name: moved(_labels(data, name, "the data"), known, stage, seed)}


def moved(values: Tensor, known: Tensor, stage: str, seed: int) -> Tensor:
    """Return `values` with each of the `known` ones (C,), sorted, replaced by another: a random cycle through all of them.

    Other values stay. The cycle depends on stage, seed and the number of known values alone.
    """
    import numpy as np
    import torch

    order = np.random.default_rng([seed, *stage.encode()]).permutation(len(known))  # (C,)
    target = torch.empty_like(known)
    target[torch.from_numpy(order)] = known[
        torch.from_numpy(np.roll(order, 1))
    ]  # each takes the place of the one before
    wide = values.long()
    index = torch.searchsorted(known, wide).clamp(max=len(known) - 1)
    return torch.where(known[index] == wide, target[index], wide).to(values.dtype)


def _labels(data: Batch, name: str, what: str) -> Tensor:
    values: Any = data.get(name)
    if values is None or values.is_floating_point() or values.is_complex():
        kind = "there is none" if values is None else f"it holds {values.dtype}"
        raise DataError(f"label_name is {name!r}, a tensor of whole numbers in every data set, but in {what} {kind}.")
    return values  # type: ignore[no-any-return]
