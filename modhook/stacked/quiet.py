"""Switches dropout off inside a scope, wherever it is called from, so that two runs can be compared."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from modhook.network.recurrent import whole_layer, without_dropout

# {function: (name of the argument, its value without dropout)}
_QUIET: dict[Callable[..., Any], tuple[str, Any]] = {
    F.dropout: ("p", 0.0),
    F.dropout1d: ("p", 0.0),
    F.dropout2d: ("p", 0.0),
    F.dropout3d: ("p", 0.0),
    F.alpha_dropout: ("p", 0.0),
    F.feature_alpha_dropout: ("p", 0.0),
    F.multi_head_attention_forward: ("dropout_p", 0.0),
}
_IDENTITY = {
    torch.dropout,
    torch.dropout_,
    torch.feature_dropout,
    torch.feature_dropout_,
    torch.alpha_dropout,
    torch.alpha_dropout_,
    torch.feature_alpha_dropout,
    torch.feature_alpha_dropout_,
}
_POSITIONS = {function: list(inspect.signature(function).parameters) for function in _QUIET}


class NoDropout(TorchFunctionMode):
    """Within it, dropout in any form keeps everything."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func` with its dropout probability set to 0."""
        kwargs = dict(kwargs or {})
        if func in _IDENTITY:
            return args[0] if args else kwargs["input"]
        if func in _QUIET:
            name, value = _QUIET[func]
            args, kwargs = _set(_POSITIONS[func].index(name), name, value, args, kwargs)
        elif func is F.scaled_dot_product_attention:
            args, kwargs = _set(4, "dropout_p", 0.0, args, kwargs)
        elif whole_layer(func, args):
            args = without_dropout(args)
        return func(*args, **kwargs)


def _set(
    index: int, name: str, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if index < len(args):
        return (*args[:index], value, *args[index + 1 :]), kwargs
    return args, {**kwargs, name: value}
