"""The regulariser scaled by gradient norms: its factors by hand, and its state."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modhook.fit.engine import MaskTrainer
from modhook.fit.scaling import GradientScale
from modhook_plugins.samplers.gumbel import Gumbel


def test_factors_by_hand() -> None:
    """The factor is the mean norm of the last 11 steps over the mean of all tensors, never below 1e-4."""
    scale = GradientScale()
    for step in range(1, 15):
        given = {
            "a": torch.tensor([3.0 * step, 4.0 * step]),
            "b": torch.tensor([[float(step % 2)]]),
            "c": torch.zeros(3),
        }
        factors = scale.factors(given)
        seen = range(max(1, step - 10), step + 1)
        a, b = sum(5.0 * s for s in seen) / len(seen), sum(s % 2 for s in seen) / len(seen)
        assert factors == pytest.approx({"a": 3 * a / (a + b), "b": 3 * b / (a + b), "c": 1e-4})


def test_no_gradient_at_all() -> None:
    """Where every norm is 0, the factors are the smallest ones and not NaN."""
    assert GradientScale().factors({"a": torch.zeros(2), "b": torch.zeros(1)}) == {"a": 1e-4, "b": 1e-4}


def _loss(net: Any, batch: dict[str, Tensor]) -> Tensor:
    return F.mse_loss(net(batch["x"]), batch["x"][:, :2])


def test_state_continues_exactly() -> None:
    """A trainer that takes over another's state in the middle of the window learns the same bits."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    data = [{"x": torch.randn(8, 4)} for _ in range(20)]

    def trainer() -> MaskTrainer:
        start = {n: torch.full(p.shape, 2.0) for n, p in model.named_parameters() if "weight" in n}
        return MaskTrainer(model, _loss, start, Gumbel(), samples=2, lr=0.1, beta=5.0, scale_regulariser=True)

    whole, second = trainer(), trainer()
    for number, batch in enumerate(data):
        if number == 14:
            state = copy.deepcopy(whole.state_dict())
        whole.step(number, batch)
    second.load_state_dict(state)
    for number, batch in enumerate(data[14:], 14):
        second.step(number, batch)
    assert all(torch.equal(whole.logits[n], second.logits[n]) for n in whole.logits)
    assert state["norms"].shape == (11, 2)
