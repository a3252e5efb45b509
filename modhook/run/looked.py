"""What `modhook check` can see of a study's masks without its data: whether what chooses them chooses something of the network."""

from __future__ import annotations

import attrs

from modhook.errors import UserError
from modhook.plugin.culprit import told
from modhook.plugin.folder import names_relative_to
from modhook.plugin.interfaces import Task
from modhook.plugin.manager import Plugins
from modhook.run.build import model_shapes
from modhook.run.units import masked_of
from modhook.study import Study, points


@attrs.frozen
class Looked:
    """Attributes: mistakes, one sentence each; why it was not looked at, or an empty text."""

    mistakes: tuple[str, ...] = ()
    unseen: str = ""


def look_at_masks(study: Study, plugins: Plugins) -> Looked:
    """Build the network of every point of a study that chooses what is masked, where it can be built without data, and look."""
    plugins = plugins if study.path is None else plugins.beside(study.path.parent)
    seen: set[str] = set()
    mistakes: list[str] = []
    for point in points(study) if study.masked_stages else ():
        one, masks = point.study, point.study.masks
        chosen = (masks.include, masks.exclude, masks.units)
        if chosen == (None, None, "weight") or (key := repr((one.task, one.model, chosen))) in seen:
            continue
        seen.add(key)
        try:
            kind = plugins.load("tasks", one.task.name)
            if kind.load is not Task.load:  # its shape may need the data, and to read or make these may take hours
                return Looked(tuple(mistakes), "the task reads its data before it says what network they need")
            with names_relative_to(plugins.folder):
                task = kind(one.task.options)
            model = model_shapes(one, task, plugins)
        except Exception as error:  # a task or network that needs its data first
            return Looked(tuple(mistakes), f"the network cannot be built without data ({told(error)})")
        try:
            masked_of(one, model, plugins)
        except UserError as error:
            mistakes.append(str(error).rstrip("."))
    return Looked(tuple(dict.fromkeys(mistakes)))
