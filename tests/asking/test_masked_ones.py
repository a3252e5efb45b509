"""Losses and scores of a question use the network that they are given; tests are other items than those that masks are learned on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ask_setting import Pair, Setting, batches, items
from torch import Tensor, nn

import modhook
from modhook.asking.batches import gather
from modhook.asking.seen import seen
from modhook.errors import UserError
from modhook.network.called import refuse_another


def by_variable(used: nn.Module) -> dict[str, Callable[..., Any]]:
    """Return losses and scores that know the network by a variable."""

    def score_alone(net: Any, batch: Pair) -> Tensor:
        return (used(batch[0]).argmax(-1) == batch[1]).double()

    def loss_alone(net: Any, batch: Pair) -> Tensor:
        return nn.functional.cross_entropy(used(batch[0]), batch[1])

    def submodule(net: Any, batch: Pair) -> Tensor:
        return nn.functional.cross_entropy(net[2](used[0](batch[0]).relu()), batch[1])

    def weight(net: Any, batch: Pair) -> Tensor:
        return nn.functional.cross_entropy(net[0](batch[0]).relu() @ used[2].weight.T, batch[1])

    def teacher(net: Any, batch: Pair) -> Tensor:
        wanted = used(batch[0]).detach().softmax(-1)
        return nn.functional.cross_entropy(net(batch[0]), wanted)

    def agreement(net: Any, batch: Pair) -> Tensor:
        return (net(batch[0]).argmax(-1) == used(batch[0]).argmax(-1)).double()

    found = (score_alone, loss_alone, submodule, weight, teacher, agreement)
    return {function.__name__: function for function in found}


@pytest.mark.parametrize(
    ("which", "what", "text"),
    [
        ("score_alone", "score", "the score of 'small' calls the network itself by a variable"),
        ("loss_alone", "loss", "the loss of 'small' calls the network itself by a variable"),
        ("submodule", "loss", "the loss of 'small' computes with the network's own '0.weight', by a variable"),
        ("weight", "loss", "the loss of 'small' computes with the network's own '2.weight', by a variable"),
    ],
)
def test_the_network_without_masks_is_refused(which: str, what: str, text: str, setting: Setting, tmp_path: Path) -> None:
    """Every mask had the score of the whole network, or a part of the loss no mask, without a word."""
    others = {what: by_variable(setting.model)[which], "out": str(tmp_path / "answer.zarr")}
    with pytest.raises(UserError, match=text):
        modhook.ask(setting.model, setting.functions, **setting.arguments(**others))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("which", "weights"), [("teacher", ["0.weight", "2.weight"]), ("agreement", [])])
def test_the_network_without_masks_beside_the_masked_one_is_not(which: str, weights: list[str], setting: Setting) -> None:
    """What the network gives without a mask may be what its copy is compared with."""
    function, batch = by_variable(setting.model)[which], items(0, 8, 1)
    refuse_another("the loss", setting.model, function, lambda net: function(net, batch), weights)
    assert all(parameter.requires_grad for parameter in setting.model.parameters())


def test_tests_that_are_learned_on_are_told(setting: Setting) -> None:
    """A hold-out that is the training set was called held out, and nothing said so."""
    tests = {"small": batches(0, 48, size=16), "large": setting.tests["large"]}
    text = r"among the items that masks are learned on \(48 of 48 of 'small'\)"
    with pytest.warns(modhook.ModhookWarning, match=text):
        modhook.ask(setting.model, setting.functions, **setting.arguments(tests=tests, seeds=1, steps=1, analyses=()))


def test_items_are_counted_one_by_one() -> None:
    """Order, batches and a change of one label count as they should, against plain comparison of rows."""
    x, y = items(0, 40, 0)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    mixed = [(torch.cat([x[order[:10]], items(0, 6, 5)[0]]), torch.cat([y[order[:10]], items(0, 6, 5)[1]]))]
    learned = gather("learned", [(x[:20], y[:20]), (x[20:], y[20:])], 0, 9)
    assert seen(learned, gather("tests", mixed, 0, 9)) == 10
    changed = [(x[:5], torch.cat([1 - y[:1], y[1:5]]))]
    assert seen(learned, gather("tests", changed, 0, 9)) == 4
    assert seen(learned, gather("tests", [(x[:5].double(), y[:5])], 0, 9)) == 0
    padded = gather("padded", [(x[:4, :3], y[:4]), (x[4:8], y[4:8])], 0, 9)
    assert seen(padded, padded) == 2
    assert seen(learned, padded) == 0
