"""The task and the network of a question: a user's batches, losses, scores and model behind the interfaces of plugins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from modhook.asking.batches import Store, gather
from modhook.asking.nonsense import relabelled
from modhook.network.twin import twin
from modhook.noise.seeding import derive
from modhook.plugin.hookspecs import Spec
from modhook.plugin.interfaces import Batch, Model, Net, NoOptions, Stage, Task
from modhook.plugin.offered import Offer, Offered, UnitGroups, Weights
from modhook.study import FOR_CONTROL

NAME = "ask"
"""What the task and the network of a question are called in its study."""
GIVEN = "weights given to ask,"
"""What `masks.off` begins with where they lie in memory; their hash follows."""
METRIC = "accuracy"
"""What a score is called that is one tensor: figures look for it."""


@attrs.frozen
class AskOptions:
    """What was asked, as the cube records it. Batches and networks are told by hashes, functions by their source."""

    functions: tuple[str, ...]
    network: str
    batches: Mapping[str, str]
    tests: Mapping[str, str]
    loss: str | Mapping[str, str]
    score: str | Mapping[str, str]
    nonsense: str = attrs.field(default="", metadata={FOR_CONTROL: "nonsense"})


@attrs.frozen(eq=False)
class Question:
    """A question in memory.

    Attributes:
        model: the network; it is copied, never changed.
        batches: {function: its training items}, for the first seed. makers: those functions whose batches are made from a seed.
        tests: {function: its held-out items}.
        loss, score: {function: callable}.
        metrics: what the scores return.
        nonsense: the user's own way to spoil a batch, `nonsense(batch, seed)`. classes: {function: its classes}, for permuting them.
        most, samples: how batches are gathered (see `gather`).
        off: what a weight becomes that is not kept: a kind, or {masked parameter: its tensor}; off_name: what the study calls it.
        units: those that were given, and are of no kind that a study can name.
    """

    model: nn.Module
    batches: Mapping[str, Store]
    makers: Mapping[str, Callable[..., Any]]
    tests: Mapping[str, Store]
    loss: Mapping[str, Callable[..., Any]]
    score: Mapping[str, Callable[..., Any]]
    metrics: tuple[str, ...]
    nonsense: Callable[..., Any] | None
    classes: Mapping[str, Tensor]
    most: int
    samples: int
    off: str | Mapping[str, Tensor] = "zero"
    off_name: str = "zero"
    units: UnitGroups | None = None

    def offers(self) -> tuple[Offered, ...]:
        """Return task, network and weights as a study finds them."""
        where = "modhook.asking:ask"
        return (
            *(() if self.units is None else (self.units,)),
            *(() if isinstance(self.off, str) else (Weights(self.off_name, self.off),)),
            Offer("tasks", Spec(NAME, "batches, loss and score that modhook.ask was given", where), _Task(self)),
            Offer("models", Spec(NAME, "the network that modhook.ask was given", where), _Network(self)),
        )


@attrs.frozen(eq=False)
class _Task:
    """Stands for the task's class."""

    question: Question
    Options: type = AskOptions

    def __call__(self, options: AskOptions) -> AskTask:
        return AskTask(options, self.question)


@attrs.frozen(eq=False)
class _Network:
    """Stands for the network's class."""

    question: Question
    Options: type = NoOptions

    def __call__(self, options: Any) -> AskNetwork:
        return AskNetwork(options, self.question)


class AskNetwork(Model):
    """A copy of the user's network, with its weights."""

    def __init__(self, options: Any, question: Question) -> None:
        super().__init__(options)
        self.question = question

    def build(self, shape: Mapping[str, Any]) -> nn.Module:
        """Return the copy."""
        with torch.device("cpu"):  # its weights come with it, also where only shapes are asked for
            return twin(self.question.model)


class AskTask(Task):
    """One stage and one split per function; no base training, so that the protocol is `given`.

    A data set holds the numbers of items, and the hash of all of them, by which the cube knows its data; `prepare` fetches the
    items themselves. What loss and score get is `{"function": name, "batch": the user's batch}`.
    """

    Options = AskOptions
    options: AskOptions
    control = False
    independent = True

    def __init__(self, options: AskOptions, question: Question, batches: Mapping[str, Store] | None = None) -> None:
        super().__init__(options)
        self.question = question
        self.metrics = question.metrics  # type: ignore[misc]  # a task has those of its own score
        self._batches = question.batches if batches is None else batches
        names = list(options.functions)
        self._sets = [(n, self._batches[n]) for n in names] + [(n, question.tests[n]) for n in names]

    @property
    def splits(self) -> tuple[str, ...]:
        """The functions' names: their held-out items."""
        return tuple(self.options.functions)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One per function."""
        return tuple(Stage(name, f"the weights that {name!r} needs") for name in self.options.functions)

    def shape(self) -> Mapping[str, Any]:
        """Return which network it is."""
        return {"network": self.options.network}

    def for_seed(self, seed: int) -> Task:
        """Return the task with the batches that the user's callables make from this seed."""
        question = self.question
        if not question.makers:
            return self
        made = {
            name: gather(f"the batches of {name!r} for seed {seed}", make, seed, question.most, question.samples)
            for name, make in question.makers.items()
        }
        return AskTask(self.options, question, {**self._batches, **made})

    def train_set(self, stage: str | None) -> Batch:
        """Return a function's items, or those of all."""
        names = list(self.options.functions)
        if stage is not None:
            return self._numbers(names.index(stage))
        every = [self._numbers(i) for i in range(len(names))]
        return {key: torch.cat([numbers[key] for numbers in every]) for key in every[0]}

    def test_set(self, split: str) -> Batch:
        """Return a function's held-out items."""
        names = list(self.options.functions)
        return self._numbers(len(names) + names.index(split))

    def nonsense(self, data: Batch, stage: str, seed: int) -> Batch:
        """Return the items with a mark: `prepare` permutes their classes, or gives them to the user's `nonsense`."""
        return {**data, "nonsense": torch.full_like(data["item"], derive(seed, stage, "nonsense"))}

    def prepare(self, batch: Batch, rng: np.random.Generator, training: bool) -> Batch:
        """Return the user's batch of these items, all of one function."""
        which = batch["set"]
        name, store = self._sets[int(which[0])]
        made = store.take(batch["item"][which == which[0]])
        if "nonsense" in batch:
            seed, own = int(batch["nonsense"][0]), self.question.nonsense
            if own is not None:
                made = own(made, seed)
            elif name in self.question.classes:  # of another function without any, which is measured beside, the answers stay
                made = relabelled(made, self.question.classes[name], seed)
        return {"function": name, "batch": made}

    @property
    def loss(self) -> AskedLoss:
        """The function's own loss."""
        return AskedLoss(self.question.loss)

    def score(self, net: Net, batch: Batch) -> dict[str, Tensor]:
        """Return the function's own scores."""
        return scores_of(self.question.score[batch["function"]](net, batch["batch"]))

    def _numbers(self, number: int) -> Batch:
        store = self._sets[number][1]
        digest = torch.frombuffer(bytearray.fromhex(store.fingerprint), dtype=torch.uint8)  # (16,)
        count = len(store)
        return {
            "set": torch.full((count,), number, device="cpu"),
            "item": torch.arange(count, device="cpu"),
            "fingerprint": digest.expand(count, -1),
        }


@attrs.frozen
class AskedLoss:
    """The loss of each function, by the function that a batch is of."""

    each: Mapping[str, Callable[..., Any]]

    def __call__(self, net: Net, batch: Batch) -> Tensor:
        """Return the function's own loss."""
        found: Tensor = self.each[batch["function"]](net, batch["batch"])
        return found

    def whole(self, net: Net, batch: Batch, samples: int) -> Batch:
        """Return the batch with what the function's loss wants each group to know of the whole."""
        prepare = getattr(self.each[batch["function"]], "whole", None)
        return batch if prepare is None else {**batch, "batch": prepare(net, batch["batch"], samples)}


def scores_of(found: Any) -> dict[str, Tensor]:
    """Return what a user's score returned by metric."""
    return {METRIC: found} if isinstance(found, Tensor) else {str(name): value for name, value in found.items()}
