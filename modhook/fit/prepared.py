"""A fit before its first step: what was asked for, on the network that it was asked of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from modhook.errors import UserError
from modhook.fit.among import among_only, per_entry, refuse_among
from modhook.fit.arguments import bytes_of, initial, sampler_of, trained
from modhook.fit.asked import Asked
from modhook.fit.engine import MaskTrainer
from modhook.fit.filed import identity_of, keeper_of
from modhook.fit.finite import refuse_not_finite
from modhook.fit.first import First
from modhook.fit.ranked import ranked
from modhook.fit.recovered import LOOKED_AT, looked_at
from modhook.fit.result import Fit
from modhook.fit.size import BETA, Size, size_of
from modhook.fit.trust import Course, complex_ones, findings, needless, special, written
from modhook.fit.usual import GUMBEL, WITHIN_OF_LOSS, WITHIN_OF_SCORE, samples_for
from modhook.masks import Masks
from modhook.masks.granular import Masked, masked_by
from modhook.masks.off import off_weights, the_same
from modhook.masks.select import DEFAULT_EXCLUDE
from modhook.network.scope import parameter_names
from modhook.network.threads import using
from modhook.noise.seeding import derive
from modhook.plugin.interfaces import Ranking, Sampler, Tracker
from modhook.stacked.checks import refuse
from modhook.steps.checkpoint import Keeper
from modhook.steps.loop import warned


@attrs.frozen(eq=False, kw_only=True)
class Prepared:
    """What a fit is about on its network; parameters by their first names.

    Attributes:
        masked: the entries of the masks that are learned. aliases: {any name of a parameter: its first}.
        fixed, reference: the masks that were given, as this network's.
        off: what weights become that are not kept. nothing: whether that is what they are.
        learning: `train_weights`.
        sampler: made, if it was named.
        size: how large masks are to be.
        among: the masks that only those weights are learned of, given or a ranking's cut. allowed: the same per entry.
        first: what is found out before the first step, on the batches `seen`, which are the first of `batches`.
        samples: K.
    """

    masked: Masked
    aliases: Mapping[str, str]
    fixed: Masks | None
    reference: Masks | None
    off: dict[str, Tensor] | None
    nothing: bool
    learning: dict[str, Tensor]
    sampler: Sampler
    size: Size
    among: Masks | None
    allowed: dict[str, Tensor] | None
    first: First
    seen: list[Any]
    batches: Iterable[Any]
    samples: int
    ranked_cut: bool = False
    """Whether `among` is a ranking's cut."""


def prepared(asked: Asked) -> Prepared:
    """Return what a fit is about on its network; nothing of it has run yet. Raises `UserError`, `PluginError`."""
    model = asked.model
    refuse(model)
    with using(model):
        fixed, reference, among = (None if m is None else m._of(model) for m in (asked.fixed, asked.reference, asked.among))
        include = None if asked.include == "*" else asked.include
        masked = masked_by(model, asked.units, include, None if asked.exclude is DEFAULT_EXCLUDE else asked.exclude)
        parameters, aliases = dict(model.named_parameters(remove_duplicate=False)), parameter_names(model)
        covered = [*masked.parameters, *(() if fixed is None else fixed._on(model))]
        refuse_not_finite(parameters, masked.parameters)
        off = off_weights(model, dict.fromkeys(covered), asked.off, asked.seed)
        nothing = the_same(model, off)
    if fixed is not None:
        masked = masked.without(fixed)
        if not masked.names and not asked.train_weights:
            raise UserError("every selected parameter has a fixed mask, so there is nothing to learn.")
    sampler = sampler_of(asked.sampler)
    size = _size(asked, masked, sampler)
    learning = trained(parameters, aliases, asked.train_weights)
    allowed = per_entry(among, masked, model)
    refuse_among(allowed if asked.ranking is None else asked.ranking, masked.names, sampler, asked.density)
    first = First(asked.ranking, asked.relative_beta)
    if learning and first.looks(size):
        raise UserError("weights that learn (train_weights) have no loss to measure by before they have learned; give score= and valid=.")
    if learning and isinstance(sampler, Ranking):
        raise UserError(
            f"{type(sampler).__name__} ranks weights and learns nothing, so no weights can learn with it: "
            "leave train_weights out, or take a sampler that learns."
        )
    samples, seen, batches = asked.samples, list[Any](), asked.batches
    if samples is None and asked.usual is GUMBEL:
        samples = GUMBEL.samples
    if samples is None or first.looks(size):
        seen, batches = looked_at(batches, LOOKED_AT)
    if samples is None:
        samples = samples_for(seen[0], sum(parameters[n].numel() for n in masked.parameters))
    return Prepared(
        masked=masked,
        aliases=aliases,
        fixed=fixed,
        reference=reference,
        off=off,
        nothing=nothing,
        learning=learning,
        sampler=sampler,
        size=size,
        among=among,
        allowed=allowed,
        first=first,
        seen=seen,
        batches=batches,
        samples=samples,
    )


def _size(asked: Asked, masked: Masked, sampler: Sampler) -> Size:
    """Return how large masks are to be; where a call does not say how to learn, as small as a default of `within` allows."""
    said = asked.within is not None or asked.usual is GUMBEL
    usual = WITHIN_OF_LOSS if asked.score is None else WITHIN_OF_SCORE
    return size_of(
        asked.model,
        masked,
        sampler,
        beta=asked.beta,
        density=asked.density,
        within=asked.within if said else usual,
        score=asked.score,
        valid=asked.valid,
        asked=said,
    )


def trainer_of(asked: Asked, fit: Prepared) -> MaskTrainer:
    """Return what learns the masks. Raises `UserError`."""
    model, (target, samplers) = asked.model, fit.size.tell(fit.sampler)
    generator = torch.Generator("cpu").manual_seed(derive(asked.seed, asked.label, "mask start"))
    with using(model), torch.inference_mode(False):  # tensors made in inference mode cannot learn
        shapes = fit.masked.logit_shapes(dict(model.named_parameters(remove_duplicate=False)))
        init = asked.usual.init if asked.init is None else asked.init
        logits = initial(shapes, fit.masked.names, fit.aliases, init, fit.sampler, generator)
        return MaskTrainer(
            model,
            asked.loss,
            among_only(logits, fit.allowed),
            fit.sampler,
            samples=fit.samples,
            lr=asked.lr,
            beta=(0.0 if asked.density is not None else BETA) if asked.beta is None else asked.beta,
            fixed=fit.fixed,
            train_weights=fit.learning,
            optimizer=asked.optimizer,
            clip=asked.clip,
            clip_over=asked.clip_over,
            carried=asked.carried,
            warmup=asked.warmup,
            reg_batch=asked.reg_batch,
            scale_regulariser=asked.scale_regulariser,
            executor=asked.executor,
            memory=bytes_of(asked.memory),
            seed=asked.seed,
            label=asked.label,
            reference=per_entry(fit.reference, fit.masked, model, unnamed=False),
            steps=asked.steps,
            target=target,
            off=fit.off,
            held=fit.size.held,
            samplers=samplers,
            beta_start=asked.beta_start,
            units=fit.masked.groups,
        )


def begun(asked: Asked, fit: Prepared, trainer: MaskTrainer, tracker: Tracker) -> Prepared:
    """Find out what is to be known before the first step, and return the fit that knows it. Raises `UserError`, `RunError`."""
    if asked.ranking is not None:
        tracker.message(f"ranks weights by {type(asked.ranking).__name__}, to learn masks among those that are needed")
    size, cut, allowed = fit.first.begin(
        trainer, asked.model, fit.seen, asked.loss, fit.masked, fit.size, fit.allowed, fit.fixed, fit.off
    )
    return attrs.evolve(fit, size=size, among=fit.among if cut is None else cut, allowed=allowed, ranked_cut=cut is not None)


def keeper_for(asked: Asked, fit: Prepared, tracker: Tracker) -> Keeper | None:
    """Return what keeps the fit in its file on the way; None without one."""
    if asked.checkpoint is None:
        return None
    identity = identity_of(
        asked.model,
        **asked.identity,
        masked=list(fit.masked.names),
        sampler_options=fit.sampler.options,
        held=fit.size.held,
    )
    return keeper_of(asked.checkpoint, asked.checkpoint_every, identity, tracker.message, warned)


def by_ranking(asked: Asked, fit: Prepared, ranking: Ranking) -> Fit:
    """Return the masks of a ranking, which learns nothing. Raises `UserError`, `RunError`."""
    model, size = asked.model, fit.size
    if size.by_loss:
        size = size.measuring(model, fit.seen, asked.loss, fit.fixed, fit.off)
    found = ranked(model, fit.batches, asked.loss, fit.masked, ranking, size, asked.steps, fit.fixed, fit.off)
    kinds = special(model, fit.masked.weights) if asked.by_default else {}
    reasons = findings(
        Course(steps=0, weights=0, kept=0, nothing=fit.nothing, special=kinds, unmasked=complex_ones(model) if asked.by_default else ())
    )
    if size.within is not None and not any(bool(found.masks[n].any()) for n in found.logits):
        reasons["cut"] = needless(size.within)
    return attrs.evolve(found, cautions=written(found.history, reasons))
