"""A task and a network that learn something in a second, to try controls on: a plain classification with stages that copy."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modhook import Model, Spec, Stage, Task
from modhook.plugin.manager import KINDS, Entry, Plugins, plugins

CLASSES = {"control": (0, 1, 2, 3), "low": (0, 1), "high": (1, 2, 3)}


@attrs.frozen
class QuadrantOptions:
    copies: bool = True
    edits: bool = False


class Quadrants(Task):
    """In which quadrant does a point lie? The function `low` knows two quadrants, `high` three."""

    Options = QuadrantOptions
    options: QuadrantOptions
    splits = ("all", "low", "high")
    label_name = "quadrant"

    @property
    def stages(self) -> tuple[Stage, ...]:
        copied = ("2.weight",) if self.options.copies else ()
        return (Stage("control", "all"), Stage("low", "two", copied=copied), Stage("high", "three"))

    def shape(self) -> dict[str, int]:
        return {"inputs": 2, "outputs": 4}

    def _data(self, seed: int, size: int, classes: tuple[int, ...]) -> dict[str, Tensor]:
        points = torch.randn(size, 2, generator=torch.Generator().manual_seed(seed))  # (N, 2)
        quadrant = (points[:, 0] > 0).to(torch.uint8) + 2 * (points[:, 1] > 0).to(torch.uint8)  # (N,)
        keep = torch.tensor([int(q) in classes for q in quadrant])
        return {"point": points[keep], "quadrant": quadrant[keep]}

    def train_set(self, stage: str | None) -> dict[str, Tensor]:
        return self._data(1, 600, CLASSES[stage or "control"])

    def test_set(self, split: str) -> dict[str, Tensor]:
        return self._data(2, 200, CLASSES["control" if split == "all" else split])

    def loss(self, net: Any, batch: Any) -> Tensor:
        return F.cross_entropy(net(batch["point"]), batch["quadrant"].long())

    def score(self, net: Any, batch: Any) -> dict[str, Tensor]:
        return {"accuracy": (net(batch["point"]).argmax(-1) == batch["quadrant"]).double()}


class Edited(Quadrants):
    """Before each stage the first column of the first layer is doubled."""

    def edit_network(self, model: nn.Module, stage: str) -> None:
        model.get_parameter("0.weight")[:, 0] *= 2


class Small(Model):
    """Two layers."""

    def build(self, shape: Any) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 4))


def installed() -> Plugins:
    """Return everything that is installed, and these."""
    every = [entry for kind in KINDS for entry in plugins().entries(kind)]
    mine = {("tasks", "quadrants"): "Quadrants", ("tasks", "edited"): "Edited", ("models", "small"): "Small"}
    for (kind, name), cls in mine.items():
        every.append(Entry(kind, Spec(name, "a toy", f"{__name__}:{cls}"), "toybox"))
    return Plugins(every, [])


STUDY: dict[str, Any] = {
    "study": {"name": "quadrants"},
    "task": {"name": "quadrants"},
    "model": {"name": "small"},
    "train": {"steps": 120, "batch": 64, "lr": 0.02, "validate_every": 0},
    "masks": {"steps": 25, "samples": 2, "lr": 0.5, "beta": 0.02, "batch": 32, "logits_dtype": "float32"},
    "run": {"threads": 1},
}
