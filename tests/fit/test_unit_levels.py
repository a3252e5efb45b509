"""Gates of several levels on one weight: the gradient reaches each as it does through a plain product."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook.fit.gates import Gates
from modhook.unit.group import Group, Part

K = 3
OWNERS = {
    "layer": torch.zeros(1, 1),
    "rows": torch.arange(4)[:, None],
    "columns": torch.arange(5)[None],
    "some rows": torch.tensor([0, -1, 1, 0])[:, None],
    "weights": torch.arange(20).view(4, 5) % 7,
}


@pytest.mark.parametrize("levels", [*itertools.permutations(OWNERS, 2), ("rows", "layer", "columns")])
@pytest.mark.parametrize("masked", [False, True])
def test_gates_of_several_levels(levels: Sequence[str], masked: bool) -> None:
    """A weight under gates of two levels or three, alone or with weights that are masked, too, is a product, and so is its gradient."""
    torch.manual_seed(0)
    groups = {}
    for name in levels:
        owner = OWNERS[name].long()
        count = int(owner.max()) + 1
        groups[name] = Group(name, "unit", "", tuple(map(str, range(count))), (Part("w", owner, 1, True),))
    one = torch.randn(4, 5, dtype=torch.float64)
    weight = (torch.randn(K, 4, 5, dtype=torch.float64) if masked else one).requires_grad_(masked)
    given = {n: torch.rand(K, len(g), dtype=torch.float64, requires_grad=True) for n, g in groups.items()}
    inputs = [*given.values(), *([weight] if masked else [])]
    pull = torch.randn(K, 4, 5, dtype=torch.float64)

    def looked_up(name: str) -> Tensor:
        values = torch.cat([given[name], torch.ones(K, 1, dtype=torch.float64)], 1)
        return torch.stack([row[groups[name].parts[0].owner].expand(4, 5) for row in values])

    plain = weight * torch.stack([looked_up(n) for n in levels]).prod(0)
    expected = torch.autograd.grad((plain * pull).sum(), inputs)
    found = Gates(list(groups.values()), {"w": one}, everything=False).under("w", weight, given, K)
    torch.testing.assert_close(found, plain)
    for a, b in zip(torch.autograd.grad((found * pull).sum(), inputs), expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kinds", [["neuron", "layer"], ["layer", "neuron", "weight"]])
def test_neurons_and_layers_at_once(kinds: list[str]) -> None:
    """Neurons and the layers that they are in are learned together, whatever the layers' sizes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 1))
    batch = (torch.randn(8, 4), torch.randn(8, 1))
    fits = [
        modhook.fit_masks(
            model, [batch], lambda net, b: F.mse_loss(net(b[0]), b[1]), units=kinds, steps=3, executor=executor
        )
        for executor in ("auto", "loop")
    ]
    for name, logits in fits[0].logits.items():
        assert len(logits.unique()) > 1 or logits.numel() == 1
        torch.testing.assert_close(logits, fits[1].logits[name])
