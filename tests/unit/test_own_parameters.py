"""Heads and neurons whose weights stand in parameters of a module itself: found by sizes, proven by trying, exact by surgery."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import modhook


class Attention(nn.Module):
    """Heads along the first axis of every parameter; `turned`: heads give to their neighbours' columns, so that none is one."""

    def __init__(self, turned: bool = False, heads: int = 3) -> None:
        super().__init__()
        self.num_heads, self.turned = heads, turned
        for name in ("query", "key", "value"):
            setattr(self, name, nn.Parameter(torch.randn(heads, 6, 4)))
        self.start, self.out = nn.Parameter(torch.randn(heads, 4)), nn.Parameter(torch.randn(heads, 4, 6))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 6) -> (B, T, 6)."""
        q, k, v = (torch.einsum("btf,hfe->bhte", x, w) for w in (self.query, self.key, self.value))
        q = q + self.start[:, None]
        given = (q @ k.mT / 2).softmax(-1) @ v  # (B, h, T, 4)
        if self.turned:
            given = given.cumsum(1)
        return torch.einsum("bhte,hef->btf", given, self.out)


class Experts(nn.Module):
    """Experts with neurons in rows or columns, gates between or before them, biases; both of two experts take part."""

    def __init__(self, between: bool = True, width: int = 5) -> None:
        super().__init__()
        self.between = between
        self.up, self.up_bias = nn.Parameter(torch.randn(2, 6, 2 * width)), nn.Parameter(torch.randn(2, 2 * width))
        self.down = nn.Parameter(torch.randn(2, width, 6))

    def forward(self, x: Tensor) -> Tensor:
        """(..., 6) -> (..., 6)."""
        total = torch.zeros_like(x)
        for up, bias, down in zip(self.up, self.up_bias, self.down, strict=True):
            y = x @ up + bias
            gate, value = (y[..., ::2], y[..., 1::2]) if self.between else y.chunk(2, -1)
            total = total + (gate.sigmoid() * value) @ down
        return total


class Narrow(nn.Module):
    """What runs an inner module takes no float64, as `torch.nn.functional.grouped_mm` takes none; `mixed`: all experts' neurons are."""

    def __init__(self, mixed: bool = False) -> None:
        super().__init__()
        self.up, self.down, self.mixed = nn.Parameter(torch.randn(2, 6, 5)), nn.Parameter(torch.randn(2, 5, 6)), mixed

    def forward(self, x: Tensor) -> Tensor:
        """(..., 6) -> (..., 6)."""
        if x.dtype == torch.float64:
            raise RuntimeError("expected float32, got double")
        y = torch.stack([x @ up for up in self.up]).tanh()
        y = y.softmax(-1) if self.mixed else y
        return sum(one @ down for one, down in zip(y, self.down, strict=True))


class Net(nn.Module):
    """A module between two layers."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.first, self.inner, self.norm, self.last = nn.Linear(3, 6), inner, nn.LayerNorm(6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 3) -> (B, T, 2)."""
        return self.last(self.norm(self.inner(self.first(x))))


def drawn(inner: nn.Module) -> tuple[Net, Tensor]:
    """A network in float64, and inputs."""
    torch.manual_seed(0)
    return Net(inner).double().eval(), torch.randn(4, 5, 3).double()


def masked(model: nn.Module, x: Tensor, name: str, gone: list[int]) -> Tensor:
    """What a network gives without some units of a group."""
    units = modhook.units(model).select(name.partition(":")[0])
    kept = torch.ones(len(units[name]), dtype=torch.bool)
    kept[gone] = False
    with torch.no_grad(), modhook.Masks({name: kept}, model, units=units).applied_to(model):
        return model(x)


def test_heads_are_an_axis_of_every_parameter() -> None:
    """A network without a head is one that was built with a head less."""
    torch.manual_seed(1)
    model, x = drawn(Attention())
    smaller = copy.deepcopy(model)
    inner = smaller.inner
    for name, p in list(inner.named_parameters()):
        setattr(inner, name, nn.Parameter(p.detach()[[0, 2]]))
    torch.testing.assert_close(masked(model, x, "head:inner", [1]), smaller(x).detach(), rtol=0, atol=1e-9)
    assert not torch.allclose(smaller(x), model(x), atol=1e-3)


@pytest.mark.parametrize("between", [True, False])
def test_neurons_of_stacked_experts(between: bool) -> None:
    """Neurons of one expert that are gone are as places of the stacked weights that were never there, gates between or before them."""
    torch.manual_seed(2)
    model, x = drawn(Experts(between))
    found = masked(model, x, "neuron:inner", [1, 3, 5 + 4])
    with torch.no_grad():
        y = torch.einsum("btf,efn->ebtn", model.first(x), model.inner.up) + model.inner.up_bias[:, None, None]
        gate, value = (y[..., ::2], y[..., 1::2]) if between else y.chunk(2, -1)
        act = gate.sigmoid() * value
        act[0, ..., [1, 3]] = act[1, ..., 4] = 0
        expected = model.last(model.norm(torch.einsum("ebtn,enf->btf", act, model.inner.down)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_what_cannot_be_proven_is_no_head() -> None:
    """Heads that give to each other's columns are none, nor are those of a number that fits nothing; the reason is told."""
    torch.manual_seed(3)
    units = modhook.units(drawn(Attention(turned=True))[0])
    assert not [g for g in units.values() if g.kind == "head"]
    assert "Attention is said to have 3, but no reading of its parameters could be proven" in units.left_out["inner"]
    wrong = Attention()
    wrong.num_heads = 5
    said = "inner' may be heads: Attention is said to have 5, but no three of its parameters have that size"
    model, x = drawn(wrong)
    with pytest.raises(modhook.UserError, match=said):
        modhook.fit_masks(model, [x], lambda net, b: net(b).square().mean(), units="head", progress=False)


def test_what_takes_no_float64_is_tried_in_float32() -> None:
    """Neurons of experts whose code refuses float64 are found and are exact; where no reading holds, that is said and not passed over."""
    torch.manual_seed(4)
    model, x = Net(Narrow()).eval(), torch.randn(4, 5, 3)
    found = masked(model, x, "neuron:inner", [1, 5 + 4])
    with torch.no_grad():
        y = torch.einsum("btf,efn->ebtn", model.first(x), model.inner.up).tanh()
        y[0, ..., 1] = y[1, ..., 4] = 0
        expected = model.last(model.norm(torch.einsum("ebtn,enf->btf", y, model.inner.down)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    mixed = modhook.units(Net(Narrow(mixed=True)).eval())
    assert "neuron" not in mixed.kinds
    assert "stacked as those of experts, but no reading of them could be proven" in mixed.left_out["inner"]
