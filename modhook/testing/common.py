"""What the checks share: plugins under the name `checked`, tiny studies of them, items, and the sentence of a broken promise."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from modhook.errors import TrustWarning
from modhook.fit import Fit, fit_masks
from modhook.plugin.code import Place, find
from modhook.plugin.declared import mistake
from modhook.plugin.hookspecs import Spec
from modhook.plugin.interfaces import Model, Task
from modhook.plugin.manager import KINDS, Entry, Plugins, plugins
from modhook.plugin.offered import Offer
from modhook.run.build import build_model, build_task
from modhook.run.data import items
from modhook.study import Study, restore

Options: TypeAlias = Mapping[str, Any]
Network: TypeAlias = type[Model] | Callable[..., nn.Module] | str
"""A network plugin, or what a study can name instead: a class or a function that returns a network, called with its options."""
ITEMS = 8
CHECKED = "checked"


def require(holds: bool, text: str) -> None:
    """Raise `AssertionError` with a text unless something holds."""
    if not holds:
        raise AssertionError(text)


def found(given: Any) -> Any:
    """Return a class, also where its name in a study is given."""
    return find(given, Place(Path(), "the current folder")).thing if isinstance(given, str) else given


def of_kind(kind: str, given: Any) -> Any:
    """Return a plugin's class, which must be one of its kind that can be made."""
    cls = found(given)
    said = mistake(kind, cls, KINDS[kind])
    require(not said, f"{getattr(cls, '__name__', cls)} {said}.")
    return cls


@attrs.frozen
class Checked:
    """A task, a network and what else is checked with them, as if a package brought them, and the options of each."""

    task: type[Task] | str
    model: Network
    task_options: Options | None = None
    model_options: Options | None = None
    task_name: str = CHECKED
    others: Mapping[str, Sequence[Any]] = attrs.field(factory=dict)
    """{kind: classes}; the first of a kind is called `checked`, and the next ones `checked_1`, `checked_2`, ..."""
    tables: Mapping[str, Any] = attrs.field(factory=dict)
    """Tables of the study beside those of the task and of the network."""

    def plugins(self) -> Plugins:
        """Return what is installed, with these classes beside it; one that is installed under the same name gives way."""
        network = found(self.model)
        if not _is_plugin(network):
            network = _called(network, self.model_options or {})
        given = [("tasks", self.task_name, of_kind("tasks", self.task)), ("models", CHECKED, of_kind("models", network))]
        for kind, classes in self.others.items():
            given += [(kind, name_of(n), of_kind(kind, cls)) for n, cls in enumerate(classes)]
        names = {(kind, name) for kind, name, _ in given}
        every: list[Entry | Offer] = [
            e for kind in KINDS for e in plugins().entries(kind) if (kind, e.spec.name) not in names
        ]
        for kind, name, cls in given:
            spec = Spec(name, cls.__name__, f"{cls.__module__}:{cls.__qualname__}")
            every.append(Offer(kind, spec, cls, cls.__module__.partition(".")[0]))
        return Plugins(every, [])

    def study(self, installed: Plugins) -> Study:
        """Return a tiny study of them; options are checked as a study's are. Raises `StudyError`."""
        own = self.model_options if _is_plugin(found(self.model)) else None
        table = {
            "study": {"name": CHECKED},
            "task": {**(self.task_options or {}), "name": self.task_name},
            "model": {**(own or {}), "name": CHECKED},
            "train": {"steps": 2, "batch": ITEMS, "validate_every": 0},
            "masks": {"steps": 2, "samples": 2},
        }
        for name, values in self.tables.items():
            table[name] = {**table.get(name, {}), **values}
        return restore({name: values for name, values in table.items() if values or name == "analyses"}, plugins=installed)

    def made(self) -> tuple[Task, nn.Module]:
        """Return the task with its data, and a new network."""
        installed = self.plugins()
        study = self.study(installed)
        made = build_task(study, installed)
        return made, build_model(study, made, installed, 1)


def name_of(number: int) -> str:
    """Return what the class of this number among those of its kind is called in a study."""
    return f"{CHECKED}_{number}" if number else CHECKED


def prepared(task: Task, data: Mapping[str, Tensor], count: int, training: bool) -> dict[str, Any]:
    """Return `count` items, prepared; small data sets are gone through again."""
    index = torch.arange(count, device="cpu") % items(data, "the data")
    made = task.prepare({name: tensor[index] for name, tensor in data.items()}, np.random.default_rng(0), training)
    require(made is not None, "prepare must return a batch, but returned None.")
    return made


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return whether two mappings hold the same names and the same numbers."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def fitted(net: nn.Module, batch: Any, task: Task, **options: Any) -> Fit:
    """Return the fit of one step, of which nobody expects masks to trust."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)
        return fit_masks(net, [batch], task.loss, **{"samples": 2, "steps": 1, "progress": False, **options})


@contextmanager
def folder() -> Iterator[Path]:
    """Yield a folder that is there within the block."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _is_plugin(model: Any) -> bool:
    return isinstance(model, type) and issubclass(model, Model)


def _called(factory: Any, options: Options) -> type[Model]:
    """Return what makes a network as a plugin."""
    require(callable(factory), f"{factory!r} is no modhook.Model, and cannot be called to make a network.")

    class Called(Model):
        def build(self, shape: Mapping[str, Any]) -> nn.Module:
            made: nn.Module = factory(**options)
            return made

    return Called
