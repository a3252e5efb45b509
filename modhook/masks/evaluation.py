"""Scores under deterministic masks: large batches, no sampling, no stack."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from modhook.errors import UserError
from modhook.masks import Masks
from modhook.masks.off import Off
from modhook.network.called import refuse_own
from modhook.network.guard import lent
from modhook.network.owned import handed, owned
from modhook.network.place import on_one_device
from modhook.network.threads import using
from modhook.network.unmasked import unmasked
from modhook.values.arguments import batches_of, function, instance, shown
from modhook.values.moving import floats

_NO_MORE = object()


def evaluate(
    model: nn.Module,
    masks: Masks | None,
    batches: Iterable[Any],
    score: Callable[[nn.Module, Any], Tensor | Mapping[str, Tensor]],
    *,
    off: Off = None,
    seed: int = 0,
) -> Any:
    """Return the mean score of the masked network over all items.

    Args:
        model: the network, in the mode (train or eval) in which it is to be measured. What it writes lasts from batch to
            batch, as in a plain loop, and is undone at the end: it is left as it was, buffers and running statistics too.
        masks: masks to apply, or None for the network as it is.
        batches: any iterable of batches.
        score: `score(model, batch)` returns one number per item, (B,), or a dictionary of such tensors.
        off, seed: what a weight becomes that the masks do not keep, as in `Masks.applied_to`: by default zero.

    Returns:
        A float, or `{name: float}` if `score` returns a dictionary.

    Raises:
        MaskError: masks that do not fit. WeightsError: an `off` that does not.
        UserError: no batch, or scores that are not one number per item.
    """
    return mean_score(model, masks, batches, score, off=off, seed=seed)


def mean_score(
    model: nn.Module,
    masks: Masks | None,
    batches: Iterable[Any],
    score: Callable[[nn.Module, Any], Tensor | Mapping[str, Tensor]],
    *,
    off: Off = None,
    seed: int = 0,
    marked: bool = False,
) -> Any:
    """Do what `evaluate` does; with `marked`, the score gets batches in which `modhook.shared` is still marked."""
    instance("model", model, nn.Module, "an nn.Module")
    if masks is not None:
        instance("masks", masks, Masks, "a modhook.Masks or None")
    batches_of("batches", batches)
    function("score", score, "score(model, batch)")
    sums: dict[str, float | Tensor] = {}
    counts: dict[str, int] = {}
    single = False
    applied = masks._applied(model, off, seed) if masks is not None else contextlib.nullcontext()
    with using(model), lent(model, () if masks is None else masks._names()), applied, torch.no_grad():
        pulled = iter(batches)
        while (batch := _next(pulled, batches, model)) is not _NO_MORE:
            with on_one_device(model, batch):
                if masks is not None and not counts:
                    refuse_own("score", model, score, partial(_scored, score, batch, marked))
                result = _scored(score, batch, marked, model)
            single = isinstance(result, Tensor)
            if not isinstance(result, Tensor | Mapping):
                raise UserError(
                    f"score must return one number per item, a tensor (B,) or a dictionary of such, not {shown(result)}."
                )
            for name, values in {"score": result}.items() if isinstance(result, Tensor) else result.items():
                if not isinstance(values, Tensor):
                    raise UserError(f"score must return tensors (B,), but {name!r} is {shown(values)}.")
                if values.dim() != 1:
                    raise UserError(
                        f"score must return one number per item, shape (B,), but {name!r} has shape {tuple(values.shape)}."
                    )
                sums[name] = sums.get(name, 0.0) + values.double().sum()
                counts[name] = counts.get(name, 0) + len(values)
    if not any(counts.values()):
        raise UserError("there is nothing to evaluate: no batch with at least one item.")
    means = {name: total / counts[name] for name, total in floats(sums).items()}  # all batches are waited for once
    return means["score"] if single else means


def _scored(score: Callable[[nn.Module, Any], Any], batch: Any, marked: bool, net: nn.Module) -> Any:
    return score(net, owned(batch) if marked else handed(batch))


def _next(pulled: Iterator[Any], batches: Iterable[Any], model: nn.Module) -> Any:
    """Return the next batch, which a generator makes without masks: it may have the network make the targets."""
    with contextlib.nullcontext() if isinstance(batches, list | tuple) else unmasked(model):
        return next(pulled, _NO_MORE)
