"""Frozen parameters, tied names, buffers, number types, and kinds of calls."""

from __future__ import annotations

import pytest
import stacked_loops as loops
import torch
from torch import nn

from modhook.stacked import inspect, stack

K, B, D = 3, 4, 8
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2}


class Mixed(nn.Module):
    """A tied and a frozen weight, a buffer, an embedding and attention."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, D, padding_idx=0), nn.Linear(D, 9)
        self.layer = nn.TransformerEncoderLayer(D, 2, 12, dropout=0.0, batch_first=True)
        self.head.weight = self.embedding.weight
        self.head.bias.requires_grad_(False)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, tokens):
        return self.head(self.layer(self.embedding(tokens)) * self.scale)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("executor", ["auto", "loop"])
def test_number_types(dtype, executor):
    """float64, float32 and bfloat16 give what a plain loop gives in the same type, and keep the type."""
    torch.manual_seed(0)
    model, tokens = Mixed().to(dtype), torch.randint(9, (K, B, 5))
    sets = loops.parameter_sets(model, K)
    stacked = stack(model, executor=executor)
    found = [stacked(sets, tokens)]
    grads = loops.gradients_of(found, sets)
    expected, wanted = loops.plain_loop(model, sets, lambda net, k: [net(tokens[k])])
    assert stacked.route == ("vmap" if executor == "auto" else "loop")
    assert found[0].dtype == expected[0].dtype == dtype
    assert loops.worst(found, expected) <= TOLERANCE[dtype]
    assert loops.worst(grads, wanted) <= TOLERANCE[dtype]


def test_frozen_and_tied_parameters_and_buffers():
    """A frozen parameter can be masked and gets its gradient; a tied one counts once; a buffer is no parameter."""
    model, tokens = Mixed().double(), torch.randint(9, (K, B, 5))
    report = inspect(model, tokens[0], samples=2)
    names = {p.name: p for p in report.parameters}
    assert names["head.bias"].maskable
    assert not names["head.bias"].trained
    assert names["embedding.weight"].tied == ("head.weight",)
    assert "scale" not in names
    sets = loops.parameter_sets(model, K, ["head.bias"])
    grads = loops.gradients_of([stack(model)(sets, tokens)], sets)
    assert grads["head.bias"].abs().min() > 0
    assert not model.head.bias.requires_grad


def test_one_check_per_kind(monkeypatch):
    """Sequence lengths and batch sizes change without a new check; train mode, another type or structure gets its own."""
    from modhook.stacked import stacked as module

    checks = []
    settle = module.settle
    monkeypatch.setattr(module, "settle", lambda *a: checks.append(1) or settle(*a))
    model = Mixed()
    sets = loops.parameter_sets(model, K)
    stacked = stack(model, example=((torch.randint(9, (B, 5)),), {}), samples=K)
    for length, batch in ((1, 2), (5, 4), (9, 1)):
        stacked(sets, torch.randint(9, (K, batch, length)))
    assert len(checks) == 1
    stacked(sets, tokens=torch.randint(9, (K, B, 5)))
    assert len(checks) == 2
    model.eval()
    stacked(sets, torch.randint(9, (K, B, 5)))
    assert len(checks) == 3
