"""A tied weight is one parameter, by whichever of its names it is called."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook import Masks, iomin, iou
from modhook.errors import MaskError


class Tied(nn.Module):
    """Two layers of one weight, and a third of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4, bias=False) for _ in range(3))
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4) -> (B, 4)."""
        return self.c(self.b(self.a(x).tanh()))


NAMES = ["a.weight", "b.weight"]


@pytest.fixture
def tied() -> Tied:
    """The network in float64."""
    torch.manual_seed(2)
    return Tied().double()


@pytest.fixture
def mask() -> Tensor:
    """A mask of the tied weight with 7 of 16 kept."""
    return torch.arange(16).view(4, 4) * 5 % 16 < 7


def by_hand(model: Tied, mask: Tensor, x: Tensor) -> Tensor:
    """The network with the tied weight multiplied by hand."""
    w = model.a.weight.detach() * mask
    return F.linear(F.linear(F.linear(x, w).tanh(), w), model.c.weight)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("given", [True, False])
def test_one_answer_under_either_name(tied: Tied, mask: Tensor, name: str, given: bool) -> None:
    """applied_to and materialize give the network multiplied by hand, the masks made with the network or without."""
    masks, x = Masks({name: mask}, tied if given else None), torch.randn(3, 4).double()
    expected = by_hand(tied, mask, x)
    with masks.applied_to(tied):
        torch.testing.assert_close(tied(x), expected)
    torch.testing.assert_close(masks.materialize(tied)(x), expected)
    made = masks.materialize(tied)
    assert made.a.weight is made.b.weight
    assert masks.kept() == 7


def test_masks_of_a_network_count_a_tied_weight_once(tied: Tied, mask: Tensor, tmp_path: Path) -> None:
    """Size, density, set algebra, overlap and files agree whichever name is used, and a mask is found under every one."""
    other = mask.roll(1)
    one, two, both = (Masks(dict.fromkeys(names, mask), tied) for names in (NAMES[:1], NAMES[1:], NAMES))
    for masks in (one, two, both):
        assert (masks.size, masks.kept(per_tensor=True), masks.density) == (16, {"a.weight": 7}, 7 / 16)
        assert all(name in masks and torch.equal(masks[name], mask) for name in NAMES)
        masks.save(tmp_path / "m.safetensors")
        for model in (None, tied, copy.deepcopy(tied)):
            back = Masks.load(tmp_path / "m.safetensors", model)
            assert (back, back.size, back["b.weight"].sum()) == (masks, 16, 7)
    assert one == two == both
    assert len({one, two, both}) == 1
    for second in (Masks({"b.weight": other}, tied), Masks({"b.weight": other})):
        assert torch.equal((one | second)["b.weight"], mask | other)
        assert torch.equal((second & one)["a.weight"], mask & other)
        shared = int((mask & other).sum())
        assert iou(one, second) == iou(second, one) == shared / int((mask | other).sum())
        assert iomin(one, second) == shared / 7
    assert "c.weight" not in one


def test_masks_that_contradict_each_other_are_refused(tied: Tied, mask: Tensor, tmp_path: Path) -> None:
    """Different masks under two names of one parameter are one sentence, wherever the network first appears."""
    message = (
        "'a.weight' and 'b.weight' are two names of one tied parameter, but .* different tensors; give one of them"
    )
    different = {"a.weight": mask, "b.weight": ~mask}
    free, x = Masks(different), torch.randn(4, 4).double()
    free.save(tmp_path / "m.safetensors")
    before = tied.a.weight.detach().clone()

    def fit(**options: Any) -> Any:
        return modhook.fit_masks(
            tied, [(x,)], lambda m, b: m(b[0]).mean(), steps=1, samples=2, progress=False, **options
        )

    for act in (
        lambda: Masks(different, tied),
        lambda: free.materialize(tied),
        lambda: free.applied_to(tied).__enter__(),
        lambda: Masks.load(tmp_path / "m.safetensors", tied),
        lambda: Masks({"a.weight": mask}, tied) | free,
        lambda: fit(fixed=free),
        lambda: fit(train_weights=different),
        lambda: fit(init={n: m.double() for n, m in different.items()}),
    ):
        with pytest.raises(MaskError, match=message):
            act()
    assert Masks({"a.weight": mask}, tied) != free
    assert torch.equal(tied.a.weight, before)


@pytest.mark.parametrize("name", NAMES)
def test_fit_masks_takes_either_name(tied: Tied, mask: Tensor, name: str) -> None:
    """`init`, `fixed`, `train_weights`, `include` and `exclude` mean the one parameter; results agree bit for bit."""
    x = torch.randn(8, 4).double()

    def fit(**options: Any) -> modhook.Fit:
        return modhook.fit_masks(
            tied, [(x,)], lambda m, b: (m(b[0]) ** 2).mean(), steps=2, samples=2, lr=0.1, progress=False, **options
        )

    start = torch.where(mask, 1.0, -1.0).double()
    first = "a.weight"
    assert torch.equal(fit(init={name: start}).logits[first], fit(init={first: start}).logits[first])
    assert set(fit(include=name).logits) == {first}
    assert set(fit(exclude=name).logits) == {"c.weight"}
    held = fit(fixed=Masks({name: mask}))
    assert set(held.logits) == {"c.weight"}
    assert torch.equal(held.masks[name], mask)
    assert held.masks.size == 32
    assert torch.equal(held.logits["c.weight"], fit(fixed=Masks({first: mask}, tied)).logits["c.weight"])
    moved, expected = fit(train_weights={name: mask}), fit(train_weights={first: mask})
    assert torch.equal(moved.weights[name], expected.weights[first])
    assert torch.equal(moved.weights[name] != tied.a.weight, mask)
    assert torch.equal(moved.logits[first], expected.logits[first])


def test_two_parameters_on_one_memory_are_two(mask: Tensor) -> None:
    """Parameters that merely share memory are masked one by one: materialize is what applied_to is."""
    model = Tied().double()
    model.b.weight = nn.Parameter(model.a.weight.data)
    masks, x = Masks({"a.weight": mask}, model), torch.randn(3, 4).double()
    w = model.a.weight.detach()
    expected = F.linear(F.linear(F.linear(x, w * mask).tanh(), w), model.c.weight)
    with masks.applied_to(model):
        torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(masks.materialize(model)(x), expected)
