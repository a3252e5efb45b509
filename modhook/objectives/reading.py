"""What an objective needs of a network and of a batch: logits, and tensors such as labels by their place in the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modhook.errors import UserError, listing
from modhook.values.arguments import function, shown

Outputs = Callable[[Any, Any], Tensor]
"""`outputs(net, batch)`: the logits of a batch, classes last: (B, ..., C)."""
Place = str | int | Callable[[Any], Tensor]
"""Where a batch holds something: a key of a mapping, a position in a tuple, or a function of the batch."""
LABELS = "labels"


def outputs_of(net: Any, batch: Any, outputs: Outputs | None, own: Sequence[Any] = ()) -> Tensor:
    """Return the logits of a batch, (B, ..., C), in float32 at least.

    Without `outputs`: of a tensor `net(batch)`; of a tuple or list `net(batch[0])`; of a mapping `net(**batch)`, without `labels`
    and without what the objective itself reads, `own`. What a network returns may hold the logits as `logits`.

    Raises:
        UserError: no tensor of at least two dimensions.
    """
    found: Any
    if outputs is not None:
        found = outputs(net, batch)
    elif isinstance(batch, Tensor):
        found = net(batch)
    elif isinstance(batch, Mapping):
        found = net(**{key: value for key, value in batch.items() if key != LABELS and key not in own})
    elif isinstance(batch, tuple | list) and batch:
        found = net(batch[0])
    else:
        raise UserError(
            f"the network cannot be called with a batch that is {shown(batch)}; give outputs=, a function outputs(net, batch)."
        )
    if not isinstance(found, Tensor):
        found = found.get("logits") if isinstance(found, Mapping) else getattr(found, "logits", found)
    if not isinstance(found, Tensor) or found.dim() < 2 or not found.is_floating_point():
        what = f"{found.dtype} of shape {tuple(found.shape)}" if isinstance(found, Tensor) else shown(found)
        raise UserError(
            f"an objective needs the network's logits, numbers of shape (B, ..., classes), not {what}; give outputs=, a function "
            "outputs(net, batch)."
        )
    return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found


def checked_outputs(outputs: Any) -> None:
    """Raise `UserError` unless `outputs` is None or can be called."""
    if outputs is not None:
        function("outputs", outputs, "outputs(net, batch)")


def checked_place(name: str, place: Any) -> None:
    """Raise `UserError` unless a place in a batch is a key, a position or a function."""
    if isinstance(place, bool) or not (isinstance(place, str | int) or callable(place)):
        raise UserError(
            f"{name} must be a key of the batch, a position in it, or a function of it that returns a tensor, not {shown(place)}."
        )


def taken(name: str, batch: Any, place: Place) -> Tensor:
    """Return what a batch holds at a place. Raises `UserError` if there is no tensor."""
    if callable(place):
        found = place(batch)
    else:
        try:
            found = batch[place]
        except (KeyError, IndexError, TypeError):
            has = f"the keys {listing(map(str, batch))}" if isinstance(batch, Mapping) else shown(batch)
            raise UserError(f"the batch holds no {name} at {place!r}; it has {has}: say where with {name}=.") from None
    if not isinstance(found, Tensor):
        raise UserError(f"{name} must be a tensor, not {shown(found)}.")
    return found


def whole(name: str, found: Tensor) -> Tensor:
    """Return numbers of classes as int64. Raises `UserError` for other numbers."""
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise UserError(f"{name} must be whole numbers, the numbers of classes, not {found.dtype}.")
    return found.long()


def in_range(found: Tensor, low: int, high: int, what: str) -> None:
    """Raise `UserError`, "`what` NUMBER.", unless all numbers are from `low` to below `high`, behind vmap too."""
    while torch._C._functorch.is_functorch_wrapped_tensor(found):
        found = torch._C._functorch.get_unwrapped(found)
    wrong = found[(found < low) | (found >= high)]
    if len(wrong):
        raise UserError(f"{what} {int(wrong[0])}.")
