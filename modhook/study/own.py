"""Which code a study names itself, such as `my_task.py:MyTask`."""

from __future__ import annotations

from collections.abc import Iterator

from modhook.plugin.manager import Plugins
from modhook.study.grid import points
from modhook.study.study import Study
from modhook.study.units import kinds


def own_code(study: Study, plugins: Plugins) -> list[str]:
    """Return every name of code in a study that no installed plugin brings, trackers aside, on which no number depends."""

    def names() -> Iterator[tuple[str, str]]:
        for point in points(study):
            yield "tasks", point.study.task.name
            yield "models", point.study.model.name
            yield "samplers", point.study.masks.sampler
            yield from (("units", name) for name in kinds(point.study.masks))
        yield "protocols", study.study.protocol
        yield from (("analyses", name) for name in study.analyses)

    return list(dict.fromkeys(name for kind, name in names() if plugins.is_code(kind, name)))
