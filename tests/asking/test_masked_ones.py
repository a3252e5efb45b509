"""Losses and scores of a question use the network that they are given; tests are other items than those that masks are learned on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ask_setting import Pair, Setting, batches, items
from torch import Tensor, nn

import modhook
from modhook.asking.batches import Items, Whole, gather
from modhook.asking.dependence import check_loss, check_score
from modhook.asking.seen import seen
from modhook.errors import UserError


class Holder:
    """Holds the network where no closure, global or attribute of an instance leads to it."""

    __slots__ = ("net",)
    own: nn.Module

    def __init__(self, net: nn.Module) -> None:
        self.net = [net]

    def score(self, net: Any, batch: Pair) -> Tensor:
        """The unmasked network's."""
        return (self.net[0](batch[0]).argmax(-1) == batch[1]).double()

    def of_class(self, net: Any, batch: Pair) -> Tensor:
        """The same by an attribute of the class."""
        return (type(self).own(batch[0]).argmax(-1) == batch[1]).double()


def by_variable(used: nn.Sequential) -> dict[str, Callable[..., Any]]:
    """Return losses and scores that know the network by a variable."""

    def score_alone(net: Any, batch: Pair) -> Tensor:
        return (used(batch[0]).argmax(-1) == batch[1]).double()

    def score_by_weights(net: Any, batch: Pair) -> Tensor:
        hidden = (batch[0] @ used[0].weight.T + used[0].bias).relu()
        return ((hidden @ used[2].weight.T + used[2].bias).argmax(-1) == batch[1]).double()

    def called_for_nothing(net: Any, batch: Pair) -> Tensor:
        net(batch[0])
        return score_alone(net, batch)

    def loss_alone(net: Any, batch: Pair) -> Tensor:
        return nn.functional.cross_entropy(used(batch[0]), batch[1])

    def submodule(net: Any, batch: Pair) -> Tensor:
        return nn.functional.cross_entropy(net[2](used[0](batch[0]).relu()), batch[1])

    def weight(net: Any, batch: Pair) -> Tensor:
        return nn.functional.cross_entropy(net[0](batch[0]).relu() @ used[2].weight.T, batch[1])

    def teacher(net: Any, batch: Pair) -> Tensor:
        return nn.functional.cross_entropy(net(batch[0]), used(batch[0]).detach().softmax(-1))

    def weights_beside_a_teacher(net: Any, batch: Pair) -> Tensor:
        hidden = (batch[0] @ net[0].weight.T + net[0].bias).relu()
        return nn.functional.mse_loss(hidden @ net[2].weight.T + net[2].bias, used(batch[0]).detach())

    def agreement(net: Any, batch: Pair) -> Tensor:
        wanted = used(batch[0]).softmax(-1).numpy()  # before the copy is called, and impossible with a gradient
        return 1 - torch.from_numpy(abs(wanted - net(batch[0]).softmax(-1).numpy()).max(-1))

    def last_layer(net: Any, batch: Pair) -> Tensor:
        hidden = used[1](used[0](batch[0]))
        return ((hidden @ net[2].weight.T + net[2].bias).argmax(-1) == batch[1]).double()

    def copied(net: Any, batch: Pair) -> Tensor:
        wanted = used(batch[0]).argmax(-1)
        return (copy.deepcopy(net)(batch[0]).argmax(-1) == wanted).double()

    Holder.own = used
    held = {"held": Holder(used).score, "of_class": Holder(used).of_class}
    every = (score_alone, score_by_weights, called_for_nothing, loss_alone, submodule, weight)
    legitimate = (teacher, weights_beside_a_teacher, agreement, last_layer, copied)
    return {function.__name__: function for function in (*every, *legitimate)} | held


@pytest.mark.parametrize(
    ("which", "what", "text"),
    [
        ("score_alone", "score", "the score of 'small' calls the network itself by a variable"),
        ("called_for_nothing", "score", "the score of 'small' calls the network itself by a variable"),
        ("held", "score", "the score of 'small' calls the network itself by a variable"),
        ("of_class", "score", "the score of 'small' calls the network itself by a variable"),
        ("score_by_weights", "score", "the score of 'small' is the same whatever the weights of its first argument are"),
        ("loss_alone", "loss", "the loss of 'small' calls the network itself by a variable"),
        ("submodule", "loss", "the loss of 'small' computes with the model's own '0.weight', by a variable"),
        ("weight", "loss", "the loss of 'small' computes with the model's own '2.weight', by a variable"),
    ],
)
def test_the_network_without_masks_is_refused(which: str, what: str, text: str, setting: Setting, tmp_path: Path) -> None:
    """Every mask had the score of the whole network, or a part of the loss no mask, without a word."""
    others = {what: by_variable(setting.model)[which], "out": str(tmp_path / "answer.zarr")}
    before = [p.grad for p in setting.model.parameters()]
    with pytest.raises(UserError, match=text):
        modhook.ask(setting.model, setting.functions, **setting.arguments(**others))
    assert not list(tmp_path.iterdir())
    assert all(p.grad is g for p, g in zip(setting.model.parameters(), before, strict=True))


@pytest.mark.parametrize("which", ["teacher", "weights_beside_a_teacher", "agreement", "last_layer", "copied"])
def test_the_network_without_masks_beside_the_masked_one_is_not(which: str, setting: Setting) -> None:
    """What the network gives without a mask may be what its copy is compared with, whichever way the copy is used."""
    what = "score" if which in ("agreement", "last_layer", "copied") else "loss"
    batch, net, heard = items(0, 8, 1), copy.deepcopy(setting.model), ["any"]
    function = by_variable(setting.model)[which]
    if what == "loss":
        check_loss("the loss", setting.model, net, function(net, batch), heard)
        return
    weights = [p.clone() for p in net.parameters()]
    with torch.no_grad():
        check_score("the score", net, lambda: {"s": function(net, batch)}, {"s": function(net, batch)}, heard)
    assert all(torch.equal(p, w) for p, w in zip(net.parameters(), weights, strict=True))


def test_a_score_of_nothing_is_no_reason(setting: Setting) -> None:
    """A function that the network does not do scores 0 whatever the weights: it is refused only where the copy is not called at all."""
    used, batch, net = setting.model, items(0, 8, 1), copy.deepcopy(setting.model)

    def beside() -> dict[str, Tensor]:
        return {"s": ((net(batch[0]).argmax(-1) == 9) & (used(batch[0]).argmax(-1) >= 0)).double()}

    def alone() -> dict[str, Tensor]:
        return {"s": (used(batch[0]).argmax(-1) == 9).double()}

    check_score("the score", net, beside, beside(), [""])
    with pytest.raises(UserError, match="the score calls the network itself"):
        check_score("the score", net, alone, alone(), [""])
    check_score("the score", net, lambda: {"s": torch.zeros(8)}, {"s": torch.zeros(8)}, [])


def test_a_frozen_network_is_its_own_teacher(setting: Setting) -> None:
    """No gradient goes to weights that are frozen, so that nothing must be detached."""
    frozen = copy.deepcopy(setting.model).requires_grad_(False)

    def imitate(net: Any, batch: Pair) -> Tensor:
        return nn.functional.kl_div(net(batch[0]).log_softmax(-1), frozen(batch[0]).softmax(-1), reduction="batchmean")

    answer = modhook.ask(frozen, setting.functions, **setting.arguments(loss=imitate, seeds=1, steps=1, analyses=()))
    assert not answer.failed


def test_texts_stay_with_their_labels(setting: Setting) -> None:
    """One batch with a text per item stays whole: its tensors were drawn anew and its texts not, so that labels were those of others."""
    x, y = items(0, 8, 0)
    batch = {"text": [f"item {i}" for i in range(8)], "x": x, "y": y}
    assert isinstance(gather("batches", [batch], 0, 9), Whole)
    assert isinstance(gather("batches", [{**batch, "text": np.arange(8)}], 0, 9), Whole)
    for each in ([0.5] * 8, [["a", "b"]] * 8, [{"id": 0}] * 8, ["a", None] * 4):
        assert isinstance(gather("batches", [{**batch, "text": each}], 0, 9), Whole)
    for once in ("which?", ["a", "b"], [x, y], [modhook.shared(x)] * 8):
        assert isinstance(gather("batches", [{**batch, "text": once}], 0, 9), Items)
    others = {**batch, "text": [f"other {i}" for i in range(8)]}
    assert seen(gather("batches", [batch], 0, 9), gather("tests", [others], 0, 9)) == 0
    asked = [{**batch, "text": word} for word in ("red?", "blue?")]
    assert seen(*(gather("batches", [one], 0, 9) for one in asked)) == 0


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
    turned = gather("padded", [(x[4:8], y[4:8]), (x[:4, :3], y[:4]), (x[:4, :2], y[:4])], 0, 9)
    assert seen(padded, turned) == 2  # of three batches
    assert seen(gather("padded", [(x[4:8], y[4:8]), (x[:1, :3], y[:1])], 0, 9, 4), gather("tests", [(x[:1, :3], y[:1])], 0, 9)) == 0
