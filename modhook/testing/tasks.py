"""Checks of tasks and networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modhook.errors import ModhookError, listing
from modhook.plugin.interfaces import Task
from modhook.run.build import build_model, build_task
from modhook.run.data import items
from modhook.testing.common import ITEMS, Checked, Network, Options, fitted, prepared, require, same


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
    made, net = Checked(task, model, options, model_options).made()
    net.eval()
    require(bool(made.splits), "splits is empty; name at least one test set.")
    require(len(set(made.splits)) == len(made.splits), f"splits names one twice: {listing(made.splits)}.")
    data = {f"train_set({s!r})": made.train_set(s) for s in _trained(made)}
    data |= {f"test_set({s!r})": made.test_set(s) for s in made.splits}
    for what, held in data.items():
        _check_data(what, held)
    for name in _trained(made):
        again = same(data[f"train_set({name!r})"], made.train_set(name))
        require(again, f"train_set({name!r}) differs between two calls.")
    for split in made.splits:
        whole = prepared(made, made.test_set(split), ITEMS, training=False)
        with torch.no_grad():
            _check_scores(made, net, whole, split)
    for stage in made.stages:
        batch = prepared(made, made.train_set(stage.name), ITEMS, training=True)
        loss = made.loss(net, batch)
        require(
            isinstance(loss, Tensor) and loss.dim() == 0,
            f"loss must return one number, a tensor of shape (), not {loss!r}.",
        )
        require(bool(loss.isfinite()), f"the loss of stage {stage.name!r} is {loss.item()} for a new network.")
        weights = [p for p in net.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        moved = any(g is not None and bool(g.any()) for g in gradients)
        require(moved, f"no weight changes the loss of stage {stage.name!r}.")
        fitted(net, batch, made)


def check_model(
    model: Network, task: type[Task] | str, options: Options | None = None, task_options: Options | None = None
) -> None:
    """Check a network on a task that it serves.

    The same random state gives the same weights, another one others; something can be masked; the network runs under
    several masks at once exactly, by whatever route.

    Raises:
        AssertionError: a promise that is not kept. UserError: options that do not fit, a shape that it cannot serve.
    """
    checked = Checked(task, model, task_options, options)
    installed = checked.plugins()
    study = checked.study(installed)
    made = build_task(study, installed)
    first, second, other = (build_model(study, made, installed, seed) for seed in (1, 1, 2))
    require(isinstance(first, nn.Module), f"build must return a torch.nn.Module, not {first!r}.")
    state, different = first.state_dict(), other.state_dict()
    require(same(state, second.state_dict()), "the same random state gives other weights; draw them from torch's own.")
    require(not same(state, different), "the random state does not matter; draw the first weights from torch's own.")
    batch = prepared(made, made.train_set(None), ITEMS, training=True)
    before = {name: tensor.clone() for name, tensor in state.items()}
    fit = fitted(first.eval(), batch, made)
    require(bool(fit.masks), "no parameter can be masked.")
    require(same(before, first.state_dict()), "learning masks changed the network.")


# -- inside


def _trained(task: Task) -> list[str | None]:
    """Return what `train_set` is asked for: base training, and every stage."""
    return [None, *(stage.name for stage in task.stages)]


def _check_data(what: str, data: Any) -> None:
    require(isinstance(data, dict) and bool(data), f"{what} must return a dictionary of tensors, not {data!r:.80}.")
    for name, tensor in data.items():
        require(isinstance(tensor, Tensor), f"{what}[{name!r}] must be a tensor, not {type(tensor).__name__}.")
        require(
            tensor.device.type == "cpu",
            f"{what}[{name!r}] must be on the CPU; batches are moved where they are needed.",
        )
    try:
        items(data, what)
    except ModhookError as error:
        raise AssertionError(str(error)) from error


def _check_scores(task: Task, net: nn.Module, batch: dict[str, Any], split: str) -> None:
    whole = task.score(net, batch)
    missing = [metric for metric in task.metrics if metric not in whole]
    require(not missing, f"score must return every metric of `metrics`; it lacks {listing(missing)}.")
    for metric in task.metrics:
        require(isinstance(whole[metric], Tensor), f"score[{metric!r}] must be a tensor (B,), not {type(whole[metric]).__name__}.")
        finite = bool(whole[metric].isfinite().all())
        require(finite, f"score[{metric!r}] is not finite for a new network, in split {split!r}: nothing can be compared with it.")
        shape = tuple(whole[metric].shape)
        require(shape == (ITEMS,), f"score[{metric!r}] must have shape (B,) = ({ITEMS},), not {shape}.")
        halves = []
        for half in (slice(0, ITEMS // 2), slice(ITEMS // 2, ITEMS)):
            data = {n: t[torch.arange(ITEMS, device="cpu")[half] % len(t)] for n, t in task.test_set(split).items()}
            halves.append(task.score(net, task.prepare(data, np.random.default_rng(0), False))[metric])
        same = torch.allclose(torch.cat(halves).double(), whole[metric].double(), atol=1e-4)
        require(same, f"score[{metric!r}] of an item depends on the items beside it in split {split!r}.")
