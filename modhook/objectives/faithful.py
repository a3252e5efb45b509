"""Faithfulness: the network under a mask is to answer as the network without masks does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from modhook.errors import UserError
from modhook.network.scope import substituted
from modhook.network.unmasked import unmasked
from modhook.objectives.reading import Outputs, Place, checked_outputs, checked_place, outputs_of, taken
from modhook.values.arguments import instance


@attrs.frozen(eq=False)
class KL:
    """What `kl` returns; `weights` are the network's own, by first name, in the same memory; None: those before the masks."""

    weights: Mapping[str, Tensor] | None = attrs.field(repr=False)
    outputs: Outputs | None
    where: Place | None

    def __call__(self, net: Any, batch: Any) -> Tensor:
        """Return the loss of one group, a scalar."""
        own = () if self.where is None else (self.where,)
        logits = outputs_of(net, batch, self.outputs, own)  # (B, ..., C)
        with torch.no_grad(), self._unmasked(net):
            unmasked = outputs_of(net, batch, self.outputs, own)  # (B, ..., C)
        p, q = unmasked.log_softmax(-1), logits.log_softmax(-1)
        each = torch.where(p.isneginf(), 0, p.exp() * (p - q)).sum(-1)  # (B, ...): classes that cannot be count nothing
        if self.where is None:
            return each.mean()
        counts = taken("where", batch, self.where)
        if counts.shape != each.shape:
            raise UserError(
                f"where has shape {tuple(counts.shape)}, but must say of each position, {tuple(each.shape)}, whether it counts."
            )
        counts = counts != 0
        return torch.where(counts, each, 0).sum() / counts.sum().clamp(min=1)

    @contextmanager
    def _unmasked(self, net: Any) -> Iterator[None]:
        """Within it `net` has the weights of the network without masks; the network is the same object in the same mode."""
        if self.weights is None:
            with unmasked(net):
                yield
            return
        there = dict(net.named_parameters()) if isinstance(net, nn.Module) else {}
        if {n: w.shape for n, w in self.weights.items()} != {n: w.shape for n, w in there.items()}:
            raise UserError(
                f"kl was made for another network than the {type(net).__name__} that it is used with: their parameters differ; "
                "make it with the network whose masks are learned."
            )
        with substituted(net, {n: w.to(there[n].device, there[n].dtype) for n, w in self.weights.items()}):
            yield


def kl(model: nn.Module | None = None, outputs: Outputs | None = None, *, where: Place | None = None) -> KL:
    """Return the divergence from the network without masks: the mean over positions of sum_c p_c (log p_c - log q_c).

    p are the probabilities of the network without masks and q those under one mask, softmax of the logits. p is computed without
    gradient, on the same items, by the same network in the mode that it is in: with dropout or batch norm in training mode
    the two differ, as two runs of the network itself do. It needs no labels.

    Args:
        model: the network whose masks are learned, on its device. Its weights are looked up when they are needed, not copied. Masks
            are checked and controlled on copies, so that another network of the same names and shapes is not noticed: p is
            then what that one answers. None: whichever network it is called under the masks of, see `modhook.unmasked`.
        outputs: `outputs(net, batch)`, the logits (B, ..., C), classes last; by default as in `cross_entropy`.
        where: where the batch holds which positions count, (B, ...), 0 or False for those that do not, such as an attention mask: a
            key, a position in the batch, or a function of the batch. A group in which none counts has the loss 0.

    Raises (when called, unless for `model`):
        UserError: a network of other parameter names or shapes, no logits, or shapes that do not fit.
    """
    if model is not None:
        instance("model", model, nn.Module, "an nn.Module or None")
    checked_outputs(outputs)
    if where is not None:
        checked_place("where", where)
    own = None if model is None else {name: parameter.detach() for name, parameter in model.named_parameters()}
    return KL(own, outputs, where)
