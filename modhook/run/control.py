"""The stages of a control: masks learned again by the study's own protocol, with everything as it was but one thing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import attrs
import numpy as np
from torch import Tensor

from modhook.errors import RunError
from modhook.masks import Masks
from modhook.masks.off import Off, off_weights
from modhook.noise.seeding import derive
from modhook.plugin.contract import CarriedGradients, StageRecord
from modhook.plugin.interfaces import Task
from modhook.plugin.manager import Plugins
from modhook.run.build import build_model
from modhook.run.changed import shuffle, untrain
from modhook.run.compared import compare
from modhook.run.context import Context
from modhook.run.control_plan import GROUP
from modhook.run.data import Draw, items
from modhook.run.layout import Prepared
from modhook.run.nonsense import nonsense_of
from modhook.run.units import masked_of
from modhook.steps.ranks import known_to_all
from modhook.study import Study, control_label
from modhook.study.sections import Cut


@attrs.define(slots=False)
class ControlContext(Context):
    """A run as its protocol sees it while it computes one kind of control: the network is frozen already, and may be another one.

    `kind` is that of `ControlsSection.kinds`; `wanted` are the stages that it is computed for, by their names in the task; `cut`
    is the study's `masks.cut`. Where that is measured by a score, the protocol sees the sampler's threshold instead: no control's own
    score says what its masks must reach, and they are cut here.
    """

    kind: str = attrs.field(kw_only=True)
    wanted: frozenset[str] = attrs.field(kw_only=True)
    cut: Any = attrs.field(kw_only=True)
    _found: dict[str, Any] = attrs.field(factory=dict, init=False)
    """What is written beside the record of the stage that is being computed: variable -> value."""
    _views: dict[str, Task] = attrs.field(factory=dict, init=False)
    _now: str = attrs.field(default="", init=False)
    """The stage whose control is being computed."""
    _true: Task = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._true = self.task

    @classmethod
    def of(cls, context: Context, kind: str, wanted: frozenset[str]) -> ControlContext:
        """Return one kind of control of a run."""
        study, cut = context.study, context.study.masks.cut
        if isinstance(cut, Cut) and cut.within is not None:
            study = attrs.evolve(study, masks=attrs.evolve(study.masks, cut="threshold"))
        values = {f.name: getattr(context, f.name) for f in attrs.fields(Context) if f.init and f.name != "study"}
        return cls(study=study, **values, kind=kind, wanted=wanted, cut=cut)

    # -- the stages have other names in the cube

    def done(self, stage: str) -> bool:
        """Whether the stage's control is in the cube; what is not asked for counts as done."""
        return stage not in self.wanted or super().done(self._label(stage))

    def logits(self, stage: str) -> dict[str, Tensor]:
        """Return the logits of a finished stage of this control."""
        return super().logits(self._label(stage))

    def masks(self, stage: str) -> Masks:
        """Return the masks of a finished stage of this control."""
        return super().masks(self._label(stage))

    def carried(self, stage: str) -> CarriedGradients | None:
        """Return what the control's stage before left; what base training left is gone by now."""
        return super().carried(self._label(stage)) if stage in self.wanted else None

    @contextlib.contextmanager
    def stage(self, name: str, steps: int, *, common: bool = False) -> Iterator[StageRecord]:
        """Compute the control of one stage, and compare it with the stage; it has nothing in `common` with other runs."""
        self.task, self._now = self._view(name), name
        try:
            with Context.stage(self, self._label(name), steps) as record:
                yield record
                record.keep_weights = False  # the cube holds the trained ones
                if not self._next(name) & self.wanted:
                    record.carried = None
                found = compare(self, name, record, self.cut)
                self._found = {f"{GROUP}/{variable}": value for variable, value in found.items()}
        finally:
            self.task, self._found = self._true, {}

    # -- the one thing that is another

    def batches(self, stage: str | None, size: int) -> Draw:
        """Return endless training batches of a stage."""
        task = self.task if stage is None else self._view(stage)
        return Draw(task, stage, size, self._mask_seed(), self.device)

    def load_weights(self, stage: str | None = None) -> None:
        """Put the trained weights into the network, and change them as this control wants."""
        super().load_weights(stage)
        if self.kind == "shuffled":
            shuffle(self.model, self.seed)
        elif self.kind == "untrained":
            _untrain(self.model, self.study, self._true, self.plugins, self.seed)

    def off(self) -> Off:
        """Return what masked weights become: also under another mask seed what the run's seed shuffles or draws."""
        found = super().off()
        if isinstance(found, str) and self.kind.startswith("mask seed"):
            names = masked_of(self.study, self.model, self.plugins).parameters
            self._off = (off_weights(self.model, names, found, self.seed),)
        return self._off[0] if self._off else found

    # -- inside

    def _label(self, stage: str) -> str:
        return control_label(stage, self.kind)

    def _task_stage(self, stage: str) -> str:
        return stage.removesuffix(control_label("", self.kind))

    def _saved(self) -> bool | float:
        """Return what the stage's own network saves: a control's pull is as strong, whatever its network saves."""
        if "history/gain" not in self.cube.variables:
            return True
        found = float(self.cube.read("history/gain", self.labels, stage=self._now))
        return found if np.isfinite(found) and found > 0 else True

    def _mask_seed(self) -> int:
        return derive(self.seed, self.kind) if self.kind.startswith("mask seed") else self.seed

    def _path(self, name: str) -> str:
        return f"{GROUP}/{name}"

    def _control(self) -> Masks | None:
        return self.masks("control") if "control" in self.wanted and self.done("control") else None

    def _view(self, stage: str) -> Task:
        if self.kind != "nonsense":
            return self._true
        if stage not in self._views:
            self._views = {stage: nonsense_of(self._true, stage, self.seed)}  # one at a time: it holds its data
        return self._views[stage]

    def _next(self, stage: str) -> set[str]:
        names = [s.name for s in self._true.stages]
        return set(names[names.index(stage) + 1 :][:1]) if stage in names else set()

    def _write(self, stage: str, record: StageRecord) -> None:
        super()._write(stage, record)
        for name, value in self._found.items():
            self.cube.write(name, np.asarray(value, dtype=np.float64), self.labels, stage=stage)


def learn_controls(prepared: Prepared, context: Context) -> None:
    """Compute every stage of the controls that the run does not have. One that fails is marked so, and the others go on."""
    controls = prepared.controls(context.task)
    for kind in dict.fromkeys(control.kind for control in controls):
        mine = [control for control in controls if control.kind == kind and context.done(control.of)]
        if all(context.done(control.label) for control in mine):
            continue
        try:
            prepared.protocol.run(ControlContext.of(context, kind, frozenset(control.of for control in mine)))
        except RunError as error:
            if not known_to_all(error):
                raise


def try_controls(prepared: Prepared, plugins: Plugins) -> None:
    """Raise `UserError` for a control that can be seen to fail before anything is computed."""
    tried: set[tuple[int, str]] = set()
    for point, task in zip(prepared.points, prepared.tasks, strict=True):
        if (key := (id(task), repr(point.study.model))) in tried:
            continue
        tried.add(key)
        kinds = {control.kind: control for control in prepared.controls(task)}
        if "untrained" in kinds and not prepared.protocol.trains:  # else the frozen network differs from a new one
            _untrain(build_model(point.study, task, plugins, 0), point.study, task, plugins, 0)
        for stage in (control.of for control in prepared.controls(task) if control.kind == "nonsense"):
            view = nonsense_of(task, stage, 0)
            items(view.train_set(stage), f"the nonsense training data of {stage}")
            for split in task.splits:
                items(view.test_set(split), f"the nonsense data of split {split}")


def _untrain(model: Any, study: Study, task: Task, plugins: Plugins, seed: int) -> None:
    untrain(model, partial(build_model, study, task, plugins, derive(seed, "untrained")), seed)
