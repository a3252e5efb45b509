"""Says that a network and its batches lie on different devices, where torch says it of two of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from modhook.errors import UserError

_APART = re.compile(r"same device|mixes devices|on the current device|Tensor\) and (weight|bias) type")
"""What torch says of tensors of two devices, in its words for products, recurrent layers, lookups and convolutions."""


@contextmanager
def on_one_device(model: nn.Module, batch: Any) -> Iterator[None]:
    """Turn torch's error about tensors on two devices into a `UserError` with both, if no tensor of the batch is where the network is.

    Nothing is looked at before torch raises: a loss may move its batch itself.
    """
    try:
        yield
    except RuntimeError as error:
        if not _APART.search(str(error)):
            raise
        here = {p.device for p in model.parameters()}
        there = {leaf.device for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor)}
        if len(here) != 1 or not there or here & there:
            raise
        (device,) = here
        raise UserError(
            f"the network is on {device} and the batches are on {', '.join(sorted(map(str, there)))}; move one of them with .to(...)."
        ) from error
