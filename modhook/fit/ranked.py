"""Masks from a ranking that needs no training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from modhook.errors import RunError
from modhook.fit.complement import bound
from modhook.fit.groups import plainly
from modhook.fit.losses import Loss
from modhook.fit.off import kept
from modhook.fit.result import Fit
from modhook.fit.size import Size
from modhook.masks import Masks
from modhook.masks.granular import Masked
from modhook.network.scope import restored
from modhook.network.twin import twin as copied
from modhook.network.unmasked import masking
from modhook.plugin.interfaces import Ranking
from modhook.unit.weights import pooled


@torch.inference_mode(False)
def ranked(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    masked: Masked,
    ranking: Ranking,
    size: Size,
    steps: int,
    fixed: Masks | None,
    off: Mapping[str, Tensor] | None = None,
) -> Fit:
    """Return the masks of the best weights by the ranking's scores, from one pass over the batches, `steps` at most.

    A unit's score is the sum or the mean of those of its weights, as the ranking says (`Ranking.pooled`).

    With fixed masks, the weights are ranked on the network under these; with `off`, their changes from it are.

    Raises `UserError`, `RunError`.
    """
    twin = copied(model) if fixed is None else fixed.materialize(model, off)
    names = masked.parameters
    trained = {n: p.detach().clone() for n, p in twin.named_parameters() if n in names}
    ranking.off = None if off is None else {n: off[n] for n in names}
    with masking(trained):  # a loss that compares with the unmasked network finds its weights, wherever the ranking has put others
        scores = ranking.scores(twin, names, iter(batches), _alone(plainly(bound(loss, trained, off))), steps)
    for name, values in scores.items():
        if not bool(values.isfinite().all()):
            raise RunError(f"the ranking of {name!r} is not finite; look at the data and the loss.")
    logits = {n: pooled(g, scores, ranking.pooled).cpu() for n, g in masked.units.items()}
    logits |= {n: scores[n].detach().cpu() for n in masked.weights}
    history = xr.Dataset(coords={"step": np.empty(0, dtype=np.int64)})
    masks = size.masks(model, logits, fixed, None, off)
    assert masks is not None
    return Fit(
        masks=masks,
        logits=logits,
        history=history,
        weights={},
        route={},
        fixed=fixed,
        model=model,
        off=kept(off),
    )


def _alone(loss: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    """Return a loss after which the network has the attributes that it had before: a weight that it made ready is made ready again."""

    def alone(net: Any, batch: Any) -> Tensor:
        with restored(net):
            return loss(net, batch)

    return alone
