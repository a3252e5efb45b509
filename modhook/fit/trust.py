"""What to know before trusting the masks of a fit: rules on the numbers of how it went, each with its bound, one sentence each."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from modhook.fit.finite import parametrized
from modhook.fit.settled import LATE
from modhook.masks.off import NOTHING
from modhook.masks.select import DEFAULT_EXCLUDE, parameter_names
from modhook.masks.selectors import Known, names_by
from modhook.network.threads import using

if TYPE_CHECKING:
    import xarray as xr

WORSE = 1.0
"""The loss of the deterministic mask is far above that of the samples from this share of theirs on (twice a positive one) ..."""
BETTER = 0.2
"""... and clearly below that of the unmasked network from this share of it on ..."""
LEAST = 0.1
"""... where the difference is more than this, too."""
MOVING = 0.01
"""The share of all logits that may change side in the last tenth of the steps ..."""
MOVING_KEPT = 0.1
"""... and how many, as a share of the weights that the mask keeps: a small mask can be another one long before 1 % of all logits move."""
TURNOVER = 0.05
"""The share of the weights that a cut keeps which may be others than as large a cut kept before the last tenth of the steps."""
ADAM = (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam, torch.optim.Adamax)
"""Optimisers that move a logit by about their learning rate at most, whatever the gradient."""
TITLES = {
    "nothing": "Masks change nothing",
    "flat": "The loss is the same under all masks",
    "groups": "The loss of a part of a batch is not a part of its loss",
    "reach": "No logit could cross 0",
    "extreme": "Everything or nothing is kept",
    "cut": "The smallest masks that lose no more than within keep everything or nothing",
    "outside": "Weights were needed that masks were not learned among",
    "unsaved": "What the network saves by these weights is nothing, or not known",
    "threshold": "The mask loses what its samples reach",
    "moving": "The mask was still changing",
    "beats": "The mask does better than the whole network",
    "patterns": "Embeddings, norm gains, tied or parametrized weights are masked by the default patterns",
    "complex": "Complex weights have no masks, and are kept whole",
    "mode": "The network is in training mode",
}
"""The rules, and what each says in short."""
APART = 1.25
"""How many times as much, or as little, groups of a batch may save as the batch does (or as a K-th of it, where a loss is a sum)."""
_NAMED, _SHOWN = 6, 16
_MASK, _UNCUT = "the mask", "the mask at the sampler's own threshold, and not this cut of it,"


@attrs.frozen
class Course:
    """How a fit went. NaN is what is not known, and breaks no rule.

    Attributes:
        steps: optimiser steps that were done.
        weights: learned weights. kept: those of them that the masks keep.
        own: whether the masks are the sampler's own, and not a cut of another size.
        within: the share that may be lost by the masks, where they are the smallest such cut; else NaN.
        outside: weights that masks keep as a cut although they were not learned among them.
        nearest: the smallest distance of a logit from 0 before the first step.
        travelled: the sum of the learning rates of all steps, for an optimiser that moves logits by no more.
        changed: how many logits changed side, row by row added up. late: in the last tenth of the steps.
        loss: of the samples. mask_loss: of the deterministic mask. unmasked_loss: of the network; at the end, on the same batches.
        nothing: whether what masked weights become (`off`) is what they are.
        flat: the loss, where it was the same in all of several steps.
        share: what groups of the first batch save by the learned weights, over what the batch saves. samples: groups of a batch.
        turnover: the share of the weights that masks keep, as a cut, which as large a cut did not keep a tenth of the steps before.
        unsaved: what the network's loss says of why nothing can be counted in what it saves, and what was done instead.
        special: {kind: names} of masked parameters that the default patterns include and that are no ordinary weights.
        leaving: patterns that leave exactly these out; empty: their names.
        unmasked: names of complex parameters that the default patterns would include.
        training: {kind: names} of layers that do something else in training mode, and are in it.
    """

    steps: int
    weights: int
    kept: int
    own: bool = True
    within: float = math.nan
    outside: int = 0
    nearest: float = math.nan
    travelled: float = math.nan
    changed: float = math.nan
    late: float = math.nan
    loss: float = math.nan
    mask_loss: float = math.nan
    unmasked_loss: float = math.nan
    turnover: float = math.nan
    unsaved: str = ""
    special: Mapping[str, Sequence[str]] = attrs.field(factory=dict)
    leaving: Sequence[str] = ()
    unmasked: Sequence[str] = ()
    training: Mapping[str, Sequence[str]] = attrs.field(factory=dict)
    nothing: bool = False
    flat: float = math.nan
    share: float = math.nan
    samples: int = 1


_LATER: ContextVar[bool] = ContextVar("modhook_told_later", default=False)


@contextmanager
def told_later() -> Iterator[None]:
    """Within it what a fit finds is no Python warning: a stage of a study says it in short, and the report in full."""
    token = _LATER.set(True)
    try:
        yield
    finally:
        _LATER.reset(token)


def told(cautions: Sequence[str]) -> Sequence[str]:
    """Return the sentences that are to be warnings now."""
    return () if _LATER.get() else cautions


def findings(course: Course) -> dict[str, str]:
    """Return {rule: sentence} for every rule that a fit breaks, in the order of `TITLES`."""
    c, found = course, {}
    if c.nothing:
        found["nothing"] = NOTHING
    small = (
        "a group may be too small for the loss (one over pairs of items, or with batch statistics): give a smaller samples=, or larger "
        "batches."
    )
    if not math.isnan(c.flat):
        why = (
            "no weight that is learned may change it: look whether what the function needs is left out (exclude=, biases by default); or "
            if c.unsaved
            else ""
        )
        found["flat"] = f"the loss was {c.flat:.3g} in all {c.steps} steps, so that nothing was learned from it; {why}{small}"
    elif c.samples > 1 and not math.isnan(c.share) and not any(1 / APART <= c.share * times <= APART for times in (1, c.samples)):
        found["groups"] = (
            f"cut into {c.samples} groups, one per mask sample, a batch saves {c.share:.3g} times as much of its loss by these weights as "
            f"it does whole: items of a batch are not independent, or stand in another dimension than the first; {small}"
        )
    if c.own and c.changed == 0 and c.nearest > c.travelled:
        found["reach"] = (
            f"no logit could cross 0: each started at least {c.nearest:.3g} away from it, and the learning rates of all "
            f"steps ({c.steps}) add up to {c.travelled:.3g}; give more steps, a larger lr, or an init nearer to 0."
        )
    if c.own and c.weights and c.kept in (0, c.weights) and math.isnan(c.flat):  # of a loss that is flat it follows
        what, how = ("everything", "longer, or raise beta") if c.kept else ("nothing", "with a smaller beta or lr")
        found["extreme"] = f"{what} is kept, so the masks say nothing about the function; learn {how}."
    if not math.isnan(c.within) and c.weights and c.kept in (0, c.weights):
        found["cut"] = (
            f"the masks that lose at most {c.within:g} keep every weight: no smaller cut was enough, and they say nothing about the "
            "function; learn longer, or allow a larger within."
            if c.kept
            else needless(c.within)
        )
    if c.outside:
        found["outside"] = (
            f"{c.outside} of the {c.kept} weights that are kept are none of those that masks were learned among, which lose more than "
            f"{c.within:g}: nothing was learned about the others; give a larger among=, or a larger within."
        )
    if c.unsaved:
        found["unsaved"] = f"{c.unsaved}."
    if c.own and c.mask_loss - c.loss > max(LEAST, WORSE * abs(c.loss)):
        found["threshold"] = (
            f"the deterministic mask's loss is {c.mask_loss:.3g}, where its samples reach {c.loss:.3g}: the threshold cuts at the wrong "
            "size; choose the cut by a held-out score (within=, or fit.smallest)."
        )
    if not math.isnan(c.turnover):
        if c.turnover > TURNOVER:
            found["moving"] = moved(c.turnover)
    elif moves(c.late, c.kept, c.weights):
        beside = "" if c.late > MOVING * c.weights else f", beside {c.kept} weights that it keeps"
        found["moving"] = (
            f"the mask was still changing: in the last tenth of the {c.steps} steps {c.late:.0f} of {c.weights} logits changed side"
            f"{beside}; learn longer."
        )
    if c.unmasked_loss - c.mask_loss > max(LEAST, BETTER * abs(c.unmasked_loss)):
        found["beats"] = (
            f"{_MASK if c.own else _UNCUT} does better than the whole network (on the last batches its loss is {c.mask_loss:.3g}, unmasked "
            f"{c.unmasked_loss:.3g}): masks can make a function that was not there; compare with a network that has not learned it."
        )
    if c.special:
        kinds = ", ".join(f"{kind} ({_listed(names)})" for kind, names in c.special.items())
        without = [*DEFAULT_EXCLUDE, *(c.leaving or [n for names in c.special.values() for n in names])]
        shown = f"[{', '.join(map(repr, without[:_SHOWN]))}{', ...' if len(without) > _SHOWN else ''}]"
        found["patterns"] = f"the default patterns also mask {kinds}; to leave them out, give exclude={shown}."
    if c.unmasked:
        found["complex"] = (
            f"{_listed(c.unmasked)} {'is' if len(c.unmasked) == 1 else 'are'} complex and cannot be masked, so that all of it is kept; "
            "make real and imaginary parts parameters of their own to mask them."
        )
    if c.training:
        kinds = " and ".join(f"{kind} ({_listed(names)})" for kind, names in c.training.items())
        found["mode"] = (
            f"the network is in training mode: masks were learned, and are measured, under {kinds}; call model.eval() first, unless that "
            "is meant."
        )
    return found


def written(history: xr.Dataset, reasons: Mapping[str, str]) -> tuple[str, ...]:
    """Write what `findings` found into a history, `rule: sentence` each, and return the sentences."""
    history.attrs["trust"] = [f"{rule}: {sentence}" for rule, sentence in reasons.items()]
    return tuple(reasons.values())


def needless(within: float) -> str:
    """Say that the smallest masks that lose no more than a share keep nothing."""
    return (
        f"the masks that lose at most {within:g} keep no weight: what they are measured by needs none of those that are learned, or is no "
        "less without them; more must be better, so that a loss is no score."
    )


def of_the_uncut(line: str) -> str:
    """Return a line `rule: sentence` as it is to be said of masks that were cut after the fit: of which mask the losses are."""
    start = f"beats: {_MASK} "
    told = line.startswith(start) and not line.startswith(f"beats: {_UNCUT} ")
    return f"beats: {_UNCUT} {line.removeprefix(start)}" if told else line


def moves(late: float, kept: int, weights: int) -> bool:
    """Return whether that many changes of side in the last tenth of the steps say that a mask of logits was still changing."""
    return late > MOVING * weights or late > MOVING_KEPT * kept > 0


def moved(turnover: float) -> str:
    """Say that a cut was still changing."""
    return (
        f"the mask was still changing: {turnover:.0%} of the weights that it keeps were not among as many a tenth of the steps before the "
        "end; learn longer."
    )


def course_of(history: xr.Dataset, steps: int, *, learned: bool = False, **known: object) -> Course:
    """Return the course of a fit from its history and what else is known of it; `learned`: weights learned beside the logits."""
    if not history.sizes["step"]:
        return Course(steps=steps, **known)  # type: ignore[arg-type]
    at = history["step"].values
    late = at > (1 - LATE) * steps
    late[-1] = True
    changed = history["changed"].values
    mask, unmasked = history["mask_loss"].values, history["unmasked_loss"].values
    measured = late & np.isfinite(mask)
    return Course(
        steps=steps,
        changed=float(changed.sum()),
        late=float(changed[late].sum()),
        loss=_mean(history["loss"].values[measured]),
        flat=_same(history["loss"].values),
        mask_loss=_mean(mask[measured]),
        unmasked_loss=math.nan if learned else _mean(unmasked[measured]),
        **known,  # type: ignore[arg-type]
    )


def leaving_out(names: Iterable[str], masked: Collection[str]) -> list[str]:
    """Return as few patterns as leave these names out, and no other masked one: a number in a name may be any (`h.*.ln_1.weight`)."""
    wanted, found = list(names), dict[str, None]()
    for name in wanted:
        pattern = ".".join("*" if part.isdigit() else part for part in name.split("."))
        chosen = fnmatch.filter(masked, pattern)
        found[pattern if len(chosen) > 1 and set(chosen) <= set(wanted) else name] = None
    return list(found)


def in_training(model: nn.Module) -> dict[str, list[str]]:
    """Return {kind: names} of layers in training mode that then draw at random, or take their statistics from the batch.

    Empty within `told_later`: a study says in which mode masks are learned (`masks.mode`).
    """
    found: dict[str, list[str]] = {}
    if _LATER.get():
        return found
    for name, module in model.named_modules():
        inside = isinstance(module, nn.RNNBase | nn.MultiheadAttention) and module.dropout > 0
        if module.training and (inside or (isinstance(module, _DropoutNd) and module.p > 0)):
            found.setdefault("dropout", []).append(name)
        elif module.training and isinstance(module, _NormBase) and module.track_running_stats:
            found.setdefault("statistics of each batch", []).append(name)
    return found


def special(model: nn.Module, names: Iterable[str]) -> dict[str, list[str]]:
    """Return {kind: names} of those parameters that are embeddings, gains of normalisation layers, tied, or of parametrizations."""
    kinds: dict[int, str] = {}
    with using(model):  # another thread may run it under its own parameters
        parameters, wanted = dict(model.named_parameters(remove_duplicate=False)), set(names)
        for module in model.modules():
            embeds = isinstance(module, nn.Embedding | nn.EmbeddingBag)
            scales = isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm) or "Norm" in type(module).__name__
            for parameter in module.parameters(recurse=False):
                if embeds:
                    kinds[id(parameter)] = "embeddings"
                elif scales and parameter.dim() <= 1:
                    kinds[id(parameter)] = "norm gains"
        every = parameter_names(model)
        computed = set(parametrized(model, wanted))
    found: dict[str, list[str]] = {}
    for name, aliases in every.items():
        kind = "tied weights" if len(aliases) > 1 else kinds.get(id(parameters[name]))
        kind = "what parametrizations compute weights from" if name in computed else kind
        if kind is not None and name in wanted:
            found.setdefault(kind, []).append(name)
    return found


def complex_ones(model: nn.Module) -> list[str]:
    """Return the names of complex parameters that the default patterns would choose."""
    with using(model):
        complex_, every = {n for n, p in model.named_parameters() if p.is_complex()}, parameter_names(model)
    known = Known({n: aliases for n, aliases in every.items() if n in complex_})
    left = names_by(DEFAULT_EXCLUDE, known)
    return [n for n, aliases in known.names.items() if not left & {*aliases}]


def _mean(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _same(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """Return the value that all of several steps have, NaN if there is none."""
    return float(values[0]) if len(values) > 1 and bool((values == values[0]).all()) else math.nan


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
