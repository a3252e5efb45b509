"""Tasks and networks that live in memory: offered beside the installed plugins while something is computed with them.

`modhook.ask` makes a task of its arguments, which no package brings. Within `offering(...)`, `plugins()` finds it like any
other; a worker is sent the offers and makes them its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import attrs

from modhook.plugin.hookspecs import Spec

_offers: ContextVar[tuple[Offer, ...]] = ContextVar("modhook_offers", default=())


@attrs.frozen(eq=False)
class Offer:
    """One thing in memory, with what the manager asks of an `Entry`.

    `made` stands for the plugin's class: it has `Options`, and `made(options)` returns the plugin.
    """

    kind: str
    spec: Spec
    made: Any
    distribution: str = "this Python process"

    def load(self) -> Any:
        """Return what stands for the class."""
        return self.made


@contextlib.contextmanager
def offering(offers: Sequence[Offer]) -> Iterator[None]:
    """Within it, `plugins()` finds these as well."""
    token = _offers.set((*_offers.get(), *offers))
    try:
        yield
    finally:
        _offers.reset(token)


def offered() -> tuple[Offer, ...]:
    """Return what is offered now."""
    return _offers.get()
