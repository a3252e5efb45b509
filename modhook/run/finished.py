"""A run as an analysis sees it: network with its weights, masks of every stage, and a way to measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from modhook.cube import Cube, read_logits, read_masks, read_weights
from modhook.errors import RunError, missing
from modhook.masks import Masks
from modhook.masks.off import Off
from modhook.network.owned import owned
from modhook.network.twin import twin as copied
from modhook.plugin.contract import FinishedRun, Scores
from modhook.plugin.interfaces import Batch, Task
from modhook.run.data import drawn_once, in_order
from modhook.run.measuring import score
from modhook.run.weight_files import read_off
from modhook.study import ControlStage, Study


@attrs.define(slots=False)
class Finished(FinishedRun):
    """One finished run.

    Attributes:
        study: the study at this run's sweep point. task: its task. stages: the stages that have masks, in order.
        model: the trained network in eval mode, on `device`; do not change it. Where stages change the weights: after the last.
    """

    study: Study
    task: Task
    model: nn.Module
    labels: dict[str, Any]
    cube: Cube
    layout: str
    stages: tuple[str, ...]
    device: torch.device
    control_stages: tuple[ControlStage, ...] = ()

    @cached_property
    def masks(self) -> dict[str, Masks]:
        """Return the masks of every stage, in order."""
        return {s: read_masks(self.cube, self.layout, self.labels, s) for s in self.stages}

    @cached_property
    def controls(self) -> dict[str, Mapping[str, Masks]]:
        """Return the masks of the controls that learn them: {kind: {stage: masks}}. One that failed is an error when it is read."""
        kinds = dict.fromkeys(one.kind for one in self.control_stages)
        return {k: _Learned(self, {s.of: s.label for s in self.control_stages if s.kind == k}) for k in kinds}

    def logits(self, stage: str) -> dict[str, Tensor]:
        """Return the logits of a stage, as stored."""
        return read_logits(self.cube, self.layout, self.labels, stage)

    def network(self, stage: str) -> nn.Module:
        """Return the network that the stage's masks were learned on; do not change it."""
        edited = type(self.task).edit_network is not Task.edit_network
        if not edited and not self._changing:
            return self.model
        twin = copied(self.model)
        if self._changing:
            twin.load_state_dict(read_weights(self.cube, self.layout, self.labels, stage))
        if edited:
            self.task.edit_network(twin, stage)
        return twin

    @cached_property
    def _changing(self) -> bool:
        """Whether stages changed the weights."""
        return "stage" in self.cube.labels(f"masks/{self.layout}/weights")

    @cached_property
    def off(self) -> Off:
        """Return what masked weights become, as `applied_to`, `materialize` and `evaluate` take it, with the run's seed."""
        return read_off(self.cube, self.study, self.model, self.labels["seed"], self.layout)

    def coordinates(self, variable: str) -> dict[str, list[Any]]:
        """Return the labels of a declared variable's dimensions in the cube: {dimension: labels}."""
        return {dim: list(labels) for dim, labels in self.cube.labels(variable).items()}

    def batches(self, split: str) -> Iterator[Batch]:
        """Return all items of a split once, prepared for measuring."""
        batches = in_order(self.task, self.task.test_set(split), self.study.train.eval_batch, self.device)
        return map(owned, batches)  # an analysis may give it to a network that writes into it

    def training_batches(self, stage: str, count: int) -> Iterator[Batch]:
        """Return `count` items of what a stage's mask was learned on, or all if it has no more, prepared for measuring."""
        data = drawn_once(self.task.train_set(stage), count, stage)
        return map(owned, in_order(self.task, data, self.study.train.eval_batch, self.device))

    def score(self, masks: Masks | None, stage: str = "control", splits: Sequence[str] | None = None) -> Scores:
        """Return {metric: {split: mean}} of a stage's network under masks; all splits, unless some are given."""
        size = self.study.train.eval_batch
        return score(self.task, self.network(stage), masks, size, self.device, splits, self.off, self.labels["seed"])


@attrs.frozen(eq=False)
class _Learned(Mapping[str, Masks]):
    """The masks of one kind of control, by the stage that it is the control of; each is read when it is asked for."""

    run: Finished
    labels: Mapping[str, str]
    """The control's stage in the cube."""

    def __getitem__(self, stage: str) -> Masks:
        if stage not in self.labels:
            raise missing("this control has no masks of stage", stage, self.labels)
        label, run = self.labels[stage], self.run
        if (state := run.cube.status(run.labels, label)) != "done":
            raise RunError(f"stage {label!r} is {state}, and without it this cannot be computed.")
        return read_masks(run.cube, run.layout, run.labels, label)

    def __iter__(self) -> Iterator[str]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)
