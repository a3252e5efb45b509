"""Two networks hold the same beside their parameters, or it is said where they do not."""

from __future__ import annotations

import collections
import copy
import functools
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from modhook.network.alike import unlike


class Holding(nn.Module):
    """Holds values of every class, made anew for each."""

    def __init__(self, number: float = 1.0) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2), nn.Dropout(0.1))
        self.inner[0].register_forward_hook(lambda module, x, y: y)
        self.register_buffer("steps", torch.tensor([number, float("nan")]))
        self.number, self.nothing, self.text, self.nan = number, None, "a", float("nan")
        self.table, self.array = torch.tensor([number]), np.array([number])
        self.lists, self.dicts = [1, (2, [number])], {"a": {number}, "b": collections.deque([number])}
        self.counts, self.drawn = collections.Counter([number]), random.Random(int(number))
        self.generator, self.rng = torch.Generator().manual_seed(int(number)), np.random.default_rng(int(number))
        self.options, self.part = SimpleNamespace(by=number), functools.partial(torch.add, other=number)
        self.function, self.method, self.sentinel = lambda x: x * number, self.own, object()
        self.weights = [self.inner[0].weight]
        self.options.owner = self

    def own(self, x: Tensor) -> Tensor:
        """Return it."""
        return x


def test_networks_made_alike_are_alike() -> None:
    """Other weights are no difference, nor are objects that are made anew, nor copies."""
    one = Holding()
    assert unlike(one, Holding()) == ""
    assert unlike(one, copy.deepcopy(one)) == unlike(copy.deepcopy(one), one) == ""


NAMES = ["steps", "number", "table", "array", "lists", "dicts", "counts", "drawn", "generator", "rng", "options", "part", "function"]


@pytest.mark.parametrize("name", NAMES)
def test_a_difference_is_found_wherever_it_stands(name: str) -> None:
    """Each kind of value on its own, by its path."""
    one, other = nn.Sequential(Holding()), nn.Sequential(Holding())
    setattr(other[0], name, getattr(Holding(2.0), name))
    assert unlike(one, other) == f"0.{name}"


DIFFERENT: dict[str, Any] = {
    "inner.2.p": lambda model: setattr(model.inner[2], "p", 0.2),
    "inner.training": lambda model: model.inner.eval(),
    "inner.0._forward_hooks": lambda model: model.inner[0].register_forward_hook(print),
    "late": lambda model: setattr(model, "late", 1),
    "weights": lambda model: model.weights.append(torch.ones(1)),
    "method": lambda model: setattr(model, "method", model.extra_repr),
}


@pytest.mark.parametrize(("place", "change"), DIFFERENT.items(), ids=list(DIFFERENT))
def test_changes_of_modules_are_found(place: str, change: Any) -> None:
    """Numbers of torch's modules, modes, hooks, attributes that one of them lacks, tensors in lists."""
    other = Holding()
    change(other)
    assert unlike(Holding(), other) == unlike(other, Holding()) == place
