"""The study of a question, as its file would say it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from modhook.asking.batches import Whole
from modhook.asking.nonsense import LABELS
from modhook.asking.task import NAME, AskOptions, Question
from modhook.errors import ModhookWarning, StudyError, UserError, listing
from modhook.fit.usual import USUAL
from modhook.masks.select import DEFAULT_EXCLUDE, in_words
from modhook.network.twin import twin
from modhook.plugin.interfaces import Sampler
from modhook.plugin.manager import Plugins
from modhook.run.changed import untrain
from modhook.study import Study, plain_table, restore
from modhook.values.arguments import instance, shown

EVERY = ("random", "magnitude", "inverse", "own_removed", "shuffled", "untrained", "nonsense")
"""What `controls=True` asks for. Masks of several seeds on one network are there without `seed_ceiling`."""
THRESHOLD = "threshold"
"""What is given as `within` for the sampler's own masks."""
WITHIN = 0.05
"""The share of the score that masks may lose where no size is given; sizes are compared with those of controls."""
RISING = {name: getattr(USUAL, name) for name in ("init", "beta", "beta_start", "relative_beta", "among")}
"""What its masks are learned with where the user gives nothing: the setting of `fit_masks`, which nox -s truth measures."""
LEVEL = {"init": USUAL.init, "beta": 0.3}
"""The same for units, which are not ranked first, and in cubes that were begun with it."""


def study_of(
    name: str,
    options: AskOptions,
    question: Question,
    plugins: Plugins,
    there: Mapping[str, Any] | None,
    *,
    seeds: int,
    controls: Any,
    device: str | None,
    threads: int | None,
    analyses: Any,
    batch: int,
    masks: Mapping[str, Any],
    sampler: Any,
    include: Any,
    exclude: Any,
    units: Sequence[str],
) -> Study:
    """Return the checked study of a question; `there` is what the cube records that is there already.

    Raises `UserError`: one sentence for everything that is wrong.
    """
    named, settings = _sampler(sampler, plugins)
    asked_for, unusable = _controls(controls, options, question)
    within, density = masks["within"], masks["density"]
    if within is not None and density is not None:
        raise UserError("density and within both say how large the masks are; give one of them.")
    if within is None and density is None:
        within = _usual(there)
    if within == THRESHOLD:
        within = None
    learned = {k: v for k, v in masks.items() if k != "within" and v is not None}
    learned = _learning(named, learned, tuple(units) == ("weight",), there) | learned
    learned |= {"sampler": named, "batch": batch, **({} if question.off_name == "zero" else {"off": question.off_name})}
    if tuple(units) != ("weight",):
        learned["units"] = list(units)
    if within is not None:
        learned["cut"] = {"within": within}
    for key, given, usual in (("include", include, "*"), ("exclude", exclude, DEFAULT_EXCLUDE)):
        if given is not usual:
            learned[key] = list(given)
    table: dict[str, Any] = {
        "study": {
            "name": name,
            "seeds": seeds,
            "protocol": "given",
            "description": f"Asked: {', '.join(options.functions)}.",
        },
        "task": {"name": NAME, **plain_table(options)},
        "model": {"name": NAME},
        "train": {"batch": batch, "eval_batch": _measured(question)},
        "masks": learned,
        "analyses": _analyses(analyses),
        **({"controls": asked_for} if asked_for else {}),
        "sampler": settings,
        "run": {
            "device": device or _device(question),
            "trackers": [],
            **({} if threads is None else {"threads": threads}),
        },
    }
    try:
        study = restore(table, plugins=plugins)
    except StudyError as error:
        raise UserError("; ".join(error.problems) + ".") from error.__cause__
    if unusable:
        warnings.warn(ModhookWarning(unusable), stacklevel=4)
    return study


def spelled(model: nn.Module, include: Any, exclude: Any) -> tuple[Any, Any]:
    """Return what chooses parameters as a study can say it: modules, types and functions by the names that they choose.

    Raises `UserError`.
    """
    return (
        include if isinstance(include, str) and include == "*" else in_words(model, "include", include),
        exclude if exclude is DEFAULT_EXCLUDE else in_words(model, "exclude", exclude),
    )


def _learning(sampler: str, given: Mapping[str, Any], weights: bool, there: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the user did not give; a beta or a density of the user's is the whole pull."""
    if sampler != USUAL.sampler:
        return {}
    if "beta" in given or "density" in given:
        return {"init": LEVEL["init"]}
    before = there is not None and there.get("masks", {}).get("among") is None
    return dict(LEVEL if before or not weights else RISING)


def _usual(there: Mapping[str, Any] | None) -> float | None:
    """Return the size of masks where none is given; that of a cube that is there, if it took the sampler's own."""
    return None if there is not None and there.get("masks", {}).get("cut") == "threshold" else WITHIN


def _controls(given: Any, options: AskOptions, question: Question) -> tuple[dict[str, Any], str]:
    """Return the table `[controls]`, and what is to be said of controls that cannot be had here."""
    if not isinstance(given, bool | Mapping):
        raise UserError(f"controls must be True, False or {{name: options}}, not {shown(given)}.")
    table: dict[str, Any] = dict.fromkeys(EVERY, True) if given is True else dict(given or {})
    without = _fixed_weights(question) if given is True else ""
    if without:
        del table["untrained"]
    chosen = table.get("nonsense")
    stages = list(chosen["stages"]) if isinstance(chosen, Mapping) and isinstance(chosen.get("stages"), list | tuple) else options.functions
    bare = [name for name in stages if name in options.functions and name not in question.classes]
    if not chosen or question.nonsense is not None or not bare:
        return table, without
    why = (
        f"the batches of {listing(map(repr, bare))} are neither pairs (inputs, integer labels) nor mappings with integer labels under "
        f"{listing(map(repr, LABELS))}, of two classes or more; give nonsense=, a function nonsense(batch, seed) that returns the batch "
        "with other answers"
    )
    if given is not True:
        raise UserError(f"controls['nonsense']: {why}.")
    table["nonsense"] = {"stages": [name for name in stages if name not in bare]}
    of = f" of {listing(map(repr, bare))}, so that *real* cannot be *yes* of {'it' if len(bare) == 1 else 'them'}"
    if not table["nonsense"]["stages"]:
        del table["nonsense"]
    return table, " ".join(filter(None, (f"there is no control 'nonsense'{of}: {why}.", without)))


def _fixed_weights(question: Question) -> str:
    """Return why the network cannot be initialised anew, or an empty text."""
    try:
        untrain(twin(question.model), lambda: twin(question.model), 0)
    except UserError as error:
        return f"there is no control 'untrained': {str(error).removeprefix('controls.untrained: ').partition('; ')[0]}."
    return ""


def _measured(question: Question) -> int:
    """Return how many items are measured at once: as many as the user's batches have; batches that stay whole come one by one."""
    stores = question.tests.values()
    return 1 if any(isinstance(store, Whole) for store in stores) else max(store.size for store in stores)


def _device(question: Question) -> str:
    return str(next((p.device for p in question.model.parameters()), torch.device("cpu")))


def _sampler(sampler: Any, plugins: Plugins) -> tuple[str, dict[str, Any]]:
    if isinstance(sampler, str):
        return sampler, {}
    if isinstance(sampler, Sampler):
        for name in plugins.names("samplers"):
            if plugins.load("samplers", name) is type(sampler):
                return name, plain_table(sampler.options)
    raise UserError(
        f"sampler must be the name of an installed sampler, or one of these made with its options, not {shown(sampler)}."
    )


def _analyses(given: Any) -> dict[str, Any]:
    if isinstance(given, Mapping):
        for name, options in given.items():
            instance(f"analyses[{name!r}]", options, Mapping, "a mapping of options, {} for the defaults")
        return {str(name): dict(options) for name, options in given.items()}
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise UserError(f"analyses must be names in a list, or {{name: options}}, not {shown(given)}.")
    return {str(name): {} for name in given}
