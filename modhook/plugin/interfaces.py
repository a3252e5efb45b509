"""What a plugin of each kind must be: one abstract class per kind.

This module imports neither torch nor xarray at run time, so that a plugin's options can be looked at cheaply.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from modhook.plugin.nonsense import permuted
from modhook.plugin.tracker import Tracker as Tracker
from modhook.plugin.variables import Variable

if TYPE_CHECKING:
    import numpy as np
    import torch
    import xarray as xr
    from matplotlib.figure import Figure as MatplotlibFigure
    from torch import Tensor, nn

    from modhook.plugin.contract import FinishedRun, RunContext


Batch = dict[str, Any]
"""A batch, or a whole data set: tensors by name, items first; what is no tensor belongs to the batch as a whole."""
Net = Callable[..., Any]
"""Stands for the network."""


@attrs.frozen
class NoOptions:
    """The options class of a plugin that takes none."""


@attrs.frozen
class Stage:
    """One mask stage of a task: the sub-function whose weights are looked for.

    `copied` are patterns of parameters whose mask is copied from the task's first stage, the control, and not learned.
    `draws` multiplies the masks drawn per step: with 2, a batch that holds every item twice runs its first half under K
    masks and its second under K others.
    """

    name: str
    doc: str
    copied: tuple[str, ...] = ()
    draws: int = 1


class Task(ABC):
    """A task: data with named splits, stages, loss and scores.

    Data are dictionaries of tensors with one leading item dimension, on the CPU; batches are the same, indexed.
    `Options` is a frozen attrs class; the study file's `[task]` table, `name` aside, is structured into it.
    """

    Options: ClassVar[type] = NoOptions
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    """Names of what `score` returns; each becomes a variable of `scores`."""
    numbers: ClassVar[tuple[str, ...]] = ()
    """Those of `metrics` that are no shares of 1, such as a difference: tables show them as numbers, and not as per cent."""
    control: bool = True
    """Whether the first stage is the control. Without one, `copied` copies from the first stage."""
    independent: ClassVar[bool] = False
    """Whether no stage needs another one, so that where one fails the others are computed all the same."""
    label_name: ClassVar[str | None] = None
    """Name of the tensor of every data set that holds the items' classes, whole numbers, where there is one: see `nonsense`."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @property
    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Names of the test sets that are measured after every stage, in order."""

    @property
    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """The mask stages in order. The first is the control, on the whole task, named `control`; a task without one says so."""

    @abstractmethod
    def shape(self) -> Mapping[str, Any]:
        """Return what a network plugin must know to build a network for this task, for example `{"inputs": 42, "outputs": 20}`."""

    def for_seed(self, seed: int) -> Task:
        """Return the task as the run of this seed sees it: itself, unless something of it is drawn anew for every run.

        Stages, splits, shape, base training data and test sets must be the same for every seed.
        """
        return self

    def load(self) -> None:  # noqa: B027 - optional for a plugin
        """Read, download or generate the data; called once before any training. Raises `DataError`."""

    @abstractmethod
    def train_set(self, stage: str | None) -> Batch:
        """Return the data to train on: of one stage, or of base training (`None`). Tensors (N, ...)."""

    @abstractmethod
    def test_set(self, split: str) -> Batch:
        """Return the data of one split. Tensors (N, ...)."""

    def validation_set(self, split: str, stage: str | None) -> Batch | None:
        """Return what is measured on the way in a stage, or in base training (`None`): by default the whole split.

        A stage that learns on changed inputs may give the same change here; None if the split says nothing about it.
        """
        return self.test_set(split)

    def prepare(self, batch: Batch, rng: np.random.Generator, training: bool) -> Batch:
        """Finish a batch: trim padding, flip coins, augment. `rng` is the run's own and is saved with it."""
        return batch

    @abstractmethod
    def loss(self, net: Net, batch: Batch) -> Tensor:
        """Return the loss of one batch, a scalar. `net(*inputs)` stands for the network."""

    @abstractmethod
    def score(self, net: Net, batch: Batch) -> dict[str, Tensor]:
        """Return `{metric: (B,) tensor}`, one number per item, for every name in `metrics`."""

    def table(self, metric: str) -> str:
        """Return how tables show a metric, or what an analysis computes of it: as "percent" or as "number"."""
        return "number" if metric in self.numbers else "percent"

    def nonsense(self, data: Batch, stage: str, seed: int) -> Batch:
        """Return data of this task with answers that mean nothing, for the control `nonsense` of a stage.

        `data` is what `train_set`, `test_set` or `validation_set` returned and must not be changed. The same stage and seed must
        change training and test data alike, so that there is something to be learned. By default the classes in `label_name` that
        the stage's training data have change places, in one cycle; all others stay.

        Raises `UserError` for a task whose labels cannot be permuted.
        """
        return permuted(self, data, stage, seed)

    def state_dict(self) -> Mapping[str, Any]:
        """Return what `prepare` and `loss` remember from batch to batch (nothing, as a rule), for checkpoints."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - optional for a plugin
        """Continue from `state_dict()`'s result."""

    def edit_network(self, model: nn.Module, stage: str) -> None:  # noqa: B027 - optional for a plugin
        """Change the trained network in place before this mask stage (rarely needed)."""

    def decode(self, batch: Batch) -> list[str]:
        """Return each item as text, for people."""
        raise NotImplementedError(f"{type(self).__name__} does not decode its items")


class Model(ABC):
    """A network plugin: builds a stock `nn.Module` for a task's shape."""

    Options: ClassVar[type] = NoOptions

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def build(self, shape: Mapping[str, Any]) -> nn.Module:
        """Return a new network; the global random state is seeded by the caller. Raises `UserError` for a shape it cannot serve."""


class Sampler(ABC):
    """A mask parametrisation: how K masks are made from logits, how the gradient flows back, what sparsity costs.

    A larger logit means a weight that is needed more: the logits are a ranking, and masks are cuts through it.
    """

    Options: ClassVar[type] = NoOptions
    init: ClassVar[float] = 2.0
    """Where logits start, unless the user says so."""
    holds_density: ClassVar[bool] = False
    """Whether masks have the density that `aim` tells, whatever the logits; else the logits are shifted until they have it."""

    def __init__(self, options: Any = None) -> None:
        self.options = self.Options() if options is None else options

    @abstractmethod
    def apply(self, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Return `weight` under one sampled mask per generator: (K, *weight.shape), differentiable in `logits` (*weight.shape)."""

    def skip(self, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator]) -> None:
        """Draw what `apply` would draw, and make nothing of it: large weights are masked later, from the generators' states before.

        By default `apply` itself is called and its result thrown away; overwrite it where drawing alone is cheaper.
        """
        import torch

        with torch.no_grad():
            self.apply(weight, logits, generators)

    def deterministic(self, logits: Tensor) -> Tensor:
        """Return the binary mask used for evaluation, a bool tensor: `logits >= 0`."""
        return logits >= 0

    def keep_probability(self, logits: Tensor) -> Tensor:
        """Return how probable it is that each weight is kept (in part, where masks are not binary), 0 to 1: sigmoid(l)."""
        return logits.sigmoid()

    def penalty(self, logits: Tensor) -> Tensor:
        """Return what each weight costs, times beta / B in the loss: by default the logit itself (the paper's sum of logits)."""
        return logits

    def penalty_slope(self, logits: Tensor) -> Tensor | float:
        """Return the derivative of `penalty`, per logit or one number for all; taken from `penalty` unless given here."""
        if type(self).penalty is Sampler.penalty:
            return 1.0
        import torch

        with torch.enable_grad():
            there = logits.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.penalty(there).sum(), there)
        return slope

    def advance(self, step: int, steps: int) -> None:  # noqa: B027 - optional for a plugin
        """Told before optimiser step `step` (from 0) of `steps`, and at the end with `step == steps`: for annealing.

        What it sets may depend on the two numbers alone: then a stopped stage continues exactly.
        """

    def start(self, weight: Tensor, generator: torch.Generator) -> Tensor:
        """Return the logits of a tensor before the first step, (*weight.shape), float32 or float64: `init` everywhere.

        `generator` (on the CPU) is the stage's own, for samplers that start at random.
        """
        import torch

        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        return torch.full(weight.shape, self.init, dtype=dtype, device=weight.device)

    def aim(self, density: float) -> None:  # noqa: B027 - optional for a plugin
        """Told the share of weights to keep, above 0 to 1, by a sampler's user who gives `density`; for those that need to know.

        With a density for each of several patterns, each group of parameters has a copy (`copy.copy`) that is told the group's own.
        """


class Ranking(Sampler):
    """A ranking of the weights that needs no learning: scores instead of logits. What every learned mask must beat."""

    pooled: ClassVar[str] = "sum"
    """What a unit's score is of its weights' scores, where units are ranked: their "sum" or their "mean"."""
    off: Mapping[str, Tensor] | None = None
    """Set before `scores` is called: what weights become that are not kept, {name: (*weight.shape)}; None: zero. It is w - off that
    a mask takes or leaves."""

    def apply(self, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Refuse: nothing is sampled."""
        raise NotImplementedError(f"{type(self).__name__} is a ranking without training; it draws no masks")

    @abstractmethod
    def scores(
        self, model: nn.Module, names: Sequence[str], batches: Iterator[Any], loss: Callable[[Any, Any], Tensor], steps: int
    ) -> dict[str, Tensor]:
        """Return {name: score of every weight, (*weight.shape)}; a larger score is a weight that is needed more.

        Args:
            model: the network; it is a copy, whose weights and gradients may be changed.
            names: the parameters to rank.
            batches: batches, one per step; not more than `steps` are drawn.
            loss: `loss(model, batch)`, a scalar.
            steps: the most batches to use.
        """


class Protocol(ABC):
    """The order of work of one run (one seed at one sweep point)."""

    Options: ClassVar[type] = NoOptions
    trains: ClassVar[bool] = True
    """Whether there is base training: then a study needs `train.steps` or `train.weights`, or else must not give them."""

    weights_per_stage: ClassVar[bool] = False
    """Whether stages change the weights; then those of every stage are kept, not only the trained ones."""

    cuts: ClassVar[bool] = False
    """Whether the masks are cut as `masks.cut` says; a study that gives it is refused otherwise."""

    def __init__(self, options: Any = None) -> None:
        self.options = self.Options() if options is None else options

    @abstractmethod
    def stages(self, task: Task) -> tuple[str, ...]:
        """Return the labels of the cube's `stage` coordinate of `scores`, in the order in which they are computed."""

    @abstractmethod
    def masked_stages(self, task: Task) -> tuple[str, ...]:
        """Return the labels of the stages that leave a mask."""

    @abstractmethod
    def run(self, context: RunContext) -> None:
        """Compute every stage of the run that `context` does not have yet."""


class Analysis(ABC):
    """Something computed from the finished masks of one run; it needs no training."""

    Options: ClassVar[type] = NoOptions

    def __init__(self, options: Any = None) -> None:
        self.options = self.Options() if options is None else options

    @abstractmethod
    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare every variable that `compute` returns."""

    def labels(self, task: Task, stages: Sequence[str]) -> dict[str, list[Any]]:
        """Return labels for dimensions that only this analysis has; `stage`, `split`, `parameter` are known. `stages` have masks."""
        return {}

    def network_labels(self, model: nn.Module, task: Task, stages: Sequence[str]) -> Mapping[str, Sequence[Any]]:
        """Return labels for dimensions that depend on the network, such as its layers: {dimension: labels}.

        `model` is built as for a run, before any is computed: its modules, names and shapes are there, its values need not be (it may be
        on the meta device). A sweep over networks is asked for each of them, and the cube has the labels of all, in order: `compute` then
        fills those of its own network, and `run.coordinates(variable)` says which there are. They must be the same in every call.
        """
        return {}

    @abstractmethod
    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Return `{variable name: array}` for this run; own dims in full."""


class Figure(ABC):
    """A figure drawn from one or several cubes."""

    requires: ClassVar[tuple[str, ...]] = ()
    """Variables ("group/name") that every cube must have."""
    tasks: ClassVar[tuple[str, ...] | None] = None
    """Tasks it applies to; None for any."""
    rank: ClassVar[int] = 50
    """Its place in a report and in `modhook plot`: smaller numbers come first, then names. 0 to 9 answers what the study asks, 10
    to 49 says more about it, from 60 on it is about any masks, from 90 on about how the computation went."""

    def lacks(self, cubes: Sequence[xr.DataTree]) -> str:
        """Return what else cubes that fulfil `requires` and `tasks` lack for it ("it needs ..."), or an empty string."""
        return ""

    @abstractmethod
    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Return the figure. Missing runs are left out, and said so."""
