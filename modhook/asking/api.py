"""`ask`: which weights do these functions of a network need, and can the answer be trusted?"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import nn

from modhook.asking.answer import Answer
from modhook.asking.arguments import asked
from modhook.asking.place import Home, home_of, recorded_in, refuse_another
from modhook.asking.said import told_in_arguments
from modhook.asking.study import THRESHOLD, spelled, study_of
from modhook.asking.units import spelled_units
from modhook.asking.workers import spread_over
from modhook.cube import Where
from modhook.errors import ModhookWarning, UserError
from modhook.findings import thresholds_of
from modhook.masks.off import Off
from modhook.masks.select import DEFAULT_EXCLUDE
from modhook.masks.selectors import Selectors
from modhook.plugin.interfaces import Sampler, Tracker
from modhook.plugin.manager import plugins
from modhook.plugin.offered import offering
from modhook.run import run_study
from modhook.run.trackers import make_trackers
from modhook.unit.find import UnitsLike
from modhook.values.arguments import checked, instance, optional
from modhook.values.bounds import Count, NotNegative, Positive

_Within = Annotated[float, Ge(0), Lt(1)]
_Density = Annotated[float, Gt(0), Le(1)]


@torch.inference_mode(False)  # it learns, whatever the caller has switched off
@torch.enable_grad()
def ask(
    model: nn.Module,
    functions: Mapping[str, Any],
    *,
    loss: Callable[..., Any] | Mapping[str, Callable[..., Any]],
    score: Callable[..., Any] | Mapping[str, Callable[..., Any]],
    tests: Mapping[str, Any] | None = None,
    seeds: int = 3,
    controls: bool | Mapping[str, Any] = False,
    out: Where | None = None,
    workers: int | None = None,
    device: str | None = None,
    steps: int = 400,
    samples: int | None = None,
    lr: float = 0.1,
    beta: float | None = None,
    density: float | None = None,
    within: float | str | None = None,
    sampler: str | Sampler = "hard_concrete",
    batch: int | None = None,
    include: Selectors = "*",
    exclude: Selectors = DEFAULT_EXCLUDE,
    units: UnitsLike = "weight",
    off: Off = None,
    analyses: Sequence[str] | Mapping[str, Mapping[str, Any]] = ("sharing", "inverse"),
    nonsense: Callable[..., Any] | None = None,
    thresholds: Mapping[str, float] | None = None,
    threads: int | None = None,
    progress: bool | Tracker = True,
) -> Answer:
    """Ask a network for the weights of several functions: one mask per function and seed, scores, overlap and controls in one cube.

    It is the study runner on a task made of the arguments: protocol `given`, a stage and a split per function. The same call
    continues what was stopped, tries again what failed, and computes nothing twice; more seeds, controls and analyses extend the
    cube.

    Args:
        model: a trained network, any `nn.Module`; it is not changed, and is asked in eval mode.
        functions: {name: batches}: what the masks are learned on. Batches are an iterable as for `fit_masks` (a list, a DataLoader),
            gone through once, or a callable that makes such an iterable from a seed, which is called for every seed. Batches of
            one shape are taken apart into items, of which every step draws `batch`, with replacement; others are drawn whole.
        loss: `loss(net, batch)`, a scalar, or {name: such a callable}.
        score: `score(net, batch)`, one number per item, (B,), more is better, called `accuracy` in the cube, or {metric: such a tensor},
            of which the first decides; or {name: such a callable}.
        tests: {name: held-out batches}, on which every score is measured. A function without them is measured on what its masks
            were learned on, which a warning says.
        seeds: runs 1 to `seeds`: order of the items, noise.
        controls: False; True for all of them; or the table `[controls]` of a study (docs/running.md).
        out: the cube, `"results/name.zarr"`, a path or a URL. None: a temporary folder that is deleted with the `Answer`.
        workers: compute the seeds on as many processes of this machine, each with one thread unless `threads` says otherwise.
        device: "cpu", "cuda", ...; default: where the network is.
        steps, samples, lr, beta, density, within, sampler, include, exclude, units, off: as in `fit_masks`, `density` as one number.
            `within` cuts every mask to the smallest one that loses no more than this share of the unmasked score on the function's tests;
            without `within` and `density` it is 0.05, and "threshold" leaves the sampler's own masks. The defaults are the setting that
            finds known modules (docs/real.md): weights are ranked by integrated gradients, and masks learned among those that are
            needed, by `hard_concrete`, from logits of 3, with 16 samples (fewer where batches are small, and above 131,000 weights),
            under a relative beta that rises from 0.01 to 50. A `beta` of your own, or a `density`, is the whole pull, on all weights;
            units have a beta of 0.3. Other samplers start where they do and have `fit_masks`' beta; give them their own steps and lr,
            too. `off` holds for every mask and every control; what it shuffles or redraws follows from the seed.
        batch: items per step; a multiple of `samples`; default: those of the first batch, rounded down to one.
        analyses: names of analyses, or {name: options}.
        nonsense: `nonsense(batch, seed)` returns the batch with other answers, for that control. By default the classes of batches
            that are pairs (inputs, integer labels), or mappings with such labels, are permuted.
        thresholds: changes to `modhook.findings.THRESHOLDS`, by which verdicts are made; they are no part of the cube.
        threads: of every process; default: all cores, or 1 on workers. The last bits of the numbers depend on it.
        progress: True for a progress bar, False for silence, or a `Tracker`.

    Returns:
        An `Answer`.

    Warns:
        ModhookWarning: functions without held-out tests; runs that failed; a control that cannot be made of these batches.

    Raises:
        UserError: a wrong argument, or an `out` that holds another question (says what differs); nothing was written.
    """
    seeds, workers = checked("seeds", seeds, Count), optional("workers", workers, Count)
    lr, beta, threads = checked("lr", lr, Positive), optional("beta", beta, NotNegative), optional("threads", threads, Count)
    density = optional("density", density, _Density)
    if within != THRESHOLD:
        within = optional("within", within, _Within)
    batch = optional("batch", batch, Count)
    device = str(device) if isinstance(device, torch.device) else device
    if device is not None:
        instance("device", device, str, "the name of a device such as 'cpu' or 'cuda'")
    thresholds_of(thresholds)
    instance("model", model, nn.Module, "an nn.Module")
    include, exclude = spelled(model, include, exclude)
    over = spelled_units(model, units, include, exclude)
    question, options, batches = asked(model, functions, loss, score, tests, nonsense, steps, samples, over, off, batch)
    home = home_of(out)
    try:
        with offering(question.offers()), told_in_arguments():
            installed, there = plugins(), recorded_in(home)
            study = study_of(
                home.name,
                options,
                question,
                installed,
                there,
                seeds=seeds,
                controls=controls,
                device=device,
                threads=threads,
                analyses=analyses,
                batch=batches if batch is None else batch,
                masks={
                    "steps": steps,
                    "samples": question.samples,
                    "lr": lr,
                    "beta": beta,
                    "density": density,
                    "within": within,
                },
                sampler=sampler,
                include=include,
                exclude=exclude,
                units=over.named,
            )
            refuse_another(home, study, there)
            tracker = _tracker(progress, installed, home)
            spread = spread_over(workers)
            outcome = run_study(study, home.folder, installed, tracker, retry_failed=True, renew=True, spread=spread)
    except BaseException:
        home.discard()
        raise
    if outcome.failed:
        reasons = "; ".join(reason.rstrip(".") for reason in outcome.failed[:3])
        more = f"; and {len(outcome.failed) - 3} more" if len(outcome.failed) > 3 else ""
        warnings.warn(ModhookWarning(f"not all runs came to their end: {reasons}{more}."), stacklevel=2)
    return Answer(home, question, thresholds, outcome.failed, seeds)


def _tracker(progress: Any, installed: Any, home: Home) -> Tracker:
    if isinstance(progress, Tracker):
        return make_trackers((), installed, str(home.path), own=progress)
    if not isinstance(progress, bool):
        raise UserError(f"progress must be True, False or a modhook.Tracker, not {progress!r}.")
    return make_trackers(["progress"] if progress else [], installed, str(home.path))
