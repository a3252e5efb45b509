"""The canary tells float32's rounding from a route that is wrong."""

from __future__ import annotations

import torch
from torch import nn

import modhook
from modhook.stacked import canary
from modhook.stacked.routes import run_vmap


def test_rounding_does_not_refuse_a_route(monkeypatch) -> None:
    """A float32 difference that float64 does not confirm admits the route; the report still gives the difference."""
    true = canary.compare
    seen: list[torch.dtype] = []

    def turned(route, job, expected):
        """Answer in float32 as if a ReLU at its edge had turned."""
        dtype = next(iter(job.parameters.values())).dtype
        seen.append(dtype)
        if route is run_vmap and dtype == torch.float32:
            return canary.Finding("the gradient of 'weight' differs from a plain run by 5.0e-03", worst=5e-3)
        return true(route, job, expected)

    monkeypatch.setattr(canary, "compare", turned)
    model = nn.Linear(3, 2)
    stacked = modhook.stack(model, ((torch.randn(4, 3),), {}), samples=2)
    assert stacked.route == "vmap"
    assert stacked.choice.error == 5e-3
    assert torch.float64 in seen
    assert model.weight.dtype == torch.float32


def test_a_wrong_route_is_refused_in_double_too(monkeypatch) -> None:
    """A difference that float64 confirms keeps the route out, however small it is."""
    true = canary.compare

    def wrong(route, job, expected):
        """Spoil vmap's outputs a little, whatever the dtype."""
        if route is run_vmap:
            return true(lambda *a: run_vmap(*a) * 1.01, job, expected)
        return true(route, job, expected)

    monkeypatch.setattr(canary, "compare", wrong)
    stacked = modhook.stack(nn.Linear(3, 2), ((torch.randn(4, 3),), {}), samples=2)
    assert stacked.route == "loop"
