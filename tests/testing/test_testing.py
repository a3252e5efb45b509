"""`modhook.testing`: sound plugins pass, and each broken promise is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modhook import Analysis, Model, Stage, Task, Variable
from modhook.errors import StudyError
from modhook.testing import check_analysis, check_model, check_task
from modhook_plugins.analyses.sharing import Sharing
from modhook_plugins.networks.seq2seq_lstm import Seq2SeqLSTM
from modhook_tasks.scan.task import Scan


@attrs.frozen
class Width:
    width: int = 4


class Sound(Task):
    """The sign of the first coordinate."""

    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)

    @property
    def splits(self) -> tuple[str, ...]:
        return ("all",)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (Stage("control", "everything"), Stage("far", "far points"))

    def shape(self) -> dict[str, Any]:
        return {"inputs": 3, "outputs": 2}

    def train_set(self, stage: str | None) -> dict[str, Tensor]:
        x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
        return {"x": x, "y": (x[:, 0] > 0).long()}

    def test_set(self, split: str) -> dict[str, Tensor]:
        return self.train_set(None)

    def loss(self, net: Any, batch: dict[str, Any]) -> Tensor:
        return F.cross_entropy(net(batch["x"]), batch["y"])

    def score(self, net: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"accuracy": (net(batch["x"]).argmax(-1) == batch["y"]).double()}


class Plain(Model):
    """One hidden layer."""

    Options = Width

    def build(self, shape: Mapping[str, Any]) -> nn.Module:
        return nn.Sequential(
            nn.Linear(shape["inputs"], self.options.width), nn.ReLU(), nn.Linear(self.options.width, 2)
        )


class Restless(Sound):
    def train_set(self, stage: str | None) -> dict[str, Tensor]:
        return {"x": torch.randn(20, 3), "y": torch.zeros(20).long()}


class Uneven(Sound):
    def train_set(self, stage: str | None) -> dict[str, Tensor]:
        return {"x": torch.ones(20, 3), "y": torch.zeros(19 if stage == "far" else 20).long()}


class NoTensors(Sound):
    def test_set(self, split: str) -> dict[str, Tensor]:
        return {"x": [1.0, 2.0]}  # type: ignore[dict-item]


class VectorLoss(Sound):
    def loss(self, net: Any, batch: dict[str, Any]) -> Tensor:
        return F.cross_entropy(net(batch["x"]), batch["y"], reduction="none")


class Detached(Sound):
    def loss(self, net: Any, batch: dict[str, Any]) -> Tensor:
        return super().loss(net, batch) * 0


class MeanScore(Sound):
    def score(self, net: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"accuracy": super().score(net, batch)["accuracy"].mean()}


class NoScore(Sound):
    metrics = ("accuracy", "margin")


class Neighbours(Sound):
    def score(self, net: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"accuracy": batch["x"][:, 0] - batch["x"][:, 0].mean()}


class NoBatch(Sound):
    def prepare(self, batch: dict[str, Any], rng: Any, training: bool) -> dict[str, Any]:
        return None  # type: ignore[return-value]


class NoNumber(Sound):
    def score(self, net: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"accuracy": super().score(net, batch)["accuracy"] * torch.nan}


TASKS = {
    NoBatch: "prepare must return a batch, but returned None",
    NoNumber: r"score\['accuracy'\] is not finite for a new network, in split 'all'",
    Restless: r"train_set\(None\) differs between two calls",
    Uneven: r"train_set\('far'\) must be tensors with the same number of items",
    NoTensors: r"test_set\('all'\)\['x'\] must be a tensor, not list",
    VectorLoss: r"loss must return one number, a tensor of shape \(\)",
    Detached: "no weight changes the loss of stage 'control'",
    MeanScore: r"score\['accuracy'\] must have shape \(B,\) = \(8,\), not \(\)",
    NoScore: "it lacks margin",
    Neighbours: "of an item depends on the items beside it in split 'all'",
}


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.__name__)
def test_a_task_that_breaks_a_promise(task: type[Task]) -> None:
    """Each mistake of a task is found, and the message names it."""
    with pytest.raises(AssertionError, match=TASKS[task]):
        check_task(task, Plain)


class Fixed(Model):
    def build(self, shape: Mapping[str, Any]) -> nn.Module:
        net = nn.Linear(3, 2)
        nn.init.ones_(net.weight)
        nn.init.zeros_(net.bias)
        return net


class OwnRandom(Model):
    def build(self, shape: Mapping[str, Any]) -> nn.Module:
        net = nn.Linear(3, 2)
        with torch.no_grad():
            net.weight.copy_(torch.from_numpy(np.random.default_rng().random((2, 3))))
        return net


def test_a_network_that_breaks_a_promise() -> None:
    """Weights that ignore torch's random state, or come from another source, are found."""
    with pytest.raises(AssertionError, match="the random state does not matter"):
        check_model(Fixed, Sound)
    with pytest.raises(AssertionError, match="the same random state gives other weights"):
        check_model(OwnRandom, Sound)


class Empty(Analysis):
    def variables(self, task: Task) -> tuple[Variable, ...]:
        return (Variable("mine/share", ("stage",), "float64", "nothing"),)

    def compute(self, run: Any) -> dict[str, Any]:
        return {"mine/share": np.full(len(run.stages), np.nan)}


class WrongShape(Empty):
    def compute(self, run: Any) -> dict[str, Any]:
        return {"mine/share": np.zeros(7)}


class Right(Empty):
    def compute(self, run: Any) -> dict[str, Any]:
        return {"mine/share": np.array([run.masks[s].density for s in run.stages])}


def test_analyses() -> None:
    """One that computes what it declares passes; NaN alone and a wrong shape are found."""
    check_analysis(Right, Sound, Plain)
    with pytest.raises(AssertionError, match="every variable holds nothing but NaN: mine/share"):
        check_analysis(Empty, Sound, Plain)
    with pytest.raises(AssertionError, match="mine/share"):
        check_analysis(WrongShape, Sound, Plain)


def test_sound_plugins_pass() -> None:
    """modhook's own and simple ones pass, with options as a study gives them; wrong options are the study's mistakes."""
    check_task(Sound, Plain, model_options={"width": 5})
    check_model(Plain, Sound)
    check_task(Scan, Seq2SeqLSTM, {"splits": ["turn_left"]}, {"hidden": 6})
    check_analysis(Sharing, Sound, Plain)
    with pytest.raises(StudyError, match=r"model\.widht: unknown key"):
        check_model(Plain, Sound, {"widht": 3})
