"""Keep one function and lose another, under a mask and under its complement, in one fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import attrs
from torch import Tensor

from modhook.errors import UserError
from modhook.values.arguments import batches_of, checked, function, shown
from modhook.values.bounds import NotNegative

Loss = Callable[[Any, Any], Tensor]
_END = object()


@attrs.frozen
class KeepAndLose:
    """What `keep_and_lose` returns: a loss of which two networks are asked for, see `modhook.fit.complement`."""

    loss: Loss
    other: Loss
    lost: tuple[float, float]
    mask: tuple[float, float]
    without: tuple[float, float]

    @property
    def complement(self) -> bool:
        """Whether it is called with a third argument, `complement`: within `with complement():` `net` stands for the rest."""
        return any(self.without)

    def __call__(
        self, net: Any, batch: Any, complement: Callable[[], AbstractContextManager[None]] | None = None
    ) -> Tensor:
        """Return the loss of one group, a scalar."""
        if not isinstance(batch, Mapping) or set(batch) != {"keep", "lose"}:
            raise UserError(
                'keep_and_lose needs batches {"keep": ..., "lose": ...}, one of each function; '
                "modhook.objectives.together(keep=..., lose=...) makes them."
            )
        if self.complement and complement is None:
            raise UserError("the complement of a mask is known while masks are learned only: give this loss to fit_masks.")
        parts = [self._part(net, batch, self.mask, keep=0)]
        with (complement or nullcontext)():
            parts.append(self._part(net, batch, self.without, keep=1))
        found = [part for part in parts if part is not None]
        total = found[0]
        for part in found[1:]:
            total = total + part
        return total

    def whole(self, net: Any, batch: Any, samples: int) -> Any:
        """Return a batch that is to be cut into groups with what its losses need to know of the whole."""
        if not isinstance(batch, Mapping) or set(batch) != {"keep", "lose"}:
            return batch
        both = {"keep": self.loss, "lose": self.other}
        found = {name: _whole(loss, net, batch[name], samples) for name, loss in both.items()}
        return batch if all(found[name] is batch[name] for name in both) else found

    def _part(self, net: Any, batch: Any, weights: tuple[float, float], keep: int) -> Tensor | None:
        """Return the loss of the two functions under one network, of which number `keep` is to be kept; None without any."""
        total = None
        for i, (loss, items) in enumerate(((self.loss, batch["keep"]), (self.other, batch["lose"]))):
            if not weights[i]:
                continue
            value = loss(net, items)
            if i != keep:
                value = (self.lost[i] - value).clamp(min=0)
            total = weights[i] * value if total is None else total + weights[i] * value
        return total


def keep_and_lose(
    loss: Loss,
    lost: float | tuple[float, float],
    other: Loss | None = None,
    *,
    mask: tuple[float, float] = (1.0, 1.0),
    complement: tuple[float, float] = (1.0, 1.0),
) -> KeepAndLose:
    """Return a loss that keeps one function under a mask and loses another, and the other way round under its complement.

    With l1, l2 the losses of the two functions, m a sampled mask, 1 - m its complement over all weights that are learned, and
    h(l) = max(0, lost - l), which is 0 once a function is lost:

        mask[0] l1(m) + mask[1] h2(l2(m)) + complement[0] h1(l1(1 - m)) + complement[1] l2(1 - m).

    Both networks are run on the same sample in the same step; what a weight becomes where it is not kept is that of the fit.
    Fixed masks are the same under both.

    Args:
        loss: `loss(net, batch)` of the function that the mask keeps.
        lost: the loss at which a function counts as lost, such as that of guessing, log(classes); one number, or one for each.
        other: that of the function that the mask loses; by default `loss`, on batches of its own.
        mask, complement: the weight of each function's term under the mask and under its complement; a term of weight 0 is not
            computed.

    The batches are `{"keep": batch, "lose": batch}`, both with the same number of items; see `together`.

    Raises:
        UserError: a loss that is no function, weights that are no numbers of at least 0 or that are all 0; when called, another
            batch, or without `fit_masks`.
    """
    function("loss", loss, "loss(net, batch)")
    if other is not None:
        function("other", other, "loss(net, batch)")
    pairs = {
        "lost": _pair("lost", lost if isinstance(lost, tuple | list) else (lost, lost), float),
        "mask": _pair("mask", mask, NotNegative),
        "complement": _pair("complement", complement, NotNegative),
    }
    if not any(pairs["mask"] + pairs["complement"]):
        raise UserError("every weight of keep_and_lose is 0, so there is nothing to learn; give mask= or complement= one.")
    return KeepAndLose(loss, other or loss, *pairs.values())


def _whole(loss: Any, net: Any, batch: Any, samples: int) -> Any:
    prepare = getattr(loss, "whole", None)
    return batch if prepare is None else prepare(net, batch, samples)


def _pair(name: str, value: Any, kind: Any) -> tuple[float, float]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise UserError(f"{name} must be two numbers, of the function to keep and of the other one, not {shown(value)}.")
    return checked(name, value[0], kind), checked(name, value[1], kind)


@attrs.frozen
class Together:
    """What `together` returns."""

    keep: Iterable[Any]
    lose: Iterable[Any]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        sources = {"keep": self.keep, "lose": self.lose}
        places = {name: iter(source) for name, source in sources.items()}
        ended: set[str] = set()
        while True:
            drawn = {name: next(place, _END) for name, place in places.items()}
            ends = {name for name, batch in drawn.items() if batch is _END}
            # A pass is as long as the longer of the two; an iterator cannot start again.
            if len(ended | ends) == 2 or any(places[name] is sources[name] for name in ends):
                return
            for name in ends:
                places[name] = iter(sources[name])
                drawn[name] = next(places[name], _END)
                if drawn[name] is _END:
                    raise UserError(f"there is no batch in {name}=.")
            ended |= ends
            yield drawn


def together(keep: Iterable[Any], lose: Iterable[Any]) -> Together:
    """Return the batches of two functions side by side, for `keep_and_lose`: {"keep": batch, "lose": batch}.

    Args:
        keep, lose: iterables of batches. One pass is as long as the longer of the two; the other one starts again meanwhile. An
            iterator, which cannot, ends it.

    Raises:
        UserError: what is no iterable of batches.
    """
    batches_of("keep", keep)
    batches_of("lose", lose)
    return Together(keep, lose)
