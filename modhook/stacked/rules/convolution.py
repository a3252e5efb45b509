"""Convolutions on CPU: vmap makes K convolutions one grouped convolution, which oneDNN runs slower than K plain ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.nn import functional as F

from modhook.stacked.rules.bridge import is_stacked
from modhook.stacked.rules.memory import Memory
from modhook.stacked.rules.recurrent import per_sample

CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def convolution(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the stock kernel once per sample where the weights are stacked on CPU; what is around it stays vectorised."""
    weight = args[1] if len(args) > 1 else kwargs["weight"]
    if weight.device.type != "cpu" or not is_stacked(weight):
        return NotImplemented
    return per_sample(memory, func, args, kwargs, 1)
