"""What a score or a batch asks of the network while masks are on it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import modhook
from modhook import UserError

X = [torch.randn(32, 4, generator=torch.Generator().manual_seed(k)) for k in range(3)]


def network() -> tuple[nn.Module, modhook.Masks]:
    """A network of five classes, and masks that keep one weight of it."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 5))
    kept = torch.zeros(8, 4, dtype=torch.bool)
    kept[0, 0] = True
    return model, modhook.Masks({"0.weight": kept}, model)


def right(net: Any, batch: Any) -> Tensor:
    """1 for each item whose label the network gives."""
    return (net(batch[0]).argmax(-1) == batch[1]).float()


def by_hand(model: nn.Module, masks: modhook.Masks) -> float:
    """Agreement of a masked copy with the network."""
    masked = copy.deepcopy(model)
    with torch.no_grad():
        masked[0].weight.mul_(masks["0.weight"])  # type: ignore[index,operator]
        agree = torch.cat([masked(x).argmax(-1) == model(x).argmax(-1) for x in X])
    return float(agree.double().mean())


class Labelled:
    """Batches that the network labels when they are asked for, again and again."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __iter__(self) -> Iterator[Any]:
        for x in X:
            yield x, self.model(x).argmax(-1)


@pytest.mark.parametrize("given", [Labelled, lambda model: iter(Labelled(model)), lambda model: list(Labelled(model))])
def test_batches_that_the_network_labels_are_labelled_without_masks(given: Any) -> None:
    """A generator or data set whose targets come from the network is asked while it has its own weights."""
    model, masks = network()
    expected = by_hand(model, masks)
    assert 0 < expected < 1
    assert modhook.evaluate(model, masks, given(model), right) == pytest.approx(expected)


class Agreement:
    """A score that keeps the network."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, net: Any, x: Tensor) -> Tensor:
        return agreement(net, x, self.model)


def agreement(net: Any, x: Tensor, model: nn.Module) -> Tensor:
    """1 for each item of which two networks say the same."""
    return (net(x).argmax(-1) == model(x).argmax(-1)).float()


@pytest.mark.parametrize(
    "score",
    [
        lambda model: lambda net, x: agreement(net, x, model),
        lambda model: functools.partial(agreement, model=model),
        Agreement,
        lambda model: lambda net, x: (net(x).argmax(-1) == model[2](model[1](model[0](x))).argmax(-1)).float(),
    ],
    ids=["closure", "partial", "object", "parts"],
)
def test_a_score_that_calls_the_network_by_a_variable_is_refused(score: Any) -> None:
    """It is the masked network there, which agrees with itself under any masks; a copy, and `modhook.unmasked`, are right."""
    model, masks = network()
    with pytest.raises(UserError, match=r"the score calls the model.* instead of its first argument.*modhook.unmasked"):
        modhook.evaluate(model, masks, X, score(model))
    expected = pytest.approx(by_hand(model, masks))
    assert modhook.evaluate(model, masks, X, score(copy.deepcopy(model))) == expected

    def alone(net: Any, x: Tensor) -> Tensor:
        with modhook.unmasked(net):
            labels = net(x).argmax(-1)
        return (net(x).argmax(-1) == labels).float()

    assert modhook.evaluate(model, masks, X, alone) == expected
    assert modhook.evaluate(model, None, X, score(model)) == 1.0


def test_a_score_is_called_once_per_batch() -> None:
    """What a score counts or collects is what it saw, also where it uses things of the network that are no call of it."""
    model, masks = network()
    seen: list[int] = []

    def score(net: Any, x: Tensor) -> Tensor:
        seen.append(len(x))
        return net(x)[:, 0]

    modhook.evaluate(model, masks, X, score)
    assert seen == [32, 32, 32]
