"""Tasks, networks and weights that live in memory: offered while something is computed with them.

`modhook.ask` makes a task of its arguments, which no package brings. Within `offering(...)`, `plugins()` finds it beside the
installed ones, and a study that names weights finds them as it would find their file; a worker is sent the offers and makes them
its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from modhook.plugin.hookspecs import Spec

if TYPE_CHECKING:
    from torch import Tensor

_offers: ContextVar[tuple[Offered, ...]] = ContextVar("modhook_offers", default=())


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


@attrs.frozen(eq=False)
class Weights:
    """Tensors by the names of their parameters, {name: (*shape)}, which a study names as it would name their file."""

    name: str
    tensors: Mapping[str, Tensor]


@attrs.frozen(eq=False)
class UnitGroups:
    """Units of a network as text, which a study names as it would name a function that makes them."""

    name: str
    text: str


Offered: TypeAlias = Offer | Weights | UnitGroups


@contextlib.contextmanager
def offering(offers: Sequence[Offered]) -> Iterator[None]:
    """Within it, `plugins()` and studies find these as well."""
    token = _offers.set((*_offers.get(), *offers))
    try:
        yield
    finally:
        _offers.reset(token)


def offers() -> tuple[Offered, ...]:
    """Return everything that is offered now."""
    return _offers.get()


def offered() -> tuple[Offer, ...]:
    """Return the tasks and networks that are offered now."""
    return tuple(offer for offer in _offers.get() if isinstance(offer, Offer))


def offered_weights(name: str) -> Mapping[str, Tensor] | None:
    """Return the weights that are offered now under a name, or None."""
    return next((o.tensors for o in _offers.get() if isinstance(o, Weights) and o.name == name), None)


def offered_units(name: str) -> str | None:
    """Return the units that are offered now under a name, as text, or None."""
    return next((o.text for o in _offers.get() if isinstance(o, UnitGroups) and o.name == name), None)
