"""Global switches of torch that are set during a stacked call, and set back."""

from __future__ import annotations

import threading
import warnings
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
    _own.depth = getattr(_own, "depth", 0) + 1
    with _switching:  # of several threads, the first one switches, and the last one back
        if not _inside:
            _back = _switched()
        _inside += 1
    try:
        yield
    finally:
        _own.depth -= 1
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

    def flatten_elsewhere(layer: nn.RNNBase) -> None:
        """Leave weights where they lie; layers of other threads are no business of ours."""
        if not getattr(_own, "depth", 0):
            flatten(layer)

    nn.RNNBase.flatten_parameters = flatten_elsewhere  # type: ignore[assignment, method-assign]
    if torch.cuda.is_initialized() and not any(getattr(message, "pattern", "") == _LYING for _, message, *_ in warnings.filters):
        # For good: to exchange filters in every step would show every other warning in every step.
        warnings.filterwarnings("ignore", message=_LYING)

    def back() -> None:
        torch.backends.mha.set_fastpath_enabled(fast)
        for name, original in kept.items():
            setattr(checkpointing, name, original)
        nn.RNNBase.flatten_parameters = flatten  # type: ignore[method-assign]

    return back


_CHECKPOINTS = {
    "CheckpointFunction": _Direct,
    "_checkpoint_without_reentrant_generator": _direct_generator,
    "_checkpoint_without_reentrant_generator_impl": _direct_generator,  # torch >= 2.14 calls this one
}
_LYING = "RNN module weights are not part of single contiguous chunk of memory"
"""What torch warns of in every call of a recurrent layer on a GPU whose weights were exchanged."""
_switching = threading.Lock()
_own = threading.local()
_inside = 0
_back: Callable[[], None] = lambda: None  # noqa: E731
