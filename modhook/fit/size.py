"""Which size of masks was asked for: checked before anything runs, held while masks are learned, and cut at the end."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from modhook.errors import PatternError, UserError, listing, near_miss
from modhook.fit.cuts import Cuts, Measured, checked_loss
from modhook.fit.losses import Loss
from modhook.fit.recovered import Recovered
from modhook.fit.target import DensityTarget
from modhook.masks import Masks
from modhook.masks.granular import Masked
from modhook.masks.order import Order, checked_density
from modhook.masks.select import matching
from modhook.plugin.interfaces import Ranking, Sampler
from modhook.steps.checkpoint import interrupted_after
from modhook.values.arguments import batches_of, ended, function
from modhook.values.randomness import undisturbed

BETA = 1e-4
"""The pull of those that ask for no size."""


ONE = "return the one that within= is about"


def _silent(text: str) -> None:
    """Say nothing."""


@attrs.frozen
class Size:
    """How large masks are to be: of given densities, as small as a score allows, or as the sampler's threshold has it.

    Attributes:
        groups: pairs of names, of parameters and units, and the density that these are to have together; empty without `density`.
        within, score, valid: the share of the score that may be lost, how to measure it, and on which batches; without a score, what
            is lost is what masks recover of the loss (`recovered`), which is measured once it is known that the loss works.
        asked: whether somebody asked for `within`; if not, masks that cannot be measured are the sampler's own.
        held: the first of the held-out batches; None without any.
    """

    groups: tuple[tuple[tuple[str, ...], float], ...] = ()
    within: float | None = None
    score: Callable[[nn.Module, Any], Any] | None = None
    valid: Iterable[Any] | None = None
    held: Any = None
    masked: Masked | None = None
    """What is masked, units among it; None: weights alone."""
    asked: bool = True
    recovered: Recovered | None = None

    @property
    def own(self) -> bool:
        """Whether no size was asked for: masks are the sampler's own."""
        return not self.groups and self.within is None

    @property
    def by_loss(self) -> bool:
        """Whether masks are to be as small as what they recover of the loss allows."""
        return self.within is not None and self.score is None

    def tell(self, sampler: Sampler) -> tuple[DensityTarget | None, dict[str, Sampler]]:
        """Tell the sampler its aim; where groups have different ones, copies of it.

        Returns:
            What holds the density on the way (None: nothing to hold), and the sampler of each parameter that has its own.
        """
        if not self.groups:
            return None, {}
        own: dict[str, Sampler] = {}
        for names, density in self.groups:
            one = sampler if len(self.groups) == 1 else copy.copy(sampler)
            one.aim(density)
            own |= dict.fromkeys(names, one)
        return None if sampler.holds_density else DensityTarget(self.groups, own), own

    @torch.inference_mode(False)
    def masks(
        self,
        model: nn.Module,
        logits: Mapping[str, Tensor],
        fixed: Masks | None,
        own: Masks | None,
        off: Mapping[str, Tensor] | None = None,
        weights: Mapping[str, Tensor] | None = None,
        say: Callable[[str], None] = _silent,
        among: Mapping[str, Tensor] | None = None,
    ) -> Masks | None:
        """Return the masks of this size; `weights` were learned with them. Raises `UserError`.

        Looked at is also the size of `among`, the weights and units that masks were learned among: masks that these keep are not larger.

        None: Ctrl-C was pressed while they were measured, where there are the sampler's `own` to return instead.
        """
        if self.groups:
            cut: dict[str, Tensor] = {}
            for names, density in self.groups:
                order = Order({n: logits[n] for n in names})
                cut |= order.cut(order.count(density=density))
            return self._masks({n: cut[n] for n in logits}, model, fixed)
        if self.within is not None:
            measured = self._measured(model, off, weights)
            if measured is None:
                return own
            cuts = Cuts(model, Order(logits), fixed, off, units=None if self.masked is None else self.masked.units)
            if own is None:
                return cuts.smallest(measured, self.within, None, None)
            with interrupted_after(say) as pressed:
                asked = measured if pressed is None else _until(measured, pressed)
                try:
                    all_of = None if among is None else sum(int(among[n].sum()) if n in among else v.numel() for n, v in logits.items())
                    return cuts.smallest(asked, self.within, None, sum(int(own[n].count_nonzero()) for n in logits), all_of)
                except _Interrupted:
                    return None
        assert own is not None
        return own

    def measuring(
        self, model: nn.Module, batches: Iterable[Any], loss: Loss, fixed: Masks | None, off: Mapping[str, Tensor] | None
    ) -> Size:
        """Return the same, knowing what the network saves on these batches, or on those that are held out. Raises `UserError`."""
        assert self.masked is not None
        every, none = (self.masked.whole(model, kept, fixed) for kept in (True, False))
        found = Recovered(model, self.valid or batches, loss, every, none, off)
        if self.by_loss and self.asked and not found.usable:
            raise UserError(f"within= cannot be measured by the loss here: {found.sentence}; give score= and valid= to measure by.")
        return attrs.evolve(self, recovered=found)

    def _measured(
        self, model: nn.Module, off: Mapping[str, Tensor] | None, weights: Mapping[str, Tensor] | None
    ) -> Callable[[Masks | None], float] | None:
        """Return what measures masks; None where the loss was to do it and cannot."""
        if self.score is None:
            assert self.recovered is not None
            return self.recovered if self.recovered.usable else None
        assert self.valid is not None
        return Measured(model, self.valid, self.score, off=off, weights=weights, hint=ONE)

    def _masks(self, cut: Mapping[str, Tensor], model: nn.Module, fixed: Masks | None) -> Masks:
        masks = {**cut, **(fixed or {})}
        return Masks(masks, model) if self.masked is None else self.masked.masks(masks, model, fixed)


def size_of(
    model: nn.Module,
    masked: Masked,
    sampler: Sampler,
    *,
    beta: float | None,
    density: Any,
    within: Any,
    score: Any,
    valid: Any,
    asked: bool = True,
) -> Size:
    """Return the size that was asked for. Raises `UserError` for arguments that do not fit together."""
    if density is not None and within is not None:
        raise UserError("give density= (masks of that size) or within= (the smallest masks that keep the score), not both.")
    if density is not None and beta is not None:
        raise UserError("give density= or beta=, not both: with a density, beta follows from it.")
    if within is None and score is not None:
        raise UserError("score= and valid= say what within= is measured by; give within= too, or leave score= away.")
    if score is not None and valid is None:
        raise UserError("score= needs valid= (held-out batches) to measure masks by.")
    if valid is not None:
        batches_of("valid", valid)
    if density is not None:
        return Size(groups=_groups(model, masked, density), held=_first(valid), masked=masked)
    if within is not None:
        listed = None if valid is None else valid if isinstance(valid, list | tuple) else ended("valid", valid)
        if score is None:
            return Size(within=checked_loss(within), valid=listed, held=_first(listed), masked=masked, asked=asked)
        function("score", score, "score(model, batch)")
        assert listed is not None
        found = Size(within=checked_loss(within), score=score, valid=listed, held=_first(listed), masked=masked)
        with undisturbed():  # a score that cannot be compared is said before anything is learned
            Measured(model, listed, score, hint=ONE)(None)
        return found
    if isinstance(sampler, Ranking):
        raise UserError(
            f"{type(sampler).__name__} ranks weights and has no threshold of its own; give density= or within=."
        )
    return Size(held=_first(valid), masked=masked)


class _Interrupted(Exception):
    """Ctrl-C was pressed between two measurements."""


def _until(
    measured: Callable[[Masks | None], float], pressed: Callable[[], bool]
) -> Callable[[Masks | None], float]:
    """Return the same measure, which ends by `_Interrupted` once Ctrl-C was pressed: not amid a call, when masks are in place."""

    def asked(masks: Masks | None) -> float:
        found = measured(masks)
        if pressed():
            raise _Interrupted
        return found

    return asked


def _first(valid: Iterable[Any] | None) -> Any:
    """Return the first held-out batch; drawing it disturbs nobody's random numbers. Raises `UserError` if there is none."""
    if valid is None:
        return None
    with undisturbed():
        for batch in valid:
            return batch
    raise UserError("valid holds no batch; give at least one, or leave it away.")


def _groups(
    model: nn.Module, masked: Masked, density: Any
) -> tuple[tuple[tuple[str, ...], float], ...]:
    """Return the parameters and their densities; with {pattern: density}, of several patterns the first that matches counts."""
    names = masked.names
    if not isinstance(density, Mapping):
        return ((names, checked_density(density)),)
    left, groups = list(names), []
    for pattern, share in density.items():
        chosen = _chosen(model, pattern, left, masked)
        left = [n for n in left if n not in chosen]
        if chosen:
            groups.append((chosen, checked_density(share)))
    if left:
        raise UserError(f"density gives no share for {listing(left)}; add a pattern for them, such as '*'.")
    return tuple(groups)



def _chosen(model: nn.Module, pattern: str, left: Sequence[str], masked: Masked) -> tuple[str, ...]:
    """Return which of some entries a pattern means: by their names, or, of units, by those of the weights that make them."""
    units = masked.units
    if units and isinstance(pattern, str) and any(fnmatchcase(n, pattern) for n in units):
        return tuple(n for n in left if fnmatchcase(n, pattern))  # "*" means weights that are learned beside units, too
    try:
        meant = set(matching(model, (pattern,), "density"))
    except PatternError:
        if not (units and isinstance(pattern, str)):
            raise
        raise PatternError(
            f"density pattern {pattern!r} matches no units and no parameter{near_miss(pattern, units)}; there are: "
            f"{listing(masked.names)}."
        ) from None
    return tuple(n for n in left if (set(units[n].home) <= meant if n in units else n in meant))
