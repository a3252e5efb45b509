"""Says that a network and its batches lie on different devices, where torch says it of two of its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from modhook.errors import UserError


@contextmanager
def meeting(model: nn.Module, batch: Any, what: str = "the batches are") -> Iterator[None]:
    """Within it, torch's error about devices becomes a `UserError` that names them, if all of the batch lies apart from the network.

    It is looked for only then: a loss may bring its batch to the network itself.
    """
    try:
        yield
    except RuntimeError as error:
        if "device" not in str(error).lower() and "cuda" not in str(error).lower():
            raise
        here = {p.device for p in model.parameters()}
        there = {leaf.device for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor)}
        if len(here) != 1 or not there or here & there:
            raise
        (device,) = here
        raise UserError(
            f"the network is on {device} and {what} on {', '.join(sorted(map(str, there)))}; move one of them with .to(...)."
        ) from error
