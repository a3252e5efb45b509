"""What a protocol and an analysis may use of a run. `modhook.run` implements it; plugins and checks rely on nothing else.

Like the interfaces, this module imports neither torch nor xarray at run time.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    import torch
    import xarray as xr
    from torch import Tensor, nn

    from modhook.masks import Masks
    from modhook.plugin.interfaces import Sampler, Task, Tracker

Scores = dict[str, dict[str, float]]
"""{metric: {split: value}}"""


@attrs.frozen
class CarriedGradients:
    """What a stage leaves behind for the clipping of the next one (`clip_over="all"`).

    Attributes:
        weights: {name: tensor of the parameter's shape}: the stored gradients of the frozen weights.
        logits: norm of the stored gradients of all stages' logits up to here.
    """

    weights: Mapping[str, Tensor] = attrs.field(repr=lambda weights: f"<of {len(weights)} tensors>")
    logits: float = 0.0

    @classmethod
    def of(cls, model: nn.Module) -> CarriedGradients:
        """Return copies of the gradients that a network has now, as base training leaves them."""
        named = {n: p.grad for n, p in model.named_parameters()}
        return cls({n: g.detach().to_dense().clone() for n, g in named.items() if g is not None})


@attrs.define
class StageRecord:
    """What a stage leaves behind; a protocol fills it, and it is written when the stage ends."""

    stage: str
    scores: Scores = attrs.field(factory=dict)
    """{metric: {split: value}}"""
    masks: Masks | None = None
    logits: Mapping[str, Tensor] | None = attrs.field(default=None, repr=False)
    history: xr.Dataset | None = attrs.field(default=None, repr=False)
    validation: dict[int, Scores] = attrs.field(factory=dict)
    """{step: scores} measured on the way, on every split and on a part of the training set."""
    route: Mapping[str, Any] = attrs.field(factory=dict)
    keep_weights: bool = False
    carried: CarriedGradients | None = None
    """What a later stage's clipping starts with (`masks.clip_over = "all"`); kept until that stage is done."""

    def state_dict(self) -> dict[str, Any]:
        """Return what was measured on the way."""
        return {"validation": self.validation}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`'s result."""
        self.validation = dict(state["validation"])


class RunContext(ABC):
    """One run as a protocol sees it: one seed at one sweep point, and the place of its results.

    Attributes:
        study: the study at this run's sweep point, its tables as attributes (`context.study.masks.steps`).
        task: its task. model: the network on `device`; the protocol trains it. seed: the run's seed.
        labels: the run's coordinates in the cube: seed, then one per sweep key. tracker: told of every step.
    """

    study: Any
    task: Task
    model: nn.Module
    seed: int
    labels: dict[str, Any]
    tracker: Tracker
    device: torch.device

    @abstractmethod
    def done(self, stage: str) -> bool:
        """Whether this stage is in the cube already."""

    @abstractmethod
    def batches(self, stage: str | None, size: int) -> Iterable[Any]:
        """Return endless training batches of a stage, or of base training (None)."""

    @abstractmethod
    def score(
        self, masks: Masks | None = None, model: nn.Module | None = None, splits: Sequence[str] | None = None
    ) -> Scores:
        """Measure the network, under masks if given, on every split or on those given."""

    @abstractmethod
    def new_model(self, label: str) -> nn.Module:
        """Return another network like this one, newly initialised from (seed, label)."""

    @abstractmethod
    def sampler(self) -> Sampler:
        """Return the sampler of the mask stages, with its options."""

    @abstractmethod
    def validator(
        self,
        record: StageRecord,
        steps: int,
        every: int,
        masks: Callable[[], Masks] | None = None,
        model: nn.Module | None = None,
    ) -> Callable[[int], None]:
        """Return a callback that measures every `every` steps (0: never) into `record.validation`; the network's mode is kept."""

    @abstractmethod
    def mask_mode(self, model: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Return a context in which a network is in the mode of the mask stages, `[masks] mode`."""

    @abstractmethod
    def mask_options(self) -> dict[str, Any]:
        """Return what every mask stage of the study gives to `fit_masks`: `[masks]`, sampler, seed and tracker.

        A protocol adds what it decides itself: samples, init, label, and which masks are fixed or weights trained.
        """

    @abstractmethod
    def load_weights(self, stage: str | None = None) -> None:
        """Put the run's trained weights from the cube into the network; where stages change them, those after `stage`."""

    @abstractmethod
    def load_pretrained(self) -> None:
        """Put the study's own weights file into the network."""

    @abstractmethod
    def logits(self, stage: str) -> dict[str, Tensor]:
        """Return the logits of a finished stage, as stored: rounded, where the study stores float16."""

    @abstractmethod
    def masks(self, stage: str) -> Masks:
        """Return the masks of a finished stage, from the stored bits. Stored logits are rounded: their signs are no masks."""

    @abstractmethod
    def carried(self, stage: str) -> CarriedGradients | None:
        """Return what a finished stage left for the next one's clipping; None if it left nothing.

        Where it is lost, with the folder of the checkpoints, the tracker is told so.
        """

    @abstractmethod
    def stage(self, name: str, steps: int, *, common: bool = False) -> contextlib.AbstractContextManager[StageRecord]:
        """Compute one stage: what the record holds at the end of the block is written, then the stage is marked done.

        A stage that is stopped inside is continued from its checkpoint; any error but a user's mistake marks it failed.

        Args:
            name: of the stage. steps: how many it has, for progress.
            common: whether its step loops depend on no `[masks]` setting and no `[sampler]` option, as base training: runs of a sweep
                that differ in these alone then do them once, and each what comes before and after them.
        """


class FinishedRun(ABC):
    """One finished run as an analysis sees it.

    Attributes:
        study: the study at this run's sweep point. task: its task. stages: the stages that have masks, in order.
        model: the trained network in eval mode, on `device`; do not change it. Where stages change the weights: after the last.
        labels: the run's coordinates in the cube.
        off: what a weight becomes that masks do not keep, with the run's seed: `masks.applied_to(net, run.off, seed=run.labels["seed"])`.
    """

    study: Any
    task: Task
    model: nn.Module
    off: Any = None
    labels: dict[str, Any]
    stages: tuple[str, ...]
    device: torch.device

    @property
    @abstractmethod
    def masks(self) -> Mapping[str, Masks]:
        """Return the masks of every stage, in order."""

    @property
    def controls(self) -> Mapping[str, Mapping[str, Masks]]:
        """Return the masks of the controls that learn them, {kind: {stage: masks}}: "shuffled", "mask seed 2"; none without them."""
        return {}

    @abstractmethod
    def logits(self, stage: str) -> dict[str, Tensor]:
        """Return the logits of a stage, as stored."""

    @abstractmethod
    def network(self, stage: str) -> nn.Module:
        """Return the network that the stage's masks were learned on; do not change it."""

    @abstractmethod
    def coordinates(self, variable: str) -> dict[str, list[Any]]:
        """Return the labels of a declared variable's dimensions in the cube: {dimension: labels}."""

    @abstractmethod
    def batches(self, split: str) -> Iterator[Any]:
        """Return all items of a split once, prepared for measuring."""

    @abstractmethod
    def training_batches(self, stage: str, count: int) -> Iterator[Any]:
        """Return `count` items of what a stage's mask was learned on, or all if it has no more, prepared for measuring.

        Drawn without replacement, in the same way for every seed, and in the training data's order.
        """

    @abstractmethod
    def score(self, masks: Masks | None, stage: str = "control", splits: Sequence[str] | None = None) -> Scores:
        """Return {metric: {split: mean}} of a stage's network under masks; all splits, unless some are given."""
