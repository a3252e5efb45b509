"""Whatever the sizes, a stacked run equals the runs of its samples one by one."""

from __future__ import annotations

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import modhook


def _network(kind: str, inputs: int, hidden: int) -> nn.Module:
    if kind == "fnn":
        return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.LayerNorm(hidden), nn.Linear(hidden, 2))
    if kind == "conv":
        return nn.Sequential(nn.Conv1d(inputs, hidden, 1), nn.GELU(), nn.BatchNorm1d(hidden))
    return {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind](inputs, hidden, batch_first=True)


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["fnn", "conv", "lstm", "gru", "rnn"]),
    samples=st.integers(1, 4),
    batch=st.integers(2, 4),
    steps=st.integers(1, 6),
    inputs=st.integers(1, 4),
    hidden=st.integers(2, 5),
    executor=st.sampled_from(["auto", "vmap", "loop"]),
    seed=st.integers(0, 2**20),
)
def test_stacked_equals_one_by_one(kind, samples, batch, steps, inputs, hidden, executor, seed):
    """Outputs and gradients of every sample are those of a copy of the model with that sample's weights."""
    generator = torch.Generator().manual_seed(seed)
    model = _network(kind, inputs, hidden).double()
    size = (batch, inputs, steps) if kind == "conv" else (batch, steps, inputs)
    x = torch.randn(samples, *size, generator=generator, dtype=torch.float64)
    sets = {
        name: torch.randn(samples, *p.shape, generator=generator, dtype=p.dtype).requires_grad_()
        for name, p in model.named_parameters()
    }
    stacked = modhook.stack(model, samples=samples, executor=executor)
    out = stacked(sets, x)
    out = out if isinstance(out, torch.Tensor) else out[0]
    looped = executor == "loop" or (executor == "auto" and samples == 1)  # as the table of routes says
    assert stacked.route == ("loop" if looped else "vmap")
    cotangent = torch.randn(out.shape, generator=generator, dtype=out.dtype)
    found = torch.autograd.grad((out * cotangent).sum(), list(sets.values()))
    for k in range(samples):
        twin = copy.deepcopy(model)
        with torch.no_grad():
            for name, parameter in twin.named_parameters():
                parameter.copy_(sets[name][k])
        alone = twin(x[k])
        alone = alone if isinstance(alone, torch.Tensor) else alone[0]
        torch.testing.assert_close(out[k], alone, rtol=1e-9, atol=1e-11)
        wanted = torch.autograd.grad((alone * cotangent[k]).sum(), list(twin.parameters()))
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours[k], theirs, rtol=1e-8, atol=1e-10)
