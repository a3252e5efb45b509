"""Losses that ask for the complement of the mask they are called under.

Such a loss has a true attribute `complement` and is called as `loss(net, batch, complement)`: within `with complement():` the same
`net` stands for the network under the complement of the same sample. Where a weight w is v under a mask, it is w + off - v under
its complement, `off` being what a weight becomes that is not kept: with v = off + m (w - off) that is off + (1 - m) (w - off).
It is a function of v, so that one backward pass through the sampler has the gradients of both networks, whatever the sampler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import Tensor, nn

from modhook.fit.gates import Gates
from modhook.network.scope import substituted

Loss = Callable[[Callable[..., Any], Any], Tensor]


def asks(loss: Any) -> bool:
    """Return whether a loss wants to be called with the complement."""
    return bool(getattr(loss, "complement", False))


def bound(loss: Any, weights: Mapping[str, Tensor], off: Mapping[str, Tensor] | None = None) -> Loss:
    """Return `loss(net, batch)` of a loss; one that asks for the complement gets it.

    Args:
        loss: the user's.
        weights: the learned parameters before masks, by first name: (*shape).
        off: what each becomes where it is not kept; None: zero.
    """
    if not asks(loss):
        found: Loss = loss
        return found

    def both(net: Any, batch: Any) -> Tensor:
        result: Tensor = loss(net, batch, lambda: _complement(net, weights, off))
        return result

    return both


def inside(
    loss: Any, gates: Gates, weight: Callable[[str], Tensor], off: Mapping[str, Tensor] | None = None
) -> Callable[[Any, Any], Tensor]:
    """Return `function(net, (batch, gates, own))` of a loss that asks for the complement of units: the units that a sample leaves out.

    Args:
        loss: the user's. gates: the units. weight: gives a parameter before masks.
        off: as in `bound`.

    The function is given each group's gates, {group: (n,)}, and the parameters under their own sampled masks, {name: (*shape)}. A
    weight is in the complement if all of its units are, and it itself where weights have masks of their own: as in `~masks`.
    """

    def both(net: Any, told: Any) -> Tensor:
        batch, values, own = told

        def complement() -> AbstractContextManager[None]:
            now: dict[str, Tensor] = dict(net.named_parameters())
            rest = dict(now)
            for name in dict.fromkeys([*gates.factors, *own]):
                whole, base = weight(name), None if off is None else off[name]
                change = whole if base is None else whole - base
                if name in own:
                    change = whole - own[name]
                for group, part in gates.factors.get(name, ()):
                    change = change * part.spread(1 - values[group]).to(change.dtype)
                rest[name] = (change if base is None else change + base).to(now[name].dtype)
            return _within(net, rest)

        result: Tensor = loss(net, batch, complement)
        return result

    return both


def _complement(
    net: nn.Module, weights: Mapping[str, Tensor], off: Mapping[str, Tensor] | None
) -> AbstractContextManager[None]:
    now: dict[str, Tensor] = dict(net.named_parameters())
    rest = dict(now)  # those that are not learned are the same; named, they keep their gradient
    for name, weight in weights.items():
        rest[name] = weight.to(now[name].dtype) - now[name]
        if off is not None:
            rest[name] = rest[name] + off[name].to(now[name].dtype)
    return _within(net, rest)


@contextmanager
def _within(net: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    with substituted(net, weights):
        yield
