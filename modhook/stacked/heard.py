"""Listens, during a stacked call, to what runs by rules and what vmap itself takes sample by sample."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import attrs
from torch import nn

from modhook.stacked.rules.mode import listener


@attrs.frozen
class Heard:
    """Operations by submodule: those that ran by a rule, and those that vmap took sample by sample with a warning."""

    ruled: dict[str, set[str]] = attrs.field(factory=dict)
    slow: dict[str, set[str]] = attrs.field(factory=dict)


@contextmanager
def listening(model: nn.Module) -> Iterator[Heard]:
    """Collect, by submodule, what runs by a rule and what is slow; operations of the backward pass belong to the model."""
    names: dict[int, str] = {id(module): name for name, module in model.named_modules()}
    heard = Heard()

    def running() -> str:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and id(owner) in names:
                return names[id(owner)]
            frame = frame.f_back
        return ""

    def warned(message: Warning | str, *_: Any, **__: Any) -> None:
        if found := re.search(r"batching rule for (\S+?)\.? ", str(message)):
            heard.slow.setdefault(running(), set()).add(found.group(1))

    token = listener.set(lambda operation: heard.ruled.setdefault(running(), set()).add(operation))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = warned
            yield heard
    finally:
        listener.reset(token)
