"""`fit_masks`: learn which weights a function needs."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from modhook.errors import ModhookWarning, TrustWarning
from modhook.fit.asked import Asked, asked_of
from modhook.fit.engine import MaskTrainer
from modhook.fit.losses import Loss
from modhook.fit.outcome import fit_of, learned
from modhook.fit.prepared import begun, by_ranking, keeper_for, prepared, trainer_of
from modhook.fit.result import Fit
from modhook.fit.trust import told
from modhook.masks import Masks
from modhook.masks.off import Off
from modhook.masks.select import DEFAULT_EXCLUDE
from modhook.masks.selectors import Selectors
from modhook.plugin.contract import CarriedGradients
from modhook.plugin.interfaces import Ranking, Sampler, Tracker
from modhook.plugin.trackers import tracker_of
from modhook.steps.loop import run_steps, warned
from modhook.steps.optim import MakeOptimizer
from modhook.unit.find import UnitsLike

UNCUT = (
    "stopped by Ctrl-C while the masks of within= were measured: the cut was not made, and the masks are the sampler's own; "
    "fit.smallest(valid, score, within) makes it, or fit.cut(density=...) one of a size."
)


def fit_masks(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    samples: int | None = None,
    steps: int | None = None,
    lr: float | None = None,
    beta: float | None = None,
    beta_start: float | None = None,
    relative_beta: bool | float = False,
    init: float | Mapping[str, Tensor] | None = None,
    include: Selectors = "*",
    exclude: Selectors = DEFAULT_EXCLUDE,
    units: UnitsLike = "weight",
    sampler: str | Sampler | None = None,
    density: float | Mapping[str, float] | None = None,
    within: float | None = None,
    score: Callable[[nn.Module, Any], Any] | None = None,
    valid: Iterable[Any] | None = None,
    fixed: Masks | None = None,
    among: Masks | str | Ranking | None = None,
    off: Off = None,
    train_weights: Mapping[str, Tensor] | None = None,
    optimizer: str | MakeOptimizer = "adam",
    clip: float | None = 1.0,
    clip_over: str = "logits",
    carried: CarriedGradients | None = None,
    warmup: int = 0,
    reg_batch: int | None = None,
    scale_regulariser: bool = False,
    executor: str = "auto",
    memory: int | str | None = None,
    seed: int = 0,
    label: str = "",
    reference: Masks | None = None,
    progress: bool | Tracker = True,
    callback: Callable[[int, MaskTrainer], object] | None = None,
    stop: str | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 300.0,
) -> Fit:
    """Learn a binary mask over the weights of a frozen network: the weights that `loss` needs.

    Each step draws K masks, cuts the batch into K equal consecutive groups, runs group k under mask k (all at once), and
    descends the mean of the K losses plus `beta / reg_batch` per logit with a straight-through gradient
    (Csordas et al. 2021, section 2).

    Where a call does not say how to learn, by a sampler or by an argument that belongs to one (`beta`, `beta_start`, `relative_beta`,
    `init`, `density`, `units`, `train_weights`, `optimizer`, `clip_over`, `carried`, `warmup`, `reg_batch`, `scale_regulariser`, `stop`;
    `modhook.fit.usual.SAYS_HOW`), it is the setting that finds modules which are known (docs/real.md): integrated gradients rank the
    weights, masks are learned among those that their smallest cut keeps, by `hard_concrete` (400 steps, 16 samples, lr 0.1, logits from
    3) under a relative beta that rises from 0.01 to 50, and are cut to the smallest that lose no more than `within`. Samples are fewer
    where 16 does not divide the batch, and above 131,000 weights. Any other call has the sampler `gumbel`, as in the paper, unless
    another is named.

    Args:
        model: any `nn.Module`; it is not changed, and runs in the mode it is in (call `model.eval()` first).
        batches: any iterable of batches, one per step; a re-iterable (a list, a DataLoader) restarts at its end. A batch is a
            tensor, or tensors in tuples, lists, mappings, their subclasses, and nodes that torch's pytree knows; tensors have the
            items first, (B, ...). A dataclass belongs to it if its tensors have B items. Anything else, tensors in it included,
            reaches every group as it is; wrap what is to do so in `modhook.shared`.
        loss: `loss(net, batch)` returns a scalar for one group; `net(...)` stands for the network under one mask.
        samples: K, masks per step; must divide the first batch's size. Of a later batch up to K - 1 items are left out. Default 4.
            This default and those of `steps`, `lr`, `beta` and `init` are of calls that say how to learn; the others' are above.
        steps: optimiser steps. Default 2000.
        lr: learning rate of the logits. Default 1e-2.
        beta: pull towards fewer weights, times the sampler's penalty of each weight, per item; larger keeps less. Default 1e-4, or
            what `density` makes of it.
        beta_start: where beta begins; it rises by equal factors until it is `beta` in the last step, so that the weights that are needed
            least go first, and the logits of those that have gone are a ranking, too (`modhook.fit.pull`). Default: `beta` throughout.
        relative_beta: count `beta` and `beta_start` in what the network saves on its loss by the learned weights, all of them together:
            of N weights each is pulled by beta * (L(nothing) - L(whole)) / N times the sampler's penalty, L being the mean loss over
            the first batches (or over `valid`) with none and with all of them. The same beta then means the same for networks of
            any size, whatever the loss counts in: losses are divided by what they save where that is below 0.01 or above 100, and of one
            that is no mean over items L counts as in the K groups of a batch. Where they save nothing it is |L(nothing)| instead. A number
            stands for what they save.
        init: start of all logits, or {name: tensor of the parameter's shape}; names left out, and all by default, start where the
            sampler starts them (`gumbel`: 2.0, keep-probability 0.88).
        include, exclude: parameters to mask: patterns of their names, paths of modules (`"encoder.layer.0"`), modules, types
            (`nn.Linear`), or functions of a name and a parameter; one, or a list of them (see `modhook.select`).
        units: what has a mask: "weight", every weight; "neuron", "channel", "head", "block" or "layer", with one logit per unit
            (`modhook.units(model)` shows those that are found); a mapping {unit: {parameter: index}}, a callable that makes one
            from the network, `modhook.units(...)` or a part of it; or a list of these, whose masks multiply: a weight is kept if all
            of its units are. Units are chosen by the patterns that match the weight which makes them; those that were given,
            only by patterns that were given, too (docs/units.md).
        sampler: a sampler plugin's name, or a `Sampler`. A ranking without training (`magnitude`, `gradient_weight`, `snip`,
            `integrated_gradients`) scores weights by at most `steps` batches, needs `density` or `within`, and uses none of the
            arguments that are about learning.
        density: the share of the learned weights that the masks keep, above 0 to 1, or {pattern: share} (of several patterns the
            first that matches a parameter counts). The expected density is held on its way down while masks are learned
            (`modhook.fit.target`), and the masks are the cut of that size.
        within, score, valid: keep the smallest masks that lose no more than this share of the unmasked network's score on the
            held-out batches `valid` (see `Fit.smallest`); the unmasked network is measured before the first step, too, so that a
            score that cannot be compared is refused there. Without a score it is the share of what the network saves on its loss
            (`modhook.fit.recovered`), on `valid` or else on the first batches that are learned from. Where a call does not say how to
            learn, `within` is 0.003 of the loss, or 0.001 of a score. The first batch of `valid`, which may be given alone, is also
            what `history["mask_loss"]` is measured on.
        fixed: masks that are applied and not learned.
        among: masks whose weights are the only ones to learn about, or a ranking without training, by its name: then the smallest masks
            through it that lose no more than `within` (0.003 of the loss by default), found before the first step. All others start at
            a logit of -30, no sample keeps them, and they come last in the ranking; with `within`, their
            number is one of the sizes looked at. Parameters that it does not name are learned whole. Of units those may be kept of whose
            weights, or of which themselves, it keeps any.
        off: what a weight becomes that is not kept: zero (None, "zero"); "shuffled" or "redrawn" within its tensor, by `seed`; or
            that of a second network, given as it is or as {name: tensor}: with the weights before fine-tuning the masks say which
            changes are needed. A weight under a mask m is off + m (w - off); the fit keeps it as `fit.off`.
        train_weights: {name: bool tensor}: weights that learn together with the logits where True.
        optimizer: "adam", "sgd", or a class of `torch.optim`, made with `lr`; or any other callable from a list of tensors to a torch
            optimiser, which brings its own learning rates: `lr` is not used then, and `warmup` starts from them.
        clip: limit of the global gradient norm of everything learned; None or 0 switches clipping off.
        clip_over: "logits", or "all" as the reference clips: the norm covers the frozen weights too, whose gradients add up from
            step to step, and each clipping scales these too (formula in `modhook.fit.clipping`). Weights that require no
            gradient are left out, unless none does.
        carried: with "all", the gradients that an earlier fit on the same network left (`fit.carried`); None: none.
        warmup: steps of linear learning-rate warm-up.
        reg_batch: the B in beta / B; default: the batch's size.
        scale_regulariser: multiply each parameter's beta by its share of the gradient: the mean norm of its logits' gradient
            over the last 11 steps, divided by the mean over all masked parameters, at least 1e-4.
        executor: "auto", "fastest", "vmap" or "loop": how the K samples run (see `modhook.stack`); for "auto", gates of units multiply
            activations where that is exact (docs/units.md).
        memory: bytes (or text such as "2 GB") that noise, masked weights and their gradients may take; K is processed in parts, and
            where there is room for one sample at most, weights are masked layer by layer, and again in the backward pass, as they are
            by default from 268 million on, those of all samples counted (docs/scale.md). Gates on activations need none of it.
        seed, label: the noise of sample k depends on (seed, label, k) only.
        reference: masks, such as the control's, of whose weights `history["remaining"]` says how many are kept; it changes
            nothing else. Units are counted where masks are of units: those of the same masks, or of whose weights other ones keep any.
        progress: True for a progress bar, False for silence, or a `Tracker`.
        callback: called as `callback(step, trainer)` after each step (from 1); if it returns True, learning ends there.
        stop: "settled" ends learning when the mask no longer changes, and `steps` is the most: over the last 20 rows of the history
            (a tenth of `steps`, at least 20 steps) at most 1e-4 of all logits changed side, and the learning rates of all steps
            add up to more than 3 times the median |logit| at the start, so that a mask which could not move yet has not
            settled; with `density`, not before it is reached. It is asked at the rows where `mask_loss` is measured.
        checkpoint: a file in which the fit is kept on the way, every `checkpoint_every` seconds (0: after every step) and at
            Ctrl-C, in the format of studies' checkpoints; the same call continues from it to the very bits. It is removed when the
            fit is complete, which an interrupted one is not, nor one whose masks of `within` could not be measured: the call
            made again, with another `within` or `score` if need be, measures them. A call is the same by its arguments and the
            network, tensors by their values, functions (`loss`) by name, code and the plain values that they take with them (of
            `functools.partial`, too), and classes by name; functions that they call, `batches` and `callback` are not compared: give the
            same ones, or another file.

    Returns:
        A `Fit`. Ctrl-C ends learning after the step under way and returns what there is (`fit.stopped == "interrupted"`); a second one
        raises `KeyboardInterrupt` as usual, as does one before the first step, while weights are ranked. While `within` is measured, it
        ends that, and the masks are the sampler's own. This holds in the main thread, unless the program handles Ctrl-C itself.

    Warns:
        ModhookWarning: an iterator that ends before the last step; items that were left out; Ctrl-C.
        TrustWarning: a reason not to believe in the masks yet (`fit.cautions`; rules and bounds in `modhook.fit.trust`).

    Raises:
        UserError: a wrong argument (nothing is learned), a batch that K does not divide, patterns that match nothing, a loss that
            is no scalar or has no gradient, unknown names.
        RunError: a loss that is not finite.
    """
    asked = asked_of(locals())
    if type(model).__name__ == "OptimizedModule":  # what torch.compile returns
        warnings.warn(COMPILED, ModhookWarning, stacklevel=2)
    here = prepared(asked)
    if isinstance(here.sampler, Ranking):
        fit = by_ranking(asked, here, here.sampler)
    else:
        trainer = trainer_of(asked, here)
        with telling(asked) as tracker:
            here = begun(asked, here, trainer, tracker)
            keeper = keeper_for(asked, here, tracker)
            with trainer.holding(), contextlib.nullcontext() if keeper is None else keeper.active():
                history = run_steps(
                    trainer,
                    here.batches,
                    asked.steps,
                    tracker,
                    None if callback is None else lambda step: callback(step, trainer),
                    warned if asked.shown else None,
                    settled=trainer.settled if stop else None,
                    returns=True,
                )
                route = trainer.route()
            found = learned(asked, here, trainer, history, route)
            if keeper is not None and here.size.within is not None and found.stopped != "interrupted":
                keeper.save()  # what follows may fail, or take long
            masks = here.size.masks(model, found.logits, here.fixed, found.own, here.off, found.weights, tracker.message, here.allowed)
        if masks is None:
            warnings.warn(UNCUT, ModhookWarning, stacklevel=2)
        fit = fit_of(asked, here, trainer, found, masks)
        if keeper is not None and fit.stopped != "interrupted":
            keeper.remove()
    for sentence in told(fit.cautions):
        warnings.warn(sentence, TrustWarning, stacklevel=2)
    return fit


COMPILED = (
    "the model is compiled (torch.compile): it is compiled anew for masks, which takes long, and its masks have other names than the "
    "module's; learn masks on the module itself, model._orig_mod, and compile it afterwards."
)
ARGUMENTS = tuple(inspect.signature(fit_masks).parameters)


@contextlib.contextmanager
def telling(asked: Asked) -> Iterator[Tracker]:
    """Within it the tracker that was asked for is told of; one of our own has its stage here, and is closed at the end."""
    tracker = tracker_of(asked.progress)
    if asked.shown:
        tracker.stage_started("masks", asked.steps)
    try:
        yield tracker
    finally:
        if asked.shown:
            tracker.close()
