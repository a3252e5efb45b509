"""Numbers between devices: what waits for a device is gathered and waited for once, what need not wait does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def read(tensors: Sequence[Tensor]) -> list[float]:
    """Return tensors of one number each as Python's numbers, in one transfer where all lie on one device.

    Each alone would wait for all work that its device still has to do.
    """
    if len(tensors) < 2 or any(t.device.type == "cpu" or t.device != tensors[0].device for t in tensors):
        return [float(t) for t in tensors]
    found: list[float] = torch.stack([t.detach().reshape(()).double() for t in tensors]).tolist()
    return found


def floats(values: Mapping[str, float | Tensor]) -> dict[str, float]:
    """Return the same with Python's numbers in the places of tensors, read together."""
    waiting = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    found = dict(zip(waiting, read(list(waiting.values())), strict=True))
    return {name: found[name] if isinstance(value, Tensor) else value for name, value in values.items()}


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device, (*shape): from the CPU to a GPU through memory that the GPU reads itself, so that nothing waits."""
    if device.type == "cuda" and tensor.device.type == "cpu" and tensor.layout is torch.strided and not tensor.is_pinned():
        # Not pin_memory(), which keeps strides and so cannot write what was expanded.
        tensor = torch.empty_like(tensor, pin_memory=True).copy_(tensor)
    return tensor.to(device, non_blocking=tensor.device.type == "cpu")
