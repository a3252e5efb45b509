"""One thread at a time in a network: while it is lent out, other tensors stand in the user's own object.

Calls of this library on one network take turns, step by step. A block that the user holds open (`with masks.applied_to(model):`)
has no end in sight: other threads wait for it for a while, and are then refused.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from modhook.errors import UserError

PATIENCE = 10.0
"""Seconds that a thread waits for a block that another one holds open."""
_POLL = 0.05


class _Turn:
    """Who may use one network."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.blocks = 0


_turns: dict[int, tuple[weakref.ref[nn.Module], _Turn]] = {}
_making = threading.Lock()


@contextmanager
def using(model: nn.Module, *, block: bool = False) -> Iterator[None]:
    """Within it, no other thread lends this network out; `block` says that the user decides when it ends.

    Raises:
        UserError: another thread holds a block open for longer than `PATIENCE`.
    """
    turn = _turn(model)
    waited: float | None = None
    while not turn.lock.acquire(timeout=_POLL):
        if not turn.blocks:
            waited = None
        elif waited is None:
            waited = time.monotonic()
        elif time.monotonic() - waited > PATIENCE:
            raise UserError(
                f"another thread holds this {type(model).__name__} under masks (inside `with masks.applied_to(model):`); leave "
                "that block first, or give each thread a copy of its own, masks.materialize(model) or copy.deepcopy(model)."
            )
    turn.blocks += block
    try:
        yield
    finally:
        turn.blocks -= block
        turn.lock.release()


def _turn(model: nn.Module) -> _Turn:
    """Return a network's turn; by identity, because a network may have an equality of its own."""
    key = id(model)
    with _making:
        known = _turns.get(key)
        if known is None or known[0]() is not model:
            known = _turns[key] = (weakref.ref(model, lambda ref: _forget(key, ref)), _Turn())
        return known[1]


def _forget(key: int, ref: weakref.ref[nn.Module]) -> None:
    # Without the lock: a network may be collected at any moment, within it too.
    if (known := _turns.get(key)) is not None and known[0] is ref:
        _turns.pop(key, None)
