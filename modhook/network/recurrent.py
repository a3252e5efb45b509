"""Recurrent layers of a network in eval mode, whose gradients cuDNN gives in training mode alone.

A frozen network is in eval mode while its masks learn, so that on a GPU every `nn.LSTM`, `nn.GRU` and `nn.RNN` would end in torch's
"cudnn RNN backward can only be called in training mode". In training mode without dropout a layer computes the same.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

LAYERS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_FUNCTIONS = {getattr(torch._VF, name) for name in LAYERS}
_ARGUMENTS = 9
_CUDNN = {"cuda"}
"""Devices whose kernels keep what a backward pass needs in training mode only."""


def with_gradients(model: nn.Module) -> AbstractContextManager[Any]:
    """Return a context within which recurrent layers in eval mode on a GPU can be differentiated."""
    concerned = any(p.device.type in _CUDNN for p in model.parameters())
    return _Differentiable() if concerned else contextlib.nullcontext()


def differentiable(func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of a call: a whole layer's in eval mode, where gradients are taken on a GPU, for training without dropout."""
    if not whole_layer(func, args) or not torch.is_grad_enabled():
        return args
    dropout = _place_of_dropout(args)
    if args[dropout + 1] or args[0].device.type not in _CUDNN:
        return args
    return without_dropout(args, training=True)


def whole_layer(func: Any, args: tuple[Any, ...]) -> bool:
    """Return whether a call is that of a whole recurrent layer, and not of a cell."""
    return func in _FUNCTIONS and len(args) == _ARGUMENTS


def without_dropout(args: tuple[Any, ...], training: bool | None = None) -> tuple[Any, ...]:
    """Return the arguments of a whole layer with no dropout, and `training` where given."""
    at = _place_of_dropout(args)
    return (*args[:at], 0.0, args[at + 1] if training is None else training, *args[at + 2 :])


def place_of_weights(args: tuple[Any, ...]) -> int:
    """Return where a whole layer's arguments have its weights: (input, states, weights, bias, layers, dropout, training, ...) or, of
    packed sequences, (input, sizes, states, weights, ...).
    """
    return 3 if isinstance(args[3], (list, tuple)) else 2


def _place_of_dropout(args: tuple[Any, ...]) -> int:
    return place_of_weights(args) + 3


class _Differentiable(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*differentiable(func, args), **(kwargs or {}))
