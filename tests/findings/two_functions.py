"""Two functions of a small network, and an answer about them: what the tests of findings ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import modhook


def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy."""
    return nn.functional.cross_entropy(net(batch[0]), batch[1])


def score(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Whether the largest output is the right class."""
    return (net(batch[0]).argmax(-1) == batch[1]).double()


def batches(part: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Return one batch of a function: whether one of the four inputs is positive."""
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(part + 10 * seed))
    return [(x, (x[:, part] > 0).long())]


def network() -> nn.Sequential:
    """Return an untrained network of two classes, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 2))


def asked(model: nn.Module, out: Path, **options: Any) -> modhook.Answer:
    """Ask the functions `a` and `b` of a network, by the gumbel sampler at a large rate."""
    given, held = ({"a": batches(0, seed), "b": batches(1, seed)} for seed in (0, 1))
    return modhook.ask(
        model, given, loss=loss, score=score, tests=held, lr=0.3, out=out, sampler="gumbel", progress=False, threads=1, **options
    )
