"""A model as it was, put back again and again."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modhook.network.scope import Kept, substituted


class Changing(nn.Module):
    """Counts, collects and draws whenever it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.seen: list[float] = []
        self.about: dict[str, Any] = {"calls": 0}
        self.drawn = random.Random(0)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer does to x (B, 2)."""
        self.seen.append(self.drawn.random())
        self.about["calls"] += 1
        self.late = x
        return self.linear(x)


def test_a_model_is_put_back_as_often_as_it_is_asked_for() -> None:
    """Every one of several calls under other weights begins with the same attributes, containers and draws, and leaves none behind."""
    model, x = Changing(), torch.randn(3, 2)
    own, kept, seen = dict(model.named_parameters()), Kept(model), []
    for k in range(3):
        weight = torch.full((2, 2), float(k))
        with substituted(model, {"linear.weight": weight}, kept=kept):
            torch.testing.assert_close(model(x), x @ weight.T + own["linear.bias"])
            seen.append((list(model.seen), model.about["calls"]))
            model.linear.weight.add_(1)
    assert seen == [([random.Random(0).random()], 1)] * 3
    assert (model.seen, model.about, hasattr(model, "late")) == ([], {"calls": 0}, False)
    assert model.drawn.random() == random.Random(0).random()
    assert all(p is own[n] for n, p in model.named_parameters())


CHANGES: dict[str, Any] = {
    "attribute": lambda model: setattr(model, "late", 1),
    "list": lambda model: model.seen.append(1.0),
    "dict": lambda model: model.about.update(calls=1),
    "draw": lambda model: model.drawn.random(),
    "hook": lambda model: model.linear.register_forward_hook(print),
    "mode": lambda model: model.linear.eval(),
    "parameter": lambda model: setattr(model.linear, "weight", nn.Parameter(torch.zeros(2, 2))),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_model_that_was_changed_says_so(change: Any) -> None:
    """What is set, collected or drawn in any module counts, and nothing else does."""
    model = Changing()
    kept = Kept(model)
    assert not kept.changed()
    change(model)
    assert kept.changed()
