"""What a weight becomes that is not kept: in `applied_to`, `materialize` and `evaluate`, against torch.where on deep copies."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import modhook
from modhook import Masks
from modhook.errors import MaskError, UserError, WeightsError
from modhook.masks.off import off_weights

G = torch.Generator().manual_seed(0)


class Tied(nn.Module):
    """Two names of one weight, a buffer, and a bias that is not masked."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.last = nn.Linear(4, 3)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 3) for x (B, 4)."""
        return self.last(self.second(self.first(x).tanh()) * self.scale)


def made(seed: int = 0) -> nn.Module:
    """Return a network."""
    torch.manual_seed(seed)
    return Tied()


def masked(net: nn.Module) -> Masks:
    """Return random masks over both weights."""
    return Masks({n: torch.rand(net.get_parameter(n).shape, generator=G) > 0.5 for n in ("first.weight", "last.weight")}, net)


def by_hand(net: nn.Module, masks: Masks, other: dict[str, Tensor]) -> nn.Module:
    """Return a deep copy with the other weights where the masks are False."""
    twin = copy.deepcopy(net)
    for name in ("first.weight", "last.weight"):
        own = twin.get_parameter(name)
        for index in (~masks[name]).nonzero():
            own.data[tuple(index)] = other[name][tuple(index)]
    return twin


def same(one: nn.Module, other: nn.Module) -> bool:
    """Return whether two networks hold the same values."""
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    "give",
    [
        lambda net: net.state_dict(),
        lambda net: net,
        lambda net: {"second.weight": net.first.weight, "last.weight": net.last.weight},
    ],
    ids=["state dict", "network", "further name"],
)
def test_masked_weights_become_those_of_a_second_network(give: Callable[[nn.Module], Any]) -> None:
    """All three ways of use put the other weight where the mask is False, under every name; the network is itself again."""
    net, other, x = made(), made(1), torch.randn(5, 4, generator=G)
    masks, before = masked(net), copy.deepcopy(net)
    right, off = by_hand(net, masks, dict(other.named_parameters())), give(other)
    assert same(masks.materialize(net, off), right)
    memory = net.first.weight.data_ptr()
    with masks.applied_to(net, off):
        assert same(net, right)
        assert net.second.weight is net.first.weight
    assert same(net, before)
    assert net.first.weight.data_ptr() == memory
    found = modhook.evaluate(net, masks, [x], lambda f, b: f(b).sum(-1), off=off)
    assert found == float(right(x).detach().sum(-1).double().mean())
    assert same(masks.materialize(net, "zero"), masks.materialize(net))


def test_shuffled_is_the_tensors_own_weights_in_an_order_of_its_own() -> None:
    """The same numbers, another place; by seed and name alone, whatever else is masked, and not under any other seed."""
    net = made()
    names = ["first.weight", "last.weight"]
    drawn = off_weights(net, names, "shuffled", 3)
    for name in names:
        own = net.get_parameter(name)
        assert torch.equal(drawn[name].flatten().sort().values, own.detach().flatten().sort().values)
        assert not torch.equal(drawn[name], own)
    assert torch.equal(off_weights(net, names[1:], "shuffled", 3)["last.weight"], drawn["last.weight"])
    assert not torch.equal(off_weights(net, names, "shuffled", 4)["last.weight"], drawn["last.weight"])
    masks = masked(net)
    assert same(masks.materialize(net, "shuffled", seed=3), by_hand(net, masks, drawn))


def test_redrawn_has_the_tensors_mean_and_deviation() -> None:
    """Normal numbers of each tensor's mean and deviation, within five standard errors, by seed; a constant stays one."""
    net = nn.Linear(200, 300)
    net.weight.data = net.weight.data.exponential_(generator=G) + 3
    drawn = off_weights(net, ["weight"], "redrawn", 1)["weight"]
    own = net.weight.detach()
    deviation, n = float(own.std()), own.numel()
    assert abs(float(drawn.mean() - own.mean())) < 5 * deviation / n**0.5
    assert abs(float(drawn.std()) - deviation) < 5 * deviation / (2 * n) ** 0.5
    assert abs(float(((drawn - drawn.mean()) ** 3).mean()) / deviation**3) < 5 * (6 / n) ** 0.5, "no exponential"
    assert torch.equal(drawn, off_weights(net, ["weight"], "redrawn", 1)["weight"])
    net.weight.data.fill_(0.25)
    assert torch.equal(off_weights(net, ["weight"], "redrawn", 1)["weight"], net.weight)


WEIGHT = torch.zeros(4, 4)


@pytest.mark.parametrize(
    ("off", "error", "message"),
    [
        ("shufled", UserError, r"unknown off 'shufled' \(did you mean 'shuffled'\?\); valid are zero, shuffled"),
        (3, UserError, "off must be one of zero, shuffled, redrawn, {name: tensor}, or a network, not 3"),
        ({"first.wieght": WEIGHT}, WeightsError, r"off holds first.wieght \(did you mean 'first.weight'\?\)"),
        ({"first.weight": WEIGHT}, WeightsError, "off lacks last.weight, which the masks cover"),
        ({"first.weight": WEIGHT[:3]}, WeightsError, r"off\['first.weight'\] has shape \(3, 4\), but the parameter has"),
        ({"first.weight": WEIGHT.double()}, WeightsError, "is torch.float64, but the parameter is torch.float32; convert"),
        ({"first.weight": WEIGHT.long()}, WeightsError, "is torch.int64, but"),
        ({"first.weight": WEIGHT.to("meta")}, WeightsError, "is no plain tensor with values"),
        ({"first.weight": [1.0]}, WeightsError, r"off\['first.weight'\] must be a tensor, not list"),
        ({"first.weight": WEIGHT / 0}, WeightsError, "not finite"),
        ({"first.weight": WEIGHT, "second.weight": WEIGHT + 1}, MaskError, "two names of one tied parameter, but off gives"),
    ],
)
def test_what_does_not_fit_is_one_sentence(off: Any, error: type[Exception], message: str) -> None:
    """Every mistake in `off` is named wherever it is given, before anything is changed."""
    net, x = made(), [torch.rand(2, 4)]
    masks, before = masked(net), copy.deepcopy(net)
    for use in (
        lambda: masks.materialize(net, off),
        lambda: masks.applied_to(net, off).__enter__(),
        lambda: modhook.evaluate(net, masks, x, lambda f, b: f(b).sum(-1), off=off),
        lambda: modhook.fit_masks(net, x, lambda f, b: f(b).mean(), off=off, samples=2, steps=1, progress=False),
    ):
        with pytest.raises(error, match=message) as caught:
            use()
        assert "\n" not in str(caught.value)
        assert same(net, before)
