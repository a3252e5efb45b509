"""What the runs of a study are computed with: tasks with their data, the data's fingerprint, the device."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from modhook.errors import UserError
from modhook.plugin.interfaces import Task
from modhook.plugin.manager import Plugins
from modhook.run.build import build_task
from modhook.run.data import data_fingerprint
from modhook.study import Study, points


def load_tasks(study: Study, plugins: Plugins) -> list[Task]:
    """Return one loaded task per sweep point; equal options share one task and its data. Raises `UserError`, `DataError`."""
    known: dict[str, Task] = {}
    found = []
    for point in points(study):
        key = repr(point.study.task)
        if key not in known:
            known[key] = build_task(point.study, plugins)
        found.append(known[key])
    first, order = found[0], plugins.load("protocols", study.study.protocol)()
    for task in found[1:]:
        if task.splits != first.splits or order.stages(task) != order.stages(first):
            raise UserError("a sweep must not change the task's splits or stages; make it two studies.")
    return found


def fingerprints(tasks: Sequence[Task]) -> dict[str, dict[str, str]]:
    """Return the fingerprint of the data of each distinct task, by its number: a cube's attribute `data`."""
    distinct = list({id(t): t for t in tasks}.values())
    return {str(i): data_fingerprint(task) for i, task in enumerate(distinct)}


def check_threads(asked: int | None) -> str:
    """Return what to say where a study asks for more threads than this machine has cores, or an empty text.

    They are used all the same: the numbers of a run depend on how many threads computed it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if asked is None or asked <= cores:
        return ""
    return (
        f"run.threads = {asked}, but this machine has {cores} core{'s' if cores > 1 else ''}: that is slow. Results depend on the "
        f"number of threads, so it is used as it stands; --set run.threads={cores} is faster and differs in the last bits."
    )


def usable_device(name: str) -> torch.device:
    """Return a device on which tensors can be made. Raises `UserError`."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); give --device cpu or another one."
        ) from error
    return device
