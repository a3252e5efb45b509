"""How much of what a network saves on its loss is left under masks: what sizes are chosen by where no score is given.

With L the mean loss over some batches, of the network (`whole`), of what is left with none of the learned weights (`nothing`), and
under masks m, what m recovers is (L(nothing) - L(m)) / (L(nothing) - L(whole)): 1 with every weight, 0 without any. It is the
faithfulness of the circuit literature (Marks et al. 2024, section 4; `Fit.curve` has it for scores), by the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn

from modhook.errors import UserError
from modhook.fit.complement import asks, bound
from modhook.fit.cuts import Measured
from modhook.fit.groups import batch_size, cut, group, plainly
from modhook.fit.losses import Loss
from modhook.masks import Masks
from modhook.network.recurrent import with_gradients
from modhook.values.randomness import undisturbed

LOOKED_AT = 16
"""Batches by which sizes are chosen where no held-out ones are given."""


ROUNDING = 1e-2
"""By how much what groups of a batch save may differ from what the batch saves, and count as the same."""


class Recovered:
    """What masks recover of the loss that the network saves, on the same batches each time.

    Args:
        model: the network, in the mode in which it is measured.
        batches: at least one. loss: as in `fit_masks`.
        every, none: masks that keep all learned weights, and none of them, both with all that is fixed.
        off: as in `Cuts`.

    Raises:
        UserError: a loss that is no number.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        loss: Loss,
        every: Masks,
        none: Masks,
        off: Mapping[str, Tensor] | None = None,
    ) -> None:
        learned = {n: model.get_parameter(n).detach().clone() for n in (every._on(model) if asks(loss) else ())}
        asked = plainly(bound(loss, learned, off))

        def lost(net: nn.Module, batch: Any) -> Tensor:
            with torch.enable_grad(), with_gradients(net):  # a loss may take gradients of its own
                value = float(asked(net, batch).detach())
            return torch.full((batch_size(batch),), value if math.isfinite(value) else math.inf, dtype=torch.float64, device="cpu")

        self._every, self._none = every, none
        self._over: Callable[[Iterable[Any]], Measured] = partial(_Losses, model, score=lost, off=off)
        self._mean = self._over(batches)
        self.share = math.nan
        """What groups of the first batch save over what it saves, once it is known (`unit_of_groups`)."""
        self.raised = ""
        """What the network raised with none of the learned weights."""
        self.whole = self._mean(every)
        try:
            self.nothing = self._mean(none)
        except Exception as error:  # without weights a network may divide by zero, or find no inverse; with them it ran
            self.nothing, self.raised = math.inf, f"{type(error).__name__}: {error}"

    @property
    def gain(self) -> float:
        """L(nothing) - L(whole), what the learned weights save; not above 0, or not finite, where there is nothing to recover."""
        return self.nothing - self.whole

    @property
    def usable(self) -> bool:
        """Whether anything can be compared by it."""
        return math.isfinite(self.gain) and self.gain > 1e-6 * abs(self.nothing)

    @property
    def unit(self) -> float:
        """What a relative beta counts in: what the weights save; where they save nothing, the loss without them; never 0."""
        if self.usable:
            return self.gain
        return abs(self.nothing) if math.isfinite(self.nothing) and self.nothing else 1.0

    def unit_of_groups(self, batch: Any, samples: int) -> float:
        """Return the unit of a loss that is taken of the `samples` groups of a batch, as masks are learned.

        A loss that is a mean over items is the same of groups as of their batch, and has `unit`; of a sum, and of what looks at all items
        of a call, the unit is as many times this one as the first batch's groups save of what they save together.
        """
        items = batch_size(batch)
        if not self.usable or samples == 1 or items % samples:
            return self.unit
        groups = cut(batch, samples)
        together, apart = (
            found(self._none) - found(self._every)
            for found in (self._over([batch]), self._over([group(groups, k) for k in range(samples)]))
        )
        share = self.share = apart / together if together else math.nan
        return self.unit * share if math.isfinite(share) and share > 0 and abs(share - 1) > ROUNDING else self.unit

    @property
    def sentence(self) -> str:
        """Say that nothing can be compared, with the numbers."""
        if self.raised:
            return (
                f"without any of the weights that are learned the network or its loss raises {self.raised.splitlines()[0]!r}, so that what "
                "it saves by them is not known"
            )
        if not math.isfinite(self.nothing):
            return (
                f"the network's loss is {self.whole:.4g} and without any of the weights that are learned it is no finite number, so that "
                "what it saves by them is not known"
            )
        return (
            f"the network's loss is {self.whole:.4g} and without any of the weights that are learned {self.nothing:.4g}: it saves "
            "nothing by them"
        )

    def instead(self, ranked: bool, sizes: bool = True) -> str:
        """Say what is done where nothing can be compared, "" where it can.

        Args:
            ranked: whether masks were learned among a ranking's weights. sizes: whether their size was to be chosen by the loss.
        """
        if self.usable:
            return ""
        done = (
            "the pull counts in a guess of it, and was too strong if hardly a weight is left that is needed"
            if ranked
            else "masks were learned among all weights, and their size was not chosen by the loss; give score= and valid= to choose it by"
            if sizes
            else "masks were learned among all weights, and the pull counts in a guess of it"
        )
        asked = ", or the loss that the network was trained for" if math.isfinite(self.nothing) and not ranked else ""
        return f"{self.sentence}; {done}{asked}"

    def __call__(self, masks: Masks | None) -> float:
        """Return what masks recover; what every weight recovers (1) for None."""
        if masks is None:
            return 1.0
        found = (self.nothing - self._mean(masks)) / self.gain
        return found if math.isfinite(found) else -math.inf


class _Losses(Measured):
    """The mean loss; infinite where it is not finite under some masks, which are then not enough."""

    marked = True

    def finite(self, found: float, masks: Masks | None) -> float:
        return found if math.isfinite(found) else math.inf


def looked_at(batches: Iterable[Any], count: int) -> tuple[list[Any], Iterable[Any]]:
    """Return the first batches, and an iterable that gives what `batches` would have given: these first.

    Drawing disturbs nobody's random numbers. Raises `UserError` if there is none.
    """
    if hasattr(batches, "state_dict") and hasattr(batches, "load_state_dict"):
        before = batches.state_dict()
        with undisturbed():
            found = list(islice(iter(batches), count))
        batches.load_state_dict(before)
        left = batches
    else:
        with undisturbed():  # a loader that shuffles draws a seed for every iterator
            start = iter(batches)
            found = list(islice(start, count))
        left = _Again(found, start) if start is batches else batches
    if not found:
        raise UserError("there is no batch to learn from; give an iterable with at least one usable batch.")
    return found, left


class _Again(Iterator[Any]):
    """An iterator whose first batches were drawn already."""

    def __init__(self, first: list[Any], rest: Iterable[Any]) -> None:
        self._all = chain(first, rest)

    def __next__(self) -> Any:
        return next(self._all)
