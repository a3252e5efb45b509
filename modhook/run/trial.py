"""A task is tried before anything is trained: what it gives must be what its interface promises.

One batch of the loss and one of the scores, on a network that is thrown away. What a task raises by itself is left to the run,
which records it; what it returns and cannot be used would stop every run, so it is said here, and so is a `UserError`: the task has
found a mistake of the user's, such as a network that cannot answer it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from modhook.errors import DataError, ModhookError, PluginError, UserError, listing, near_miss
from modhook.network.owned import handed
from modhook.plugin.culprit import told
from modhook.plugin.interfaces import Task
from modhook.plugin.manager import Plugins
from modhook.run.build import build_model
from modhook.run.data import Draw, in_order, items
from modhook.run.layout import Prepared
from modhook.study import Study
from modhook.values.randomness import seeded

T = TypeVar("T")


def try_tasks(prepared: Prepared, plugins: Plugins, device: torch.device) -> None:
    """Check data, loss and scores of every task, with each network that it is used with. Raises `UserError`."""
    tried: set[tuple[int, str]] = set()
    checked: set[int] = set()
    for point, task in zip(prepared.points, prepared.tasks, strict=True):
        if id(task) not in checked:
            checked.add(id(task))
            _try_data(task, point.study.task.name)
        if (key := (id(task), repr(point.study.model))) not in tried:
            tried.add(key)
            _try_once(point.study, task, plugins, device, prepared.protocol.trains)


def _try_data(task: Task, name: str) -> None:
    """Every stage and every split must have data."""
    for split in task.splits:
        items(_told(partial(task.test_set, split), f"test_set({split!r})", name), f"the data of split {split}")
    for stage in (None, *(s.name for s in task.stages)):
        what = f"the training data of {stage or 'train'}"
        items(_told(partial(task.train_set, stage), f"train_set({stage!r})", name), what)


def _told(function: Callable[[], T], call: str, name: str) -> T:
    """Return what a task gives; what it raises is told with its place, before anything is computed."""
    try:
        return function()
    except ModhookError:
        raise
    except Exception as error:
        raise DataError(f"{call} of task {name!r} fails: {told(error)}.") from error


def _try_once(study: Study, task: Task, plugins: Plugins, device: torch.device, trains: bool) -> None:
    """Ask a task for one loss and for the scores of one batch, and leave it as it was."""
    stage, size = (None, study.train.batch) if trains else (task.stages[0].name, study.mask_batch)
    name, split = study.task.name, task.splits[0]
    with seeded(0), _kept(task):
        model = build_model(study, task, plugins, 0).to(device).requires_grad_()  # a pretrained network may be frozen
        with _left_to_the_run():
            batch = next(Draw(task, stage, size, 0, device))
            if batch is None:
                raise _Unusable(f"prepare of task {name!r} must return a batch, but returned None.")
            loss = task.loss(model.train(trains), batch)
            _check_loss(loss, name)
        data = task.test_set(split)
        few = {n: t[: min(len(t), 8, study.train.eval_batch)] for n, t in data.items()}
        with _left_to_the_run():
            batch = next(in_order(task, few, 8, device))
            with torch.no_grad():
                found = task.score(model.eval(), handed(batch))
            _check_scores(found, task.metrics, name, items(few, "the batch"), _lengths(batch))


def _check_loss(loss: Any, name: str) -> None:
    what = f"the loss of task {name!r}"
    if not isinstance(loss, Tensor) or loss.dim():
        found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise _Unusable(
            f"{what} must be one number, a tensor of shape (), not {found}; return its mean over the items."
        )
    if not loss.requires_grad:
        raise _Unusable(
            f"{what} does not depend on the network's weights: it was detached, computed under no_grad, or does not call `net`."
        )


def _lengths(batch: Any) -> set[int]:
    """Return how many items a prepared batch may have: `prepare` may hold items twice."""
    tensors = batch.values() if isinstance(batch, Mapping) else ()
    return {len(t) for t in tensors if isinstance(t, Tensor) and t.dim()}


def _check_scores(found: Any, metrics: tuple[str, ...], name: str, count: int, lengths: set[int]) -> None:
    what = f"score of task {name!r}"
    if not isinstance(found, Mapping):
        raise _Unusable(f"{what} must return {{metric: (B,) tensor}}, not {type(found).__name__}.")
    if missing := [m for m in metrics if m not in found]:
        near = near_miss(missing[0], found)
        raise _Unusable(
            f"{what} does not return the metric {missing[0]!r}{near}, which `metrics` names; it returns {listing(found)}."
        )
    for metric in metrics:
        if not isinstance(found[metric], Tensor) or found[metric].dim() != 1:
            shape = (
                f"shape {tuple(found[metric].shape)}"
                if isinstance(found[metric], Tensor)
                else type(found[metric]).__name__
            )
            raise _Unusable(
                f"{what} must return one number per item for {metric!r}, a tensor of shape (B,), not {shape}."
            )
        if count in lengths and len(found[metric]) not in lengths:  # else the batch is none that this module knows
            raise _Unusable(
                f"{what} must return one number per item for {metric!r}, but of {count} items it returned {len(found[metric])}."
            )


@contextlib.contextmanager
def _left_to_the_run() -> Iterator[None]:
    """What a task raises within it is said by the run; a user's mistake at once."""
    try:
        yield
    except UserError:
        raise
    except Exception:  # noqa: S110 - it comes again, with its place
        pass


class _Unusable(BaseException):
    """What a task returned; passes through the suppression of what it raises."""


@contextlib.contextmanager
def _kept(task: Task) -> Iterator[None]:
    """Within it a task may remember what it likes; afterwards it is as before. What cannot be used is a `PluginError`."""
    before = dict(task.state_dict())
    try:
        yield
    except _Unusable as error:
        raise PluginError(str(error)) from None
    finally:
        task.load_state_dict(before)
