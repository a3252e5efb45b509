"""A task whose answers mean nothing in one stage: for the control `nonsense`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from modhook.plugin.interfaces import Batch, Task


def nonsense_of(task: Task, stage: str, seed: int) -> Task:
    """Return the task with every data set changed as `task.nonsense` wants it for this stage; each is made once.

    It is another object of a class derived from the task's, so that what a task overrides is still seen. The data come from the
    task as it was: what its methods ask of each other is not changed twice.
    """
    made: dict[tuple[Any, ...], Batch | None] = {}

    def changed(name: str) -> Callable[..., Batch | None]:
        def method(_: Task, *which: str | None) -> Batch | None:
            if (name, *which) not in made:
                data = getattr(task, name)(*which)
                made[name, *which] = None if data is None else task.nonsense(data, stage, seed)
            return made[name, *which]

        return method

    view = copy.copy(task)
    methods = {name: changed(name) for name in ("train_set", "test_set", "validation_set")}
    derived = type(
        type(task).__name__, (type(task),), {"__slots__": (), "__module__": type(task).__module__, **methods}
    )
    object.__setattr__(view, "__class__", derived)  # also where the task is frozen
    return view
