"""Cuts through the ranking of a fit: by size, by share, by what they still score."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import numpy as np
from annotated_types import Ge, Lt
from torch import Tensor, nn

from modhook.errors import UserError
from modhook.masks import Masks
from modhook.masks.evaluation import mean_score
from modhook.masks.order import Order, areas, smallest_enough
from modhook.network.threads import using
from modhook.unit.group import Group
from modhook.values.arguments import batches_of, checked, ended, function
from modhook.values.randomness import seeded

if TYPE_CHECKING:
    import xarray as xr

LOOKED_AT = 40
"""Sizes, evenly apart on a logarithmic scale, that are looked at for the smallest cut that scores enough."""
Score = Callable[[nn.Module, Any], "Tensor | Mapping[str, Tensor]"]


@attrs.define
class Cuts:
    """The cuts through learned logits, on the network that they were learned on; fixed masks stay as they are in each.

    `units` are those among the logits. `off` is what weights become that are not kept; None: zero. `weights` are those that were
    learned with the masks.
    """

    model: nn.Module
    order: Order
    fixed: Masks | None = None
    off: Mapping[str, Tensor] | None = None
    weights: Mapping[str, Tensor] | None = None
    units: Mapping[str, Group] | None = None

    def at(self, count: int) -> Masks:
        """Return the masks that keep the `count` most needed weights."""
        return self._masks(self.order.cut(count))

    def without(self, count: int) -> Masks:
        """Return the masks that keep all but the `count` most needed weights."""
        cut = {name: ~mask for name, mask in self.order.cut(count).items()}
        return self._masks(cut)

    def _masks(self, cut: Mapping[str, Tensor]) -> Masks:
        groups = {**(self.units or {}), **({} if self.fixed is None else self.fixed._groups)}
        return Masks({**cut, **(self.fixed or {})}, self.model, units=groups)

    def curve(
        self, batches: Iterable[Any], score: Score, points: int, metric: str | None, own: int | None
    ) -> xr.Dataset:
        """Return score of cut and complement over size; see `Fit.curve`."""
        import xarray as xr

        measured = Measured(self.model, batches, score, metric, self.off, self.weights)
        sizes = sorted({*self.order.sizes(points), *([own] if own else [])})
        values = np.array([[measured(self.at(n)), measured(self.without(n))] for n in sizes])  # (points, 2)
        density = np.array(sizes) / self.order.size
        whole, nothing = measured(None), measured(self.at(0))
        return xr.Dataset(
            {
                "score": ("density", values[:, 0], {"long_name": "score under the cut"}),
                "complement": ("density", values[:, 1], {"long_name": "score without the cut"}),
                "kept": ("density", np.array(sizes), {"long_name": "weights kept"}),
            },
            coords={"density": ("density", density, {"long_name": "share of weights kept"})},
            attrs={
                "unmasked": whole,
                "nothing": nothing,
                "threshold": math.nan if own is None else own / self.order.size,
                **areas(density, values[:, 0], nothing, whole),
            },
        )

    def smallest(
        self, measured: Callable[[Masks | None], float], within: float, reference: float | None, *own: int | None
    ) -> Masks:
        """Return the smallest cut whose score stays within; see `Fit.smallest`. `own` are sizes to look at too."""
        within = checked_loss(within)
        goal = measured(None) if reference is None else checked("reference", reference, float)
        least = goal - within * abs(goal)
        if (best := measured(self.at(self.order.size))) < least:
            raise UserError(
                f"no cut scores within {within:g} of {goal:.4g}: with every weight kept it is {best:.4g}; "
                "raise within, or give the reference to compare with."
            )
        every = self.order.size

        def at(size: int) -> float:
            try:
                return best if size == every else measured(self.at(size))
            except NotFinite:  # under these masks alone: they are not enough
                return -math.inf

        found = smallest_enough(
            at,
            [*self.order.sizes(LOOKED_AT), *(size for size in own if size), every],
            least,
        )
        assert found is not None  # all weights together score enough
        return self.at(found)


class NotFinite(UserError):
    """A score that is no finite number."""


class Measured:
    """One number for masks: the mean of a score over the same batches each time.

    `weights` stand in the network meanwhile, where it was learned together with the masks: {name: (*shape)}.
    """

    marked = False
    """Whether the score gets batches with what is shared in them still marked."""

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        score: Score,
        metric: str | None = None,
        off: Mapping[str, Tensor] | None = None,
        weights: Mapping[str, Tensor] | None = None,
        hint: str = "say which with metric=",
    ) -> None:
        batches_of("batches", batches)
        function("score", score, "score(model, batch)")
        self.hint = hint
        self.model, self.score, self.metric, self.off, self.weights = model, score, metric, off, weights or {}
        self.batches = batches if isinstance(batches, list | tuple) else ended("batches", batches)

    def __call__(self, masks: Masks | None) -> float:
        """Return the mean score under masks, or without. Raises `UserError`.

        A network that draws random numbers (dropout in training mode) draws the same ones each time: masks are compared, not draws.
        """
        with seeded(0), _having(self.model, self.weights):
            found = mean_score(self.model, masks, self.batches, self.score, off=self.off, marked=self.marked)
        if isinstance(found, Mapping):
            if self.metric is None and len(found) > 1:
                raise UserError(f"score returns several metrics ({', '.join(found)}); {self.hint}.")
            name = self.metric if self.metric is not None else next(iter(found))
            if name not in found:
                raise UserError(f"score returns no metric {name!r}; it returns {', '.join(found)}.")
            found = found[name]
        return self.finite(float(found), masks)

    def finite(self, found: float, masks: Masks | None) -> float:
        """Return a mean that can be compared. Raises `NotFinite` for any other."""
        if not math.isfinite(found):
            of = "" if masks is None else f" under masks that keep {masks.kept()} of {masks.size} weights"
            raise NotFinite(f"the score is {found}{of}, which cannot be compared; give a score that is a finite number.")
        return found


@contextmanager
def _having(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Within it the network has these weights, {name: (*shape)}; afterwards its own, in their own memory."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    with using(model):
        own = [(parameters[n], parameters[n].data) for n in weights]
        try:
            for name, weight in weights.items():  # not in place: another parameter may stand on the same memory
                parameters[name].data = weight.to(parameters[name].device, parameters[name].dtype)
            yield
        finally:
            for parameter, before in reversed(own):
                parameter.data = before


def checked_loss(within: Any) -> float:
    """Return the share of a score that may be lost. Raises `UserError` unless it is from 0 to below 1."""
    return float(checked("within", within, Annotated[float, Ge(0), Lt(1)]))
