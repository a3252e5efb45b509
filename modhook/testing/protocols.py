"""Checks of protocols: their stages, and that a run which was stopped between any two of them ends as one that was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modhook.cube import masks_from, open_cube
from modhook.errors import listing
from modhook.plugin.interfaces import Protocol, Task, Tracker
from modhook.plugin.manager import Plugins
from modhook.run import Outcome, run_study
from modhook.run.build import build_task
from modhook.study import Study
from modhook.testing.common import CHECKED, Checked, Network, Options, folder, of_kind, require, same
from modhook.testing.toy import Layers, Signs

_MEMORY = "a stage uses what an earlier one left in memory, or numbers that no seed decides"


def check_protocol(
    protocol: type[Protocol] | str,
    options: Options | None = None,
    task: type[Task] | str = Signs,
    model: Network = Layers,
    task_options: Options | None = None,
    model_options: Options | None = None,
) -> None:
    """Run a tiny study of a protocol in a temporary folder, and the same study stopped after every stage.

    The stages are those that it declares, in that order; every one leaves finite scores, and masks where it says so; none is computed
    again; and the run that was stopped has, number by number, the scores and masks of the one that was not.

    Args:
        protocol: the class, or its name in a study. options: what a study would give under `[protocol]`.
        task: a task that it can serve; by default one of modhook's own, with two functions. model: a network for the task.
        task_options: those of the task. model_options: those of the network.

    Raises:
        AssertionError: a promise that is not kept. UserError: options that do not fit.
    """
    cls = of_kind("protocols", protocol)
    checked = Checked(
        task,
        model,
        task_options,
        model_options,
        others={"protocols": [cls]},
        tables={
            "study": {"protocol": CHECKED},
            "protocol": dict(options or {}),
            **({} if cls.trains else {"train": {"steps": 0}}),
        },
    )
    installed = checked.plugins()
    study = checked.study(installed)
    made, order = build_task(study, installed), cls(study.protocol)
    stages, masked = _named(order.stages(made), "stages"), _named(order.masked_stages(made), "masked_stages")
    require(bool(stages), "stages names none; a run has at least one.")
    ordered = masked == [stage for stage in stages if stage in masked]
    require(ordered, f"masked_stages must be some of stages, in their order: {listing(masked)} of {listing(stages)}.")
    with folder() as place:
        heard = _Heard()
        whole = _run(study, place / "whole", installed, heard)
        require(
            heard.finished == stages,
            f"stages declares {listing(stages)}, but a run computed {listing(heard.finished)}, in this order.",
        )
        _check_numbers(whole.path, stages, masked)
        stopped, left = whole, list(stages)
        while left:
            heard = _Heard(stop=True)
            stopped = _run(study, place / "stopped", installed, heard)
            again = [stage for stage in heard.started if stage not in left]
            require(not again, f"{listing(again)} is computed again in a run that was stopped after it; ask context.done(stage) first.")
            left = [stage for stage in left if stage not in heard.finished]
        _run(study, place / "stopped", installed, _Heard())  # what comes after the last stage
        _check_same(whole.path, stopped.path, masked)


# -- inside


class _Stopped(BaseException):
    """Ctrl-C, as a tracker of these checks makes it."""


class _Heard(Tracker):
    """Notes stages, and stops the process after the first that is finished where that is asked for."""

    def __init__(self, stop: bool = False) -> None:
        self.started: list[str] = []
        self.finished: list[str] = []
        self._stop = stop

    def stage_started(self, stage: str, steps: int) -> None:
        """Note it."""
        self.started.append(stage)

    def stage_finished(self, stage: str, scores: Mapping[str, float]) -> None:
        """Note it, and stop."""
        self.finished.append(stage)
        if self._stop:
            raise _Stopped


def _run(study: Study, place: Path, installed: Plugins, tracker: _Heard) -> Outcome:
    try:
        outcome = run_study(study, place, installed, tracker)
    except _Stopped:
        from modhook.run.drive import cube_path

        return Outcome(cube_path(study, place), len(tracker.finished), 0, ())
    require(not outcome.failed, "; ".join(outcome.failed))
    return outcome


def _named(names: Any, what: str) -> list[str]:
    good = isinstance(names, Sequence) and not isinstance(names, str) and all(isinstance(n, str) and n for n in names)
    require(good, f"{what} must return a tuple of names, not {names!r}.")
    require(len(set(names)) == len(names), f"{what} names a stage twice: {listing(names)}.")
    return list(names)


def _check_numbers(path: Any, stages: Sequence[str], masked: Sequence[str]) -> None:
    with open_cube(path) as cube:
        for metric, scores in cube["scores"].data_vars.items():
            for stage in stages:
                finite = bool(np.isfinite(scores.sel(stage=stage).values).all())
                require(finite, f"the stage {stage!r} leaves no {metric}; give record.scores = context.score(...).")
    for stage in masked:
        masks = masks_from(path, seed=1, stage=stage)
        require(bool(masks), f"the stage {stage!r} leaves no mask; give record.masks and record.logits.")


def _check_same(whole: Any, stopped: Any, masked: Sequence[str]) -> None:
    with open_cube(whole) as one, open_cube(stopped) as other:
        equal = one["scores"].to_dataset().equals(other["scores"].to_dataset())
    require(equal, f"a run that is stopped after every stage has other scores than one that is not: {_MEMORY}.")
    for stage in masked:
        equal = same(masks_from(whole, seed=1, stage=stage), masks_from(stopped, seed=1, stage=stage))
        require(equal, f"a run that is stopped after every stage has another mask of {stage!r}: {_MEMORY}.")
