"""The loss that a network computes itself, as those of transformers do, over groups of a batch that hold unlike numbers of labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from modhook.errors import UserError
from modhook.objectives.reading import LABELS
from modhook.values.arguments import checked, optional, shown

_SHARE = "modhook_share_of_labels"
"""Under this key each item has K times its group's share of the labels of the whole batch, (B,)."""


@attrs.frozen
class ModelLoss:
    """What `model_loss` returns."""

    shift: bool | None
    ignore_index: int

    def __call__(self, net: Any, batch: Any) -> Tensor:
        """Return the loss of one group, a scalar."""
        if not isinstance(batch, Mapping):
            raise UserError(f"model_loss calls net(**batch), so a batch must be a mapping, not {shown(batch)}.")
        given = dict(batch)
        share = given.pop(_SHARE, None)
        labels = _classes(given)
        if labels is None:
            return _loss_of(net, given)
        counts = self._count(labels, net if self.shift is None else None).sum()
        # A group without a label that counts asks nothing of its mask, where the network's mean is NaN: it gets labels, and no weight.
        given[LABELS] = torch.where(counts > 0, labels, torch.zeros_like(labels))
        loss = _loss_of(net, given)
        weight = (counts > 0) if share is None else share[0]
        return loss * weight.to(loss.dtype)

    def whole(self, net: Any, batch: Any, samples: int) -> Any:
        """Return a batch that is to be cut into `samples` groups with what each group needs to know of the whole."""
        if not isinstance(batch, Mapping) or (labels := _classes(batch)) is None or _SHARE in batch:
            return batch
        size = len(labels) // samples
        if not size:
            return batch
        counts = self._count(labels, net)  # (B,)
        groups = counts[: size * samples].view(samples, size).sum(1)  # (K,)
        share = groups * samples / groups.sum().clamp(min=1)  # (K,)
        left = len(labels) - size * samples
        return {**batch, _SHARE: torch.cat([share.repeat_interleave(size), share.new_ones(left)])}

    def _count(self, labels: Tensor, net: Any) -> Tensor:
        """Return how many labels of each item count: (B,) of labels (B, ...)."""
        shifted = _shifts(net) if self.shift is None else self.shift
        counted = labels[..., 1:] if shifted and labels.dim() > 1 else labels
        return (counted != self.ignore_index).reshape(len(labels), -1).sum(1).to(_precise(labels))


def model_loss(*, shift: bool | None = None, ignore_index: int = -100) -> ModelLoss:
    """Return the loss that a network computes itself, as those of transformers do: `net(**batch).loss`.

    Such a loss is a mean over the labels that count. Groups that are padded unlike hold unlike numbers of them, so each group's
    loss is weighted by its share: the mean over the K groups is the mean over the labels of the whole batch, as `Trainer` has
    it over accumulated batches. A group in which no label counts has the loss 0.

    Args:
        shift: whether the network predicts the label at position t + 1 from what is at t, so that no first label counts, as causal
            language models of transformers do; None: what its loss function and its config say.
        ignore_index: the label of positions that do not count.

    Batches are mappings; classes are whole numbers under `labels`, (B, ...). With other labels, or none, every group weighs the same.

    Raises (when called):
        UserError: a batch that is no mapping, or an answer without `loss`.
    """
    return ModelLoss(optional("shift", shift, bool), checked("ignore_index", ignore_index, int))


def _classes(batch: Mapping[Any, Any]) -> Tensor | None:
    """Return labels that are whole numbers, one or several per item."""
    labels = batch.get(LABELS)
    if not isinstance(labels, Tensor) or not labels.dim():
        return None
    return None if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool else labels


def _loss_of(net: Any, given: Mapping[Any, Any]) -> Tensor:
    found = net(**given)
    loss = found.get("loss") if isinstance(found, Mapping) else getattr(found, "loss", None)
    if not isinstance(loss, Tensor):
        hint = "" if LABELS in given else ": it needs `labels` in the batch"
        raise UserError(f"what the network returns, {shown(found)}, has no loss{hint}.")
    return loss


def _shifts(net: Any) -> bool:
    """Return whether a network of transformers shifts labels by itself: an encoder-decoder does not, whatever its loss function is."""
    function = getattr(net, "loss_function", None)
    whole = getattr(getattr(net, "config", None), "is_encoder_decoder", False)
    return getattr(function, "__name__", "") == "ForCausalLMLoss" and not whole


def _precise(labels: Tensor) -> torch.dtype:
    return torch.float32 if labels.device.type == "mps" else torch.float64
