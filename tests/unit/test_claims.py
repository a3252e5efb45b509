"""No units are claimed where a mask of one would be another network than the one without it, and calls by name are read as others are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook import Masks, UserError


class Net(nn.Module):
    """Layers, and what is done with them."""

    def __init__(self, does: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in {"a": nn.Linear(4, 6), "b": nn.Linear(6, 3), **layers}.items():
            self.add_module(name, layer)
        self.does = does
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn_like(parameter))
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        """Whatever it does."""
        return self.does(self, x)


def found(model: nn.Module) -> list[str]:
    """The modules whose neurons or channels are found."""
    return [g.module for g in modhook.units(model).values() if g.kind in ("neuron", "channel")]


def conv(taker: nn.Module) -> dict[str, nn.Module]:
    """Four channels on as many places."""
    return {"a": nn.Conv2d(2, 4, 3, padding=1), "b": taker}


MIXED: dict[str, tuple[Callable[[Any, Tensor], Tensor], dict[str, nn.Module]]] = {
    "the mean over neurons, kept to be spread": (lambda n, x: n.b((h := n.a(x)) - h.mean(1, keepdim=True)), {}),
    "a mean that is spread over inputs": (lambda n, x: n.b(x[:, :1] * n.a(x).mean(1, keepdim=True)), {}),
    "one neuron that gates all": (lambda n, x: n.b((h := n.a(x)) * h[:, :1].sigmoid()), {}),
    "a summand by name": (lambda n, x: n.b(torch.add(n.a(x), other=x.sum(-1, keepdim=True))), {}),
    "a second argument": (lambda n, x: n.b(h := n.a(x)) + n.two(x @ n.a.weight.T, h), {"two": nn.Bilinear(6, 6, 3)}),
    "keys of attention": (
        lambda n, x: n.b(h := n.a(x)) + n.b(n.att(n.q(x), h, h)[0]),
        {"q": nn.Linear(4, 6), "att": nn.MultiheadAttention(6, 2)},
    ),
    "a layer that takes others, too": (
        lambda n, x: n.b(n.a(x).relu()) + n.b(n.c(n.e(x).tanh())).relu(),
        {"c": nn.Linear(6, 6), "e": nn.Linear(4, 6)},
    ),
    "a layer that takes its own outputs and inputs": (
        lambda n, x: n.b(n.s(n.s(F.pad(x, (0, 2))).relu())),
        {"s": nn.Linear(6, 6)},
    ),
    "a batch norm of two": (
        lambda n, x: n.b(n.norm(n.a(x)).relu()) + n.c(n.norm(n.d(x))),
        {"c": nn.Linear(6, 3), "d": nn.Linear(4, 6), "norm": nn.BatchNorm1d(6)},
    ),
    "rows that F.linear takes": (lambda n, x: n.b(n.a(x)) + F.linear(x, n.a.weight).sum(-1, keepdim=True), {}),
    "rows that a module takes": (lambda n, x: n.b(n.a(x)) + n.c(n.a.weight).mean(0), {"c": nn.Linear(4, 3)}),
    "an instance norm over features": (lambda n, x: n.b(n.norm(n.a(x))), {"norm": nn.InstanceNorm1d(6)}),
    "the mean over channels": (lambda n, x: n.b(n.a(x).mean(-3)).sum(1), conv(nn.Linear(4, 3))),
    "the mean over some places": (lambda n, x: n.b(n.a(x).mean(2)), conv(nn.Linear(4, 3))),
    "a pooling over channels and places": (
        lambda n, x: n.b(n.pool(n.a(x[:, :, 0]))),
        {"a": nn.Conv1d(2, 4, 3, padding=1), "pool": nn.AvgPool2d(3, 1, 1), "b": nn.Conv1d(4, 3, 1)},
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_what_is_no_unit(name: str) -> None:
    """What is mixed, spread or shared on its way, or used by another name, makes no units."""
    does, layers = MIXED[name]
    assert not {"a", "s", "d"} & set(found(Net(does, **layers)))


ALIKE: dict[str, tuple[Callable[[Any, Tensor], Tensor], dict[str, nn.Module]]] = {
    "a layer": (lambda n, x: n.b(n.a(x).relu()) + n.c(input=n.a(x).relu()), {"c": nn.Linear(6, 3)}),
    "a product": (lambda n, x: n.b(torch.mul(input=n.a(x), other=n.c(x))), {"c": nn.Linear(4, 6)}),
    "a power": (lambda n, x: n.b(n.a(x).pow(exponent=2)), {}),
    "put side by side": (
        lambda n, x: n.b(torch.cat(tensors=[n.a(x), n.c(x)], dim=1)),
        {"b": nn.Linear(12, 3), "c": nn.Linear(4, 6)},
    ),
    "a layer twice": (lambda n, x: n.b(n.a(x).relu()) + n.b(n.a(x + 1).tanh()), {}),
}


@pytest.mark.parametrize("name", ALIKE)
def test_arguments_by_name(name: str) -> None:
    """What is given by name is followed, too: without a unit, whatever its layer gives for it makes no difference."""
    does, layers = ALIKE[name]
    model = Net(does, **layers)
    units = modhook.units(model)
    kept = torch.arange(6) != 2
    masks = Masks({"neuron:a": kept}, model, units={"neuron:a": units["neuron:a"]})
    x = torch.randn(5, 4, dtype=torch.float64)
    with torch.no_grad(), masks.applied_to(model):
        expected, whole = model(x), modhook.units(model)
    handle = model.a.register_forward_hook(lambda module, args, out: torch.where(kept, out, 2.5))
    with torch.no_grad(), masks.applied_to(model):
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-9)
    handle.remove()
    assert list(whole) == list(units)
    group = units["neuron:a"]  # a column that two calls take counts once
    assert int(group.weights(dict(model.named_parameters()))[0]) == 5 + 3 * (2 if name == "a layer" else 1) + 5 * (
        name == "a product"
    )


def test_a_mean_over_places_one_after_the_other() -> None:
    """Places may be averaged one dimension at a time: what is left are the channels."""
    model = Net(lambda n, x: n.b(n.a(x).relu().mean(-1).mean(-1)), **conv(nn.Linear(4, 3)))
    assert found(model) == ["a"]


def test_states_that_are_passed_on() -> None:
    """A layer that starts from a given state has units only where its states, too, go where that is known."""

    def does(n: Any, x: Tensor) -> Tensor:
        _, first = n.r(x)
        y, second = n.s(x, first)
        return n.b(y) + n.t(x, second)[0].sum(-1, keepdim=True)

    model = Net(does, **{name: nn.GRU(4, 6, batch_first=True) for name in "rst"})
    assert found(model) == ["r.l0"]


class Normalised(nn.Module):
    """Attention with four heads on two sets of keys and values; queries and keys are normalised over all heads, before they are split."""

    def __init__(self, heads: int = 4, fused: bool = False) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.heads, self.fused = 4, 2, heads, fused
        made = {"mix": 16} if fused else {"k": 4, "q": 8, "v": 4}
        for name, size in {**made, "o": 8}.items():
            self.add_module(name, nn.Linear(8, size))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 8) -> (B, T, 8)."""
        b, t, _ = x.shape
        q, k, v = self.mix(x).split((8, 4, 4), -1) if self.fused else (self.q(x), self.k(x), self.v(x))
        q, k = (F.rms_norm(y, y.shape[-1:]).view(b, t, -1, 2) for y in (q, k))
        k, v = (y.reshape(b, t, 2, 2).repeat_interleave(2, 2) for y in (k, v))
        q, k, v = (y.reshape(b, t, self.heads, -1).transpose(1, 2) for y in (q, k, v))
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, 8))


@pytest.mark.parametrize("fused", [False, True])
def test_heads_whose_queries_are_normalised_together(fused: bool) -> None:
    """Such a head is its values and columns, and without it the others give what they gave; what is one head is not four."""
    model = Net(lambda n, x: n.att(x), att=Normalised(fused=fused))
    units = modhook.units(model).select("head")
    (group,) = units.values()
    assert "normalised over all heads" in group.note
    assert set(group.parameters) == {f"att.{'mix' if fused else 'v'}.{n}" for n in ("weight", "bias")} | {"att.o.weight"}
    rows = masks_rows(group)
    assert rows == ([-1] * 12 if fused else []) + [0, 0, 1, 1]
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    kept = torch.tensor([False, False, True, True])
    handle = model.att.o.register_forward_pre_hook(lambda module, args: args[0] * kept.repeat_interleave(2))
    with torch.no_grad():
        expected = model(x)
    handle.remove()
    with torch.no_grad(), Masks({group.name: kept}, model, units=units).applied_to(model):
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-9)
    assert "head" not in modhook.units(Net(lambda n, x: n.att(x), att=Normalised(heads=1, fused=fused))).kinds


def masks_rows(group: Any) -> list[int]:
    """Which set of heads each row of what makes values belongs to."""
    (part,) = [p for p in group.parts if not p.gate and p.parameter.endswith("weight")]
    return part.owner.reshape(-1).tolist()


class Both(nn.Module):
    """Code that cannot be recorded, and returns its hidden neurons beside its output."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 4) -> (B, 4), (B, 6)."""
        hidden = self.a(x).relu() if float(x.sum()) else self.a(x)
        return self.b(hidden), hidden


def test_neurons_that_are_returned_beside_an_output() -> None:
    """Neurons that are tried are tried by everything that a module returns."""

    def does(n: Any, x: Tensor) -> Tensor:
        y, hidden = n.both(x)
        return n.b(hidden) + y.sum() if float(x.sum()) else x

    assert "both.a" not in found(Net(does, both=Both()))


def one(name: str, index: Any) -> dict[str, Any]:
    """A mapping with one unit."""
    return {"one": {name: index}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (one("a.weight", True), "makes a new dimension"),
        (lambda model: model.nowhere, "the function <lambda>, which makes units, fails on Net: AttributeError"),
        (lambda: None, "the function <lambda>, which makes units, fails on Net: TypeError"),
        (nn.Linear, "units must be one of weight, neuron"),
        (lambda model: modhook.units(nn.Sequential(nn.Linear(7, 7), nn.Linear(7, 7))), "belong to another network"),
    ],
)
def test_units_that_are_none(given: Any, said: str) -> None:
    """An index that is none, a function that fails, a type, and units that a function made of another network are one sentence."""
    model = Net(lambda n, x: n.b(n.a(x)))
    with pytest.raises(UserError, match=said) as error:
        modhook.fit_masks(
            model, [torch.zeros(4, 4).double()], lambda net, batch: net(batch).sum(), units=given, steps=1
        )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kinds", [3, None, []])
def test_kinds_that_are_none(kinds: Any) -> None:
    """What is no kind of units, or none, is said."""
    with pytest.raises(UserError, match="select takes a kind of units or some, not"):
        modhook.units(Net(lambda n, x: n.b(n.a(x)))).select(kinds)
