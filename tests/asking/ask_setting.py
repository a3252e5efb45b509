"""A small network of two functions, and what asks for them."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]


def loss(net: Any, batch: Pair) -> Tensor:
    """Cross-entropy."""
    return nn.functional.cross_entropy(net(batch[0]), batch[1])


def score(net: Any, batch: Pair) -> Tensor:
    """Whether the largest output is the right class."""
    return (net(batch[0]).argmax(-1) == batch[1]).double()


def items(part: int, count: int, seed: int) -> Pair:
    """Return items of a function: the last input says which one; the classes are 0 and 1, or 2 and 3."""
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(10 * seed + part))
    x[:, 5] = 2.0 * part - 1
    return x, (x[:, part] > 0).long() + 2 * part


def batches(part: int, count: int = 96, seed: int = 0, size: int = 24) -> list[Pair]:
    """Return the items in batches."""
    x, y = items(part, count, seed)
    return [(x[i : i + size], y[i : i + size]) for i in range(0, count, size)]


@attrs.frozen
class Setting:
    """The network and the arguments of `ask`."""

    model: nn.Module
    functions: dict[str, Any]
    tests: dict[str, Any]

    def arguments(self, **others: Any) -> dict[str, Any]:
        """Return what `ask` takes by name, quick and silent."""
        usual = {"loss": loss, "score": score, "tests": self.tests, "seeds": 2, "steps": 6, "lr": 0.5, "threads": 1}
        usual |= {"sampler": "gumbel", "samples": 4}
        return {**usual, "progress": False, **others}


def trained() -> Setting:
    """Return a network that has learned both functions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for step in range(150):
            both = [items(part, 64, 100 + step) for part in (0, 1)]
            optimizer.zero_grad()
            loss(model, (torch.cat([x for x, _ in both]), torch.cat([y for _, y in both]))).backward()
            optimizer.step()
    functions = {"small": batches(0), "large": batches(1)}
    return Setting(model.eval(), functions, {"small": batches(0, 60, 1), "large": batches(1, 60, 1)})
