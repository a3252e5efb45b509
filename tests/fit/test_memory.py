"""What a fit keeps of memory from step to step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import modhook


def test_what_the_check_of_the_route_took_is_given_back() -> None:
    """With one sample at a time no buffer of several samples is kept after the first step, and none of the masks depends on it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(600, 600, bias=False), nn.Tanh(), nn.Linear(600, 600, bias=False)).eval()
    weights, kept = 2 * 600 * 600, []

    def look(step: int, trainer: Any) -> None:
        kept.append(sum(b.numel() for buffers in trainer.workspace._buffers.values() for b in buffers))

    def fitted(memory: int | None) -> modhook.Masks:
        return modhook.fit_masks(
            net, [torch.randn(8, 600, generator=torch.Generator().manual_seed(1))] * 4, lambda f, b: f(b).square().mean(),
            samples=4, steps=4, lr=0.1, init=0.0, beta=0.0, memory=memory, progress=False, callback=look,
        ).masks  # fmt: skip

    one = fitted(12 * weights + 1)
    assert 0 < max(kept) <= 2.5 * weights  # one sample's masked weights, and the logits' gradients
    assert modhook.iou(one, fitted(None)) > 0.99
