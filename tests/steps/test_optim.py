"""Clipping of gradients, beside torch's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from modhook.steps.optim import clip_gradients


@pytest.mark.parametrize("share", [0.2, 0.98, 0.995, 1.0, 1.0 + 1e-7, 3.0, math.nan, math.inf])
def test_gradients_are_those_that_torch_clips(share: float) -> None:
    """Far below the limit, at it, above it and without a norm, gradients have the bits that `clip_grad_norm_` gives, as has the norm."""
    torch.manual_seed(0)
    limit = 0.7
    gradients = [torch.randn(5, 3), torch.randn(7)]
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
    gradients = [g * (share * limit / norm) for g in gradients]
    ours, theirs = (_with(gradients) for _ in range(2))
    found = clip_gradients(ours, limit)
    torch.testing.assert_close(found, nn.utils.clip_grad_norm_(theirs, limit), rtol=0, atol=0, equal_nan=True)
    for one, other, before in zip(ours, theirs, gradients, strict=True):
        assert one.grad is not None
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=0, equal_nan=True)
        if share < 1:
            assert torch.equal(one.grad, before)


@pytest.mark.parametrize("limit", [None, 0.0])
def test_no_limit_leaves_gradients(limit: float | None) -> None:
    """Without a limit gradients stay, and the norm is told."""
    (one,) = _with([torch.tensor([3.0, 4.0])])
    assert float(clip_gradients([one], limit)) == 5
    assert torch.equal(one.grad, torch.tensor([3.0, 4.0]))  # type: ignore[arg-type]


def _with(gradients: list[Tensor]) -> list[nn.Parameter]:
    """Return parameters with copies of these gradients."""
    made = [nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for parameter, gradient in zip(made, gradients, strict=True):
        parameter.grad = gradient.clone()
    return made
