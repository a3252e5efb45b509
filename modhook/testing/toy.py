"""A task and a network of a few numbers, for checks of plugins that go with any task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modhook.plugin.interfaces import Batch, Model, Net, Stage, Task

_FUNCTIONS = ("first", "second")


class Signs(Task):
    """Four numbers and a question: is the first positive, or the second?"""

    splits = ("both", *_FUNCTIONS)
    stages = (
        Stage("control", "both questions"),
        Stage("first", "the sign of the first"),
        Stage("second", "the sign of the second"),
    )

    def shape(self) -> Mapping[str, Any]:
        """Four numbers and a question, two classes."""
        return {"inputs": 6, "classes": 2}

    def train_set(self, stage: str | None) -> Batch:
        """Return 64 items, or those of one question: `inputs` (N, 6), `answer` (N,)."""
        numbers = torch.randn(64, 4, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
        asked = torch.arange(64, device="cpu") % 2
        inputs = torch.cat([numbers, F.one_hot(asked, 2)], 1)
        answer = (numbers.gather(1, asked.unsqueeze(1)).squeeze(1) > 0).long()
        keep = asked == _FUNCTIONS.index(stage) if stage in _FUNCTIONS else torch.ones_like(asked, dtype=torch.bool)
        return {"inputs": inputs[keep], "answer": answer[keep]}

    def test_set(self, split: str) -> Batch:
        """Return the same items."""
        return self.train_set(split)

    def loss(self, net: Net, batch: Batch) -> Tensor:
        """Return the cross-entropy."""
        return F.cross_entropy(net(batch["inputs"]), batch["answer"])

    def score(self, net: Net, batch: Batch) -> dict[str, Tensor]:
        """Return whether each item is answered rightly."""
        return {"accuracy": (net(batch["inputs"]).argmax(-1) == batch["answer"]).double()}


class Layers(Model):
    """One hidden layer of eight units."""

    def build(self, shape: Mapping[str, Any]) -> nn.Module:
        """Return a new network."""
        return nn.Sequential(nn.Linear(shape["inputs"], 8), nn.ReLU(), nn.Linear(8, shape["classes"]))
