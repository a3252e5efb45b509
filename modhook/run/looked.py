"""What `modhook check` can see of a study without its data, beyond its file."""

from __future__ import annotations

import attrs
import torch

from modhook.errors import UserError
from modhook.plugin.culprit import told
from modhook.plugin.folder import names_relative_to
from modhook.plugin.interfaces import Task
from modhook.plugin.manager import Plugins
from modhook.run.build import model_shapes
from modhook.run.layout import plan, prepare
from modhook.run.setting import load_tasks
from modhook.run.units import masked_of
from modhook.study import Study, points


@attrs.frozen
class Looked:
    """Attributes: mistakes, one sentence each; why it was not looked at, or an empty text."""

    mistakes: tuple[str, ...] = ()
    unseen: str = ""


def look(study: Study, plugins: Plugins) -> Looked:
    """Look at what a study chooses of its network, at the cube that it needs and at the name of its device, as far as no data are read."""
    plugins = plugins if study.path is None else plugins.beside(study.path.parent)
    try:
        torch.device(study.run.device)
        mistakes = []
    except RuntimeError:
        mistakes = [f"run.device: {study.run.device!r} is no device, such as cpu, cuda or cuda:1"]
    masks = _look_at_masks(study, plugins)
    mistakes += [f"masks: {text}" for text in masks.mistakes]
    if not mistakes and (planned := _look_at_plan(study, plugins)):
        mistakes.append(planned)
    return Looked(tuple(mistakes), masks.unseen)


def _look_at_plan(study: Study, plugins: Plugins) -> str:
    """Lay out the cube, whose variables stages and analyses declare; an empty text where that goes well, or would need data."""
    with names_relative_to(plugins.folder):
        try:
            kinds = [plugins.load("tasks", p.study.task.name) for p in points(study)]
            if any(kind.load is not Task.load for kind in kinds):
                return ""
            for point, kind in zip(points(study), kinds, strict=True):
                model_shapes(point.study, kind(point.study.task.options), plugins)
        except Exception:  # a network that cannot be built here, or not without data: `run` says why
            return ""
        try:
            plan(prepare(study, plugins, load_tasks(study, plugins)), range(1, study.study.seeds + 1), {})
        except UserError as error:
            return str(error).rstrip(".")
        except Exception:  # what needs data is looked at with them
            return ""
    return ""


def _look_at_masks(study: Study, plugins: Plugins) -> Looked:
    """Build the network of every point of a study that chooses what is masked, where it can be built without data, and look."""
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
