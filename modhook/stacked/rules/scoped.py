"""Global switches of torch that are set during a stacked call, and set back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import checkpoint as checkpointing


class _Direct:
    """Stands for the reentrant checkpoint function: calls what it is given."""

    @staticmethod
    def apply(function: Any, _preserve: bool, *args: Any) -> Any:
        """Return `function(*args)`."""
        return function(*args)


def _direct_generator(*_: Any, **__: Any) -> Iterator[None]:
    """Stand for the non-reentrant checkpoint, which runs the function between two steps of a generator."""
    yield


@contextmanager
def stock_switches() -> Iterator[None]:
    """Switch off the fused attention path of eval mode, which vmap cannot run, and activation checkpointing.

    A checkpoint computes its block again in the backward pass, when the model has its own weights back: gradients would
    be wrong without a word. Running the block directly gives the same numbers and takes more memory.

    Recurrent layers on a GPU find their weights exchanged and move them into one piece of memory, in place: stacked ones have no memory
    of their own, and those of one sample are part of others'. cuDNN copies them together in every call instead.
    """
    global _inside, _back
    with _switching:  # of several threads, the first one switches, and the last one back
        if not _inside:
            _back = _switched()
        _inside += 1
    try:
        yield
    finally:
        with _switching:
            _inside -= 1
            if not _inside:
                _back()


def _switched() -> Callable[[], None]:
    """Set the switches, and return how to set them back."""
    fast = torch.backends.mha.get_fastpath_enabled()
    kept = {name: getattr(checkpointing, name) for name in _CHECKPOINTS if hasattr(checkpointing, name)}
    torch.backends.mha.set_fastpath_enabled(False)
    for name in kept:
        setattr(checkpointing, name, _CHECKPOINTS[name])
    flatten = nn.RNNBase.flatten_parameters
    nn.RNNBase.flatten_parameters = _as_they_lie  # type: ignore[assignment, method-assign]

    def back() -> None:
        torch.backends.mha.set_fastpath_enabled(fast)
        for name, original in kept.items():
            setattr(checkpointing, name, original)
        nn.RNNBase.flatten_parameters = flatten  # type: ignore[method-assign]

    return back


def _as_they_lie(layer: nn.RNNBase) -> None:
    """Stand for `flatten_parameters`."""


_CHECKPOINTS = {
    "CheckpointFunction": _Direct,
    "_checkpoint_without_reentrant_generator": _direct_generator,
    "_checkpoint_without_reentrant_generator_impl": _direct_generator,  # torch >= 2.14 calls this one
}
_switching = threading.Lock()
_inside = 0
_back: Callable[[], None] = lambda: None  # noqa: E731
