"""What came of the steps of a fit, and what to know before its masks are trusted."""

from __future__ import annotations

import math
from typing import Any

import attrs
import xarray as xr
from torch import Tensor

from modhook.fit.among import outside
from modhook.fit.asked import Asked
from modhook.fit.engine import MaskTrainer
from modhook.fit.off import kept
from modhook.fit.prepared import Prepared
from modhook.fit.result import Fit
from modhook.fit.settled import turnover
from modhook.fit.trust import ADAM, complex_ones, course_of, findings, in_training, leaving_out, special, written
from modhook.masks import Masks
from modhook.steps.loop import History


@attrs.frozen(eq=False)
class Learned:
    """What the steps have left.

    Attributes:
        own: the sampler's own masks, fixed ones included.
        logits, weights: as in `Fit`. history: its rows.
        steps: how many were done. stopped: why these are fewer than asked for.
        route: how the samples were run.
    """

    own: Masks
    logits: dict[str, Tensor]
    weights: dict[str, Tensor]
    history: xr.Dataset
    steps: int
    stopped: str | None
    route: dict[str, Any]


def learned(asked: Asked, fit: Prepared, trainer: MaskTrainer, history: History, route: dict[str, Any]) -> Learned:
    """Return what the steps have left, on the CPU."""
    trainer.advance(asked.steps)
    return Learned(
        own=fit.masked.masks({**trainer.masks(), **(fit.fixed or {})}, asked.model, fit.fixed),
        logits={n: logit.detach().cpu() for n, logit in trainer.logits.items()},
        weights={n: trainer.weights[fit.aliases[n]].detach().cpu() for n in asked.train_weights or {}},
        history=history.dataset(),
        steps=history.done,
        stopped=history.stopped,
        route=route,
    )


def fit_of(asked: Asked, fit: Prepared, trainer: MaskTrainer, found: Learned, masks: Masks | None) -> Fit:
    """Return the fit, with the reasons not to trust its masks; None for masks: those of `within` were not measured to the end."""
    interrupted, cut = masks is None, masks is not None and masks is not found.own
    masks = found.own if masks is None else masks
    recovered = fit.size.recovered
    unsized = fit.size.by_loss and recovered is not None and not recovered.usable
    turned = math.nan if fit.size.own or unsized else turnover(trainer.earlier, masks)
    sized = fit.size.within is not None and not unsized and cut
    unusual = special(asked.model, fit.masked.weights) if asked.by_default else {}
    reasons = findings(
        course_of(
            found.history,
            found.steps,
            learned=bool(fit.learning),
            weights=sum(logit.numel() for logit in found.logits.values()),
            kept=sum(int(masks[n].count_nonzero()) for n in found.logits),
            own=fit.size.own or fit.sampler.holds_density or unsized,
            turnover=turned,
            within=fit.size.within if sized else math.nan,
            outside=outside(masks, fit.allowed) if sized else 0,
            unsaved="" if asked.ranking is None or recovered is None else recovered.instead(fit.ranked_cut, fit.size.by_loss),
            nearest=trainer.nearest,
            travelled=trainer.travelled if isinstance(trainer.optimizer, ADAM) and not fit.sampler.holds_density else math.nan,
            special=unusual,
            leaving=leaving_out([n for names in unusual.values() for n in names], list(fit.masked.weights)),
            unmasked=complex_ones(asked.model) if asked.by_default else (),
            training={} if fit.learning else in_training(asked.model),
            nothing=fit.nothing,
            share=math.nan if recovered is None else recovered.share,
            samples=trainer.samples,
        )
    )
    if recovered is not None:
        found.history.attrs["gain"] = recovered.unit
    if math.isfinite(turned):
        found.history.attrs["turnover"] = turned
    cautions = written(found.history, reasons)
    return Fit(
        masks=masks,
        logits=found.logits,
        history=found.history,
        weights=found.weights,
        route=found.route,
        carried=trainer.clipping.carried(),
        steps=found.steps,
        stopped="interrupted" if interrupted else found.stopped,
        cautions=cautions,
        threshold=found.own,
        fixed=fit.fixed,
        model=asked.model,
        off=kept(fit.off),
        among=fit.among,
        earlier=trainer.earlier,
    )
