"""What `fit_masks` returns: masks, the ranking that they are cuts through, and how it went."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from torch import Tensor, nn

from modhook.errors import TrustWarning, UserError
from modhook.fit.cuts import Cuts, Measured, Score
from modhook.fit.files import load, save
from modhook.fit.settled import turnover
from modhook.fit.show import page, text
from modhook.fit.trust import needless, told
from modhook.masks import Masks
from modhook.masks.order import Order
from modhook.plugin.contract import CarriedGradients
from modhook.values.arguments import checked, function

if TYPE_CHECKING:
    import xarray as xr


@attrs.frozen(slots=False, repr=False, eq=False)
class Fit:
    """What `fit_masks` returns. A fit equals itself alone; compare `fit.masks`, which are equal where they keep the same.

    Attributes:
        masks: the masks that were asked for, fixed ones included, with the network's fingerprint: the sampler's own (for
            `gumbel`, logit >= 0), or the cut of the size that `density` or `within` asks for.
        logits: {name: tensor} of the learned logits, on the CPU, unrounded: a ranking of the weights; of units, {group: (n,)}: in all
            that is said here of weights, a unit counts as one.
        history: Dataset over `step`: `loss`, `gradient_norm` (of what is learned, before clipping, regulariser included),
            `density`, `ms_per_step`; `changed`, how many logits changed side of the deterministic mask since the row before (in
            the first row, since the start); `mask_loss` and `unmasked_loss`, the loss under the deterministic mask, without noise,
            and without any mask, on the first batch of `valid`, or on the step's own batch before it is learned from: at rows
            at least 60 steps apart and at the last step, NaN elsewhere (`unmasked_loss` in all rows of fits of less than 20
            steps), and where the network fails under the mask; with
            `clip_over="all"` also `clip_factor`, what clipping multiplied the step's gradients by; over `step` and `parameter`:
            `parameter_gradient_norm` (of the loss alone, at that step), `parameter_density`, `remaining` (the share of the
            weights that `reference` keeps, or of all, that the mask keeps).
        weights: weights trained together with the masks ({} without `train_weights`), on the CPU. `curve`, `smallest` and
            `within` measure the network with these in place, also for the unmasked score.
        route: how the K samples were run, and why (`{"route": ..., "reason": ...}`).
        carried: the gradients that the next stage's clipping starts with (`clip_over="all"`); None without.
        steps: how many optimiser steps were done.
        stopped: why these are fewer than asked for: "settled", "callback", "interrupted" (Ctrl-C; also where all were done, and it
            was the cut of `within` that was not made) or "batches" (they ended); else None.
        cautions: reasons not to believe in the masks yet, one sentence each; `fit_masks` warns of them (`modhook.TrustWarning`).
        threshold: the sampler's own masks, whatever size was asked for; None for a ranking without training.
        fixed: the masks that were given and not learned.
        model: the network, as it was given; None for a fit that was loaded without one.
        off: what the weights that masks cover become where they are not kept, {name: tensor} on the CPU, by which `curve`,
            `smallest` and cuts are measured, and masks must be applied: `fit.masks.applied_to(model, fit.off)`; None: zero.
        among: the masks whose weights were the only ones to learn about, given or a ranking's cut; None: all were.
        earlier: of a fit whose beta rises, the logits a tenth of the steps before the end (`turnover`); {} of any other, and of one that
            ended before.
    """

    masks: Masks
    logits: dict[str, Tensor]
    history: xr.Dataset
    weights: dict[str, Tensor]
    route: dict[str, Any]
    carried: CarriedGradients | None = None
    steps: int = 0
    stopped: str | None = None
    cautions: tuple[str, ...] = ()
    threshold: Masks | None = attrs.field(default=None, repr=False)
    fixed: Masks | None = attrs.field(default=None, repr=False)
    model: nn.Module | None = attrs.field(default=None, repr=False)
    off: dict[str, Tensor] | None = attrs.field(default=None, repr=False)
    among: Masks | None = attrs.field(default=None, repr=False)
    earlier: dict[str, Tensor] = attrs.field(factory=dict, repr=False)

    def __repr__(self) -> str:
        return text(self)

    def _repr_html_(self) -> str:
        return page(self)

    def save(self, path: str | Path) -> None:
        """Write everything but the network to one file: tensors as safetensors, the rest as JSON in its header, with a checksum.

        The file is there whole or not at all. Raises `UserError` if it cannot be written.
        """
        save(self, path)

    @classmethod
    def load(cls, path: str | Path, model: nn.Module | None = None) -> Fit:
        """Read a fit written by `save`.

        Args:
            path: the file.
            model: the network that it was learned on, which `curve` and `smallest` need; its names, shapes and values are compared
                with those that the masks were made for.

        Raises:
            UserError: no such file, another kind of file, a damaged one, or another network (says which tensor differs).
        """
        return load(cls, path, model)

    def cut(self, *, density: float | None = None, keep: int | None = None) -> Masks:
        """Return the masks of a given size: the weights with the largest logits, over all learned parameters together.

        Of equal logits those of earlier parameters, and in them earlier elements, are kept; cuts of two sizes are nested.
        Fixed masks stay as they are, and do not count.

        Args:
            density: the share of the learned weights to keep, above 0 to 1 (rounded to whole weights, at least one).
            keep: the number of learned weights to keep, from 0.

        Raises:
            UserError: neither or both, or a size that there is not.
        """
        count = self._order.count(density=density, keep=keep)
        if self.model is None:  # the masks know their network all the same
            return self.masks._new({**self._order.cut(count), **(self.fixed or {})})
        return self._cuts.at(count)

    def curve(
        self, batches: Iterable[Any], score: Score, points: int = 20, *, metric: str | None = None
    ) -> xr.Dataset:
        """Return what cuts of many sizes score, and what is left without them.

        Args:
            batches: held-out batches; all of them are measured for every size.
            score: as in `modhook.evaluate`: `score(model, batch)` returns one number per item, (B,), or a dictionary of such.
            points: about how many sizes, from one weight to all, evenly apart on a logarithmic scale; the size of the sampler's
                own mask is one more.
            metric: which of the scores, where there are several.

        Returns:
            Dataset over `density` (share of the learned weights that is kept): `score`, `complement` (the score under the
            complement of the cut), `kept` (weights); as attributes the scores `unmasked` and with `nothing` kept, `threshold`
            (the density of the sampler's own mask), and `cpr` and `cmd`, the areas of the MIB benchmark (`modhook.areas`).

        Raises:
            UserError: no batch, a score that is no finite number, fewer than two points.
        """
        return self._cuts.curve(batches, score, points, metric, self._own)

    def smallest(
        self,
        batches: Iterable[Any],
        score: Score,
        within: float = 0.01,
        *,
        metric: str | None = None,
        reference: float | None = None,
    ) -> Masks:
        """Return the smallest cut that still scores enough on held-out batches.

        Looked at are forty sizes from one weight to all, evenly apart on a logarithmic scale, and the sampler's own mask, the
        smallest first; between the first that scores enough and the one before, bisection. A score may rise and fall again with
        the size: a smaller cut that scores enough may lie between two sizes looked at. The cut always scores enough.

        Args:
            batches, score, metric: as in `curve`.
            within: the share of the reference that may be lost: the score is at least `reference - within * |reference|`.
            reference: the score to compare with; by default that of the unmasked network.

        Warns:
            TrustWarning: the network scores enough without any of the learned weights, so that the masks keep none.

        Raises:
            UserError: `within` outside 0 to 1, no batch, a score that is no finite number, or no cut that scores enough.
        """
        cuts = self._cuts
        masks = cuts.smallest(Measured(cuts.model, batches, score, metric, self.off, self.weights), within, reference, self._own)
        self._told(masks, within)
        return masks

    def smallest_by(
        self, measure: Callable[[Masks | None], float], within: float = 0.01, *, reference: float | None = None
    ) -> Masks:
        """Return the same, measured by a function of the masks (None: the unmasked network) that returns one number.

        Warns as `smallest` does. It is the function that puts `fit.weights` and `fit.off` in place, where there are any.
        """
        function("measure", measure, "measure(masks)")
        masks = self._cuts.smallest(
            lambda masks: float(checked("what measure returns", measure(masks), float)), within, reference, self._own
        )
        self._told(masks, within)
        return masks

    def _told(self, masks: Masks, within: float) -> None:
        """Warn, at the line of the caller's caller, of masks that keep none of the learned weights."""
        if not any(bool(masks[n].any()) for n in self.logits):
            for sentence in told((needless(within),)):
                warnings.warn(sentence, TrustWarning, stacklevel=3)

    def turnover(self, masks: Masks | None = None) -> float:
        """Return how much a cut was still changing: the share of the weights that it keeps which as large a cut did not keep a tenth of
        the steps before the end.

        Args:
            masks: a cut of this fit; default: its masks.

        Returns:
            A share from 0 to 1; NaN where it is not known (`earlier` is empty), or nothing is kept.
        """
        return turnover(self.earlier, self.masks if masks is None else masks)

    @cached_property
    def _cuts(self) -> Cuts:
        if self.model is None:
            raise UserError(
                "this fit does not know its network, so it cannot measure its masks; load it with modhook.Fit.load(path, model)."
            )
        return Cuts(self.model, self._order, self.fixed, self.off, self.weights, self.masks._groups)

    @cached_property
    def _order(self) -> Order:
        return Order(self.logits)

    @property
    def _own(self) -> int | None:
        """Return how many learned weights the sampler's own mask keeps."""
        return None if self.threshold is None else sum(int(self.threshold[n].count_nonzero()) for n in self.logits)
