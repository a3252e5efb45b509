"""Checks of analyses."""

from __future__ import annotations

from typing import Any

import numpy as np

from modhook.cube import open_cube
from modhook.errors import listing
from modhook.plugin.interfaces import Analysis, Task, Tracker
from modhook.run import run_study
from modhook.run.build import build_task
from modhook.testing.common import CHECKED, Checked, Network, Options, folder, require


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
    checked = Checked(
        task,
        model,
        task_options,
        model_options,
        others={"analyses": [analysis]},
        tables={"analyses": {CHECKED: dict(options or {})}},
    )
    installed = checked.plugins()
    study = checked.study(installed)
    with folder() as place:
        outcome = run_study(study, place, installed, Tracker())
        require(not outcome.failed, "; ".join(outcome.failed))
        made = build_task(study, installed)
        with open_cube(outcome.path) as cube:
            declared = installed.load("analyses", CHECKED)(study.analyses[CHECKED]).variables(made)
            found: dict[str, Any] = {v.name: cube[v.group][v.short].values for v in declared}
    said = any(values.dtype.kind != "f" or bool(np.isfinite(values).any()) for values in found.values())
    require(said, f"every variable holds nothing but NaN: {listing(found)}.")
