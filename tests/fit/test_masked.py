"""The order in which masked weights pull back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from modhook.fit.masked import at_once


class _Logged(torch.autograd.Function):
    """The identity, which notes when its backward pass runs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str, log: list[str]) -> Tensor:
        ctx.name, ctx.log = name, log
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        ctx.log.append(ctx.name)
        return grad, None, None


@pytest.mark.skipif(not hasattr(torch.ones(1, requires_grad=True).exp().grad_fn, "_set_sequence_nr"), reason="torch cannot say the order")
def test_each_layer_pulls_back_before_the_layer_below_it() -> None:
    """Masks that are made before all layers pull back between them, as soon as their gradient is known; gradients are the same."""
    first, second = (torch.randn(3, requires_grad=True) for _ in range(2))
    log: list[str] = []

    def run(order: Any) -> list[Tensor]:
        one, two = (order(_Logged.apply(w, name, log)) for w, name in ((first, "mask 1"), (second, "mask 2")))
        below = _Logged.apply(one * 2, "layer 1", log)
        _Logged.apply(below * two, "layer 2", log).sum().backward()
        found = [w.grad.clone() for w in (first, second)]  # type: ignore[union-attr]
        first.grad = second.grad = None
        return found

    usual = run(lambda made: made)
    assert log == ["layer 2", "layer 1", "mask 2", "mask 1"]
    log.clear()
    early = run(at_once)
    assert log == ["layer 2", "mask 2", "layer 1", "mask 1"]
    assert all(map(torch.equal, usual, early))


def test_what_needs_no_gradient_is_left() -> None:
    """A weight that is not learned has no place in the order."""
    weight = torch.ones(2)
    assert at_once(weight) is weight
