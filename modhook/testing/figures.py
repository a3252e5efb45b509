"""Checks of figures: drawn without a warning from tiny cubes, finished, half finished and empty."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from modhook.cube import create, open_cube
from modhook.errors import ModhookError
from modhook.plugin.culprit import told
from modhook.plugin.interfaces import Analysis, Figure, Task, Tracker
from modhook.report.drawing import draw, missing_variables
from modhook.run import run_study
from modhook.run.build import build_task
from modhook.run.layout import plan, prepare
from modhook.testing.common import CHECKED, Checked, Network, Options, folder, name_of, of_kind, require
from modhook.testing.toy import Layers, Signs


def check_figure(
    figure: type[Figure] | str,
    task: type[Task] | str = Signs,
    model: Network = Layers,
    analyses: Sequence[type[Analysis] | str] | Mapping[type[Analysis] | str, Options] = (),
    task_options: Options | None = None,
    model_options: Options | None = None,
) -> None:
    """Draw a figure from a tiny study of two seeds: with no run finished, with one of them, with both, and from two cubes at once.

    Nothing warns; each time a `matplotlib.figure.Figure` is returned, the same for the same cube, and pyplot knows nothing of it.

    Args:
        figure: the class, or its name in a study.
        task: a task that has what it shows; by default one of modhook's own, with two functions. model: a network for the task.
        analyses: those whose variables it requires: classes, names of installed ones (`"sharing"`), or {one: options}.
        task_options: those of the task. model_options: those of the network.

    Raises:
        AssertionError: a promise that is not kept, or a variable that no analysis writes. UserError: options that do not fit.
    """
    cls = of_kind("figures", figure)
    given = dict(analyses) if isinstance(analyses, Mapping) else dict.fromkeys(analyses)
    own = [one for one in given if not _is_installed(one)]
    names = {one: one if _is_installed(one) else name_of(own.index(one)) for one in given}
    checked = Checked(
        task,
        model,
        task_options,
        model_options,
        task_name=cls.tasks[0] if cls.tasks else CHECKED,
        others={"analyses": own},
        tables={"study": {"seeds": 2}, "analyses": {names[one]: dict(options or {}) for one, options in given.items()}},
    )
    installed = checked.plugins()
    study = checked.study(installed)
    with folder() as place:
        empty = create(place / "empty.zarr", plan(prepare(study, installed, [build_task(study, installed)]), (1, 2), {}))
        _try(cls, empty.path, place, "a cube in which no run has finished yet")
        for only, what in (({"seed": "1"}, "a cube in which one of two seeds is finished"), ({}, "a finished cube")):
            outcome = run_study(study, place, installed, Tracker(), only=only)
            require(not outcome.failed, "; ".join(outcome.failed))
            lacks = _try(cls, outcome.path, place, what)
        require(not lacks, f"{cls.__name__} cannot be drawn here: {lacks}.")
        with open_cube(outcome.path) as cube:
            drawn = [_draw(cls, [cube], place, what) for _ in range(2)]
            require(drawn[0] == drawn[1], f"two drawings of {what} differ; let the figure depend on the cube alone.")
            if not missing_variables(cls(), [cube, cube]):
                _draw(cls, [cube, cube], place, "two cubes")


# -- inside


def _is_installed(analysis: Any) -> bool:
    return isinstance(analysis, str) and ":" not in analysis


def _try(cls: type[Figure], path: Any, place: Path, what: str) -> str:
    """Draw it, unless it lacks something; return what."""
    with open_cube(path) as cube:
        if lacks := missing_variables(cls(), [cube]):
            return lacks.replace(str(path), "the cube")
        _draw(cls, [cube], place, what)
    return ""


def _draw(cls: type[Figure], cubes: Sequence[xr.DataTree], place: Path, what: str) -> bytes:
    """Draw it as a report does, and return the SVG."""
    before = _known_to_pyplot()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            files = draw(cls(), cubes, place, "checked", ("svg",))
    except Warning as warning:
        raise AssertionError(f"draw warns on {what}: {told(warning)}.") from warning
    except ModhookError as error:
        raise AssertionError(str(error)) from error
    except Exception as error:
        raise AssertionError(f"draw fails on {what}: {told(error)}.") from error
    require(_known_to_pyplot() == before, "draw leaves a figure in pyplot; make it by matplotlib.figure.Figure(...).")
    return files[0].read_bytes()


def _known_to_pyplot() -> list[int]:
    pyplot = sys.modules.get("matplotlib.pyplot")
    return list(pyplot.get_fignums()) if pyplot is not None else []
