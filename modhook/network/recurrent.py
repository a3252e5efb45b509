"""Recurrent layers of a network in eval mode, whose gradients cuDNN gives in training mode alone.

A frozen network is in eval mode while its masks learn, so that on a GPU every `nn.LSTM`, `nn.GRU` and `nn.RNN` would end in torch's
"cudnn RNN backward can only be called in training mode". In training mode without dropout a layer computes the same.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

LAYERS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_FUNCTIONS = {getattr(torch._VF, name) for name in LAYERS}
_CUDNN = {"cuda"}
"""Devices whose kernels keep what a backward pass needs in training mode only."""


@contextlib.contextmanager
def with_gradients(model: nn.Module) -> Iterator[None]:
    """Within it, recurrent layers of a network in eval mode on a GPU can be differentiated; where nothing is, they are left alone."""
    if not torch.is_grad_enabled() or not _concerned(model):
        yield
        return
    with warnings.catch_warnings(), _Training():
        # Masked weights are tensors of their own: cuDNN copies them together in every call.
        warnings.filterwarnings("ignore", message=".*RNN module weights are not part of single contiguous chunk.*")
        yield


def trained(args: tuple[Any, ...], training: bool | None = None) -> tuple[Any, ...]:
    """Return the arguments of a whole layer with no dropout, and `training` where given.

    They are (input, states, weights, bias, layers, dropout, training, ...), or packed: (input, sizes, states, weights, ...).
    """
    at = 6 if isinstance(args[3], (list, tuple)) else 5
    return (*args[:at], 0.0, args[at + 1] if training is None else training, *args[at + 2 :])


class _Training(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FUNCTIONS and len(args) == _ARGUMENTS and not args[7 if isinstance(args[3], (list, tuple)) else 6]:
            args = trained(args, training=True)
        return func(*args, **(kwargs or {}))


_ARGUMENTS = 9


def _concerned(model: nn.Module) -> bool:
    first = next(model.parameters(), None)
    if first is None or first.device.type not in _CUDNN:
        return False
    return any(isinstance(m, nn.RNNBase) and not m.training for m in model.modules())
