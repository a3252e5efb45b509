"""Checks for authors of plugins: does a task, a network or an analysis keep what its interface promises?

Each takes the plugin's class and its options as a study would give them, and raises `AssertionError`, saying what is wrong and what
to do. They run on the CPU, on the plugin's own data, with a handful of items. Instead of a class its name in a study may be given,
`"my_task.py:MyTask"`, the file relative to the current folder; and instead of a network plugin what makes the network.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modhook.cube import open_cube
from modhook.errors import ModhookError, TrustWarning, listing
from modhook.fit import Fit, fit_masks
from modhook.plugin.code import Place, find
from modhook.plugin.hookspecs import Spec
from modhook.plugin.interfaces import Analysis, Model, Task, Tracker
from modhook.plugin.manager import KINDS, Entry, Plugins, plugins
from modhook.plugin.offered import Offer
from modhook.run import run_study
from modhook.run.build import build_model, build_task
from modhook.run.data import items
from modhook.study import Study, restore

__all__ = ["check_analysis", "check_model", "check_task"]

Options = Mapping[str, Any]
Network = type[Model] | Callable[..., nn.Module] | str
"""A network plugin, or what a study can name instead: a class or a function that returns a network, called with its options."""
_ITEMS = 8


def check_task(
    task: type[Task] | str, model: Network, options: Options | None = None, model_options: Options | None = None
) -> None:
    """Check a task with a network that serves it.

    Data of every stage and split are tensors with the same number of items, and the same at every call; the loss is one finite
    number that the network's weights change; `score` gives one number per item, for every metric, whatever the items
    beside it; masks can be learned on every stage.

    Raises:
        AssertionError: a promise that is not kept. UserError: options that do not fit.
    """
    made, net = _built(task, model, options, model_options)
    net.eval()
    _require(bool(made.splits), "splits is empty; name at least one test set.")
    _require(len(set(made.splits)) == len(made.splits), f"splits names one twice: {listing(made.splits)}.")
    data = {f"train_set({s!r})": made.train_set(s) for s in _trained(made)}
    data |= {f"test_set({s!r})": made.test_set(s) for s in made.splits}
    for what, found in data.items():
        _check_data(what, found)
    for name in _trained(made):
        again = _same(data[f"train_set({name!r})"], made.train_set(name))
        _require(again, f"train_set({name!r}) differs between two calls.")
    for split in made.splits:
        whole = _prepared(made, made.test_set(split), _ITEMS, training=False)
        with torch.no_grad():
            _check_scores(made, net, whole, split)
    for stage in made.stages:
        batch = _prepared(made, made.train_set(stage.name), _ITEMS, training=True)
        loss = made.loss(net, batch)
        _require(
            isinstance(loss, Tensor) and loss.dim() == 0,
            f"loss must return one number, a tensor of shape (), not {loss!r}.",
        )
        _require(bool(loss.isfinite()), f"the loss of stage {stage.name!r} is {loss.item()} for a new network.")
        weights = [p for p in net.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        moved = any(g is not None and bool(g.any()) for g in gradients)
        _require(moved, f"no weight changes the loss of stage {stage.name!r}.")
        _fitted(net, batch, made)


def check_model(
    model: Network, task: type[Task] | str, options: Options | None = None, task_options: Options | None = None
) -> None:
    """Check a network on a task that it serves.

    The same random state gives the same weights, another one others; something can be masked; the network runs under
    several masks at once exactly, by whatever route.

    Raises:
        AssertionError: a promise that is not kept. UserError: options that do not fit, a shape that it cannot serve.
    """
    installed = _installed(task, model, network_options=options)
    study = _study(installed, task_options, _own(model, options))
    made = build_task(study, installed)
    first, second, other = (build_model(study, made, installed, seed) for seed in (1, 1, 2))
    _require(isinstance(first, nn.Module), f"build must return a torch.nn.Module, not {first!r}.")
    same, different = first.state_dict(), other.state_dict()
    _require(_same(same, second.state_dict()), "the same random state gives other weights; draw them from torch's own.")
    _require(not _same(same, different), "the random state does not matter; draw the first weights from torch's own.")
    batch = _prepared(made, made.train_set(None), _ITEMS, training=True)
    before = {name: tensor.clone() for name, tensor in same.items()}
    fit = _fitted(first.eval(), batch, made)
    _require(bool(fit.masks), "no parameter can be masked.")
    _require(_same(before, first.state_dict()), "learning masks changed the network.")


def check_analysis(
    analysis: type[Analysis] | str,
    task: type[Task] | str,
    model: Network,
    options: Options | None = None,
    task_options: Options | None = None,
    model_options: Options | None = None,
) -> None:
    """Run a tiny study in a temporary folder and check what the analysis writes of it.

    Every declared variable is written, with its dimensions and type, and at least one of them holds numbers.

    Raises:
        AssertionError: a promise that is not kept. UserError: options that do not fit.
    """
    installed = _installed(task, model, analysis, network_options=model_options)
    study = _study(installed, task_options, _own(model, model_options), options or {})
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_study(study, Path(folder), installed, Tracker())
        _require(not outcome.failed, "; ".join(outcome.failed))
        made = build_task(study, installed)
        with open_cube(outcome.path) as cube:
            declared = installed.load("analyses", "checked")(study.analyses["checked"]).variables(made)
            found: dict[str, Any] = {v.name: cube[v.group][v.short].values for v in declared}
    said = any(values.dtype.kind != "f" or bool(np.isfinite(values).any()) for values in found.values())
    _require(said, f"every variable holds nothing but NaN: {listing(found)}.")


# -- inside


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise AssertionError(text)


def _installed(
    task: type[Task] | str,
    model: Network,
    analysis: type[Analysis] | str | None = None,
    network_options: Options | None = None,
) -> Plugins:
    """Return what is installed, with the given classes under the name `checked`."""
    every: list[Entry | Offer] = [entry for kind in KINDS for entry in plugins().entries(kind)]
    network = _found(model)
    if not _is_plugin(network):
        network = _called(network, network_options or {})
    for kind, cls in (("tasks", _found(task)), ("models", network), ("analyses", _found(analysis))):
        if cls is None:
            continue
        wanted = KINDS[kind]
        fits = isinstance(cls, type) and issubclass(cls, wanted)
        _require(fits, f"{cls!r} must be a subclass of modhook.{wanted.__name__}.")
        spec = Spec("checked", cls.__name__, f"{cls.__module__}:{cls.__qualname__}")
        every.append(Offer(kind, spec, cls, cls.__module__.partition(".")[0]))
    return Plugins(every, [])


def _found(given: Any) -> Any:
    """Return a class, also where its name in a study is given."""
    return find(given, Place(Path(), "the current folder")).thing if isinstance(given, str) else given


def _is_plugin(model: Any) -> bool:
    return isinstance(model, type) and issubclass(model, Model)


def _own(model: Network, options: Options | None) -> Options | None:
    """Return the options that a network plugin takes; what makes a network is called with them instead."""
    return options if _is_plugin(_found(model)) else None


def _called(factory: Any, options: Options) -> type[Model]:
    """Return what makes a network as a plugin."""
    _require(callable(factory), f"{factory!r} is no modhook.Model, and cannot be called to make a network.")

    class Called(Model):
        def build(self, shape: Mapping[str, Any]) -> nn.Module:
            made: nn.Module = factory(**options)
            return made

    return Called


def _study(
    installed: Plugins, task_options: Options | None, model_options: Options | None, analysis: Options | None = None
) -> Study:
    """Return a tiny study of the classes under the name `checked`; options are checked as a study's are."""
    table = {
        "study": {"name": "checked"},
        "task": {**(task_options or {}), "name": "checked"},
        "model": {**(model_options or {}), "name": "checked"},
        "train": {"steps": 2, "batch": _ITEMS, "validate_every": 0},
        "masks": {"steps": 2, "samples": 2},
        "analyses": {} if analysis is None else {"checked": dict(analysis)},
    }
    return restore(table, plugins=installed)


def _built(
    task: type[Task] | str, model: Network, options: Options | None, model_options: Options | None
) -> tuple[Task, nn.Module]:
    installed = _installed(task, model, network_options=model_options)
    study = _study(installed, options, _own(model, model_options))
    made = build_task(study, installed)
    return made, build_model(study, made, installed, 1)


def _trained(task: Task) -> list[str | None]:
    """Return what `train_set` is asked for: base training, and every stage."""
    return [None, *(stage.name for stage in task.stages)]


def _check_data(what: str, data: Any) -> None:
    _require(isinstance(data, dict) and bool(data), f"{what} must return a dictionary of tensors, not {data!r:.80}.")
    for name, tensor in data.items():
        _require(isinstance(tensor, Tensor), f"{what}[{name!r}] must be a tensor, not {type(tensor).__name__}.")
        _require(
            tensor.device.type == "cpu",
            f"{what}[{name!r}] must be on the CPU; batches are moved where they are needed.",
        )
    try:
        items(data, what)
    except ModhookError as error:
        raise AssertionError(str(error)) from error


def _prepared(task: Task, data: Mapping[str, Tensor], count: int, training: bool) -> dict[str, Any]:
    """Return `count` items, prepared; small data sets are gone through again."""
    index = torch.arange(count, device="cpu") % items(data, "the data")
    return task.prepare({name: tensor[index] for name, tensor in data.items()}, np.random.default_rng(0), training)


def _check_scores(task: Task, net: nn.Module, batch: dict[str, Any], split: str) -> None:
    whole = task.score(net, batch)
    missing = [metric for metric in task.metrics if metric not in whole]
    _require(not missing, f"score must return every metric of `metrics`; it lacks {listing(missing)}.")
    for metric in task.metrics:
        shape = tuple(whole[metric].shape)
        _require(shape == (_ITEMS,), f"score[{metric!r}] must have shape (B,) = ({_ITEMS},), not {shape}.")
        halves = []
        for half in (slice(0, _ITEMS // 2), slice(_ITEMS // 2, _ITEMS)):
            data = {n: t[torch.arange(_ITEMS, device="cpu")[half] % len(t)] for n, t in task.test_set(split).items()}
            halves.append(task.score(net, task.prepare(data, np.random.default_rng(0), False))[metric])
        same = torch.allclose(torch.cat(halves).double(), whole[metric].double(), atol=1e-4)
        _require(same, f"score[{metric!r}] of an item depends on the items beside it in split {split!r}.")


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _fitted(net: nn.Module, batch: Any, task: Task) -> Fit:
    """Return the fit of one step, of which nobody expects masks to trust."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)
        return fit_masks(net, [batch], task.loss, samples=2, steps=1, progress=False)
