"""Stock functions without their own question for modes, so that the operations inside them reach the rules."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from torch.nn import functional as F


def _seen_through(function: Any) -> Callable[..., Any]:
    names = {**function.__globals__, "has_torch_function": lambda _: False}
    same = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    same.__kwdefaults__ = function.__kwdefaults__
    return same


attention_forward = _seen_through(F.multi_head_attention_forward)
