"""Labels of the dimensions of analyses that depend on the network, such as its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from modhook.errors import ModhookError, PluginError
from modhook.plugin.culprit import told
from modhook.plugin.interfaces import Analysis, Task
from modhook.plugin.manager import Plugins
from modhook.run.build import model_shapes
from modhook.study import Point


def network_labels(
    points: Sequence[Point],
    tasks: Sequence[Task],
    plugins: Plugins,
    analyses: Mapping[str, Analysis],
    stages: Sequence[str],
) -> dict[str, dict[str, list[Any]]]:
    """Return {analysis: {dimension: labels}}, those of the networks of all points, each once, in order.

    Networks are built only where an analysis asks for them. Raises `PluginError` for an analysis that fails.
    """
    asking = {n: a for n, a in analyses.items() if type(a).network_labels is not Analysis.network_labels}
    if not asking:
        return {}
    found: dict[str, dict[str, list[Any]]] = {name: {} for name in asking}
    known: list[Any] = []
    for point, task in zip(points, tasks, strict=True):
        if any(one == point.study.model and other is task for one, other in known):
            continue
        known.append((point.study.model, task))
        model = model_shapes(point.study, task, plugins)
        for name, analysis in asking.items():
            for dim, labels in _asked(name, analysis, model, task, stages).items():
                there = found[name].setdefault(dim, [])
                there += [label for label in labels if label not in there]
    return found


def _asked(
    name: str, analysis: Analysis, model: nn.Module, task: Task, stages: Sequence[str]
) -> Mapping[str, Sequence[Any]]:
    what = f"network_labels of the analysis {name!r}"
    try:
        found = analysis.network_labels(model, task, stages)
    except ModhookError:
        raise
    except Exception as error:
        raise PluginError(f"{what} fails: {told(error)}.") from error
    if not isinstance(found, Mapping) or any(isinstance(v, str) or not isinstance(v, Sequence) for v in found.values()):
        raise PluginError(f"{what} must return {{dimension: list of labels}}.")
    if twice := next((dim for dim, labels in found.items() if len(set(labels)) < len(labels)), None):
        raise PluginError(f"{what} gives {twice!r} one label twice; every label must be there once.")
    return found
