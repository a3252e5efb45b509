"""The way to the tensors behind vmap against plain products, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from modhook.stacked.rules.bridge import bridge

K, N = 3, 4
pytestmark = pytest.mark.usefixtures("float64")


def _product(samples: int, tensors: Sequence[Tensor], stacked: Sequence[bool]) -> tuple[Tensor, ...]:
    """Return x w and their sum, for x (K, N) and w (K, N), or (N,) where they are the same for all."""
    x, w = (t if s else t.expand(samples, *t.shape) for t, s in zip(tensors, stacked, strict=True))
    return x * w, x + w


@pytest.mark.parametrize("dims", [(0, 0), (1, 0), (0, None), (None, 1)])
def test_results_and_gradients_are_those_of_each_sample(dims: tuple[int | None, int | None]) -> None:
    """Whichever dimension is stacked, and where one tensor is shared, results and gradients are the plain ones."""
    leaves = [torch.randn(N if d is None else (K, N) if d == 0 else (N, K)).requires_grad_() for d in dims]
    rows = [t.expand(K, N) if d is None else t if d == 0 else t.T for t, d in zip(leaves, dims, strict=True)]
    found = torch.vmap(lambda x, w: bridge(_product, [x, w]), in_dims=dims)(*leaves)
    torch.testing.assert_close(found, (rows[0] * rows[1], rows[0] + rows[1]))
    weights = [torch.randn(K, N) for _ in range(2)]
    total = sum((t * w).sum() for t, w in zip(found, weights, strict=True))
    wanted = (rows[0] * rows[1] * weights[0] + (rows[0] + rows[1]) * weights[1]).sum()
    torch.testing.assert_close(torch.autograd.grad(total, leaves), torch.autograd.grad(wanted, leaves))


def test_within_another_vmap() -> None:
    """Where only an outer vmap stacks the tensors, its samples are what is computed; the inner one's, where it does."""
    x, w = torch.randn(K, 2, N), torch.randn(K, N)
    seen: list[int] = []

    def compute(samples: int, tensors: Sequence[Tensor], stacked: Sequence[bool]) -> tuple[Tensor, ...]:
        seen.append(samples)
        return _product(samples, tensors, stacked)

    def one(x: Tensor, w: Tensor) -> Tensor:
        return torch.vmap(lambda item: bridge(compute, [w, w])[0] + item)(x)  # x (2, N)

    torch.testing.assert_close(torch.vmap(one)(x, w), (w * w).unsqueeze(1) + x)
    both = torch.vmap(lambda x, w: torch.vmap(lambda item: bridge(compute, [item, w])[0])(x))
    torch.testing.assert_close(both(x, w), x * w.unsqueeze(1))
    assert seen == [K, 2]


def test_an_error_leaves_vmap_as_it_was() -> None:
    """After an error in what is computed, the same vmap goes on with its own samples."""

    def one(x: Tensor) -> Tensor:
        try:
            bridge(lambda *_: (_ for _ in ()).throw(ValueError), [x])
        except ValueError:
            return bridge(_product, [x, x])[0]
        raise AssertionError

    x = torch.randn(K, N)
    torch.testing.assert_close(torch.vmap(one)(x), x * x)
