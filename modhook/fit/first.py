"""What is known before the first step: the weights to learn among, by a ranking, and what a relative beta counts in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from modhook.errors import UserError
from modhook.fit.among import among_only, per_entry
from modhook.fit.engine import MaskTrainer
from modhook.fit.losses import Loss
from modhook.fit.ranked import ranked
from modhook.fit.size import Size
from modhook.fit.usual import RANKED_BY, WITHIN_OF_LOSS
from modhook.masks import Masks
from modhook.masks.granular import Masked
from modhook.plugin.interfaces import Ranking
from modhook.plugin.manager import plugins
from modhook.values.arguments import checked
from modhook.values.bounds import Positive


@attrs.frozen
class First:
    """What to find out before the first step.

    Attributes:
        ranking: whose smallest cut masks are learned among; None: they are learned among what was given.
        relative: whether beta is relative, or what it counts in.
    """

    ranking: Ranking | None = None
    relative: bool | float = False

    def looks(self, size: Size) -> bool:
        """Return whether it takes batches to find out."""
        return self.ranking is not None or self.relative is True or size.by_loss

    @torch.inference_mode(False)
    def begin(
        self,
        trainer: MaskTrainer,
        model: nn.Module,
        batches: list[Any],
        loss: Loss,
        masked: Masked,
        size: Size,
        allowed: dict[str, Tensor] | None,
        fixed: Masks | None,
        off: Mapping[str, Tensor] | None,
    ) -> tuple[Size, Masks | None, dict[str, Tensor] | None]:
        """Prepare the trainer, and return what is known now: the size, the ranking's cut, and what may be learned (`per_entry`).

        Raises `UserError`, `RunError`.
        """
        if self.looks(size):
            with trainer.holding():
                trainer.rehearse(batches[0])  # a loss that cannot be learned from is told as in the first step
            size = size.measuring(model, batches, loss, fixed, off)
        known, among = size.recovered, None
        if self.ranking is not None and (size.score is not None or (known is not None and known.usable)):
            cut = size if size.within is not None else attrs.evolve(size, within=WITHIN_OF_LOSS)
            among = ranked(model, batches, loss, masked, self.ranking, cut, RANKED_BY, fixed, off).masks
            allowed = per_entry(among, masked, model)
            trainer.begin_with(among_only({n: v.detach() for n, v in trainer.logits.items()}, allowed))
        if self.relative is not False:
            found = 1.0 if known is None or self.relative is not True else known.unit_of_groups(batches[0], trainer.samples)
            unit = found if self.relative is True else self.relative
            learned = sum(int(allowed[n].count_nonzero()) if allowed and n in allowed else v.numel() for n, v in trainer.logits.items())
            trainer.relate(unit, learned, measured=self.relative is True)
        return size, among, allowed


def relative(given: Any) -> bool | float:
    """Return `relative_beta` as it is used. Raises `UserError`."""
    if isinstance(given, bool):
        return given
    return float(checked("relative_beta", given, Positive))


def ranking_of(among: Any) -> tuple[Masks | None, Ranking | None]:
    """Return masks, or the ranking that makes them, of `among`. Raises `UserError`, `PluginError`."""
    if among is None or isinstance(among, Masks):
        return among, None
    if isinstance(among, str):
        among = plugins().load("samplers", among)()
    if not isinstance(among, Ranking):
        raise UserError(
            f"among must be masks, or a ranking without training, by its name or as a modhook.Ranking, not {type(among).__name__}."
        )
    return None, among
