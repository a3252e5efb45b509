"""What a check of routes runs and copies: plain copies once, no route that is not asked for, and no value that goes unseen."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

import modhook
from modhook.plugin.interfaces import Tracker
from modhook.stacked import canary
from modhook.stacked.near import Alone, Numbers, Together

LARGE = 1_100_000  # more than the bank of numbers that large tensors share


class Counted(nn.Module):
    """A network that counts its forward passes, also those of its copies; one under all samples at once counts once."""

    passes: ClassVar[list[str]] = []

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        Counted.passes.append("")
        return self.inner(x)


def convolutions() -> nn.Module:
    """Return a network that the table of routes loops."""
    return nn.Sequential(nn.Conv2d(3, 110, 3), nn.ReLU(), nn.Conv2d(110, 110, 3), nn.Flatten())


@pytest.mark.parametrize(
    ("inner", "x", "executor", "passes"),
    [
        (nn.Linear(3, 2), torch.randn(4, 3), "auto", 2 + 1),  # two plain copies, one pass under both samples
        (nn.Linear(3, 2), torch.randn(4, 3), "loop", 2 + 2),
        (convolutions(), torch.randn(2, 3, 5, 5), "auto", 2 + 2),  # the vectorised route is not tried
    ],
)
def test_a_check_runs_the_copies_and_one_route(inner, x, executor, passes) -> None:
    """Settling a route costs two plain passes and those of the route that is taken."""
    Counted.passes.clear()
    modhook.stack(Counted(inner), ((x,), {}), samples=4, executor=executor)
    assert len(Counted.passes) == passes


def test_a_first_step_adds_its_own_passes_and_no_more() -> None:
    """The first step of a fit runs the check, itself once, and the measured mask once."""
    torch.manual_seed(0)
    Counted.passes.clear()
    net, batch = Counted(nn.Linear(3, 2)), torch.randn(8, 3)
    modhook.fit_masks(net, [batch], lambda f, b: f(b).square().mean(), sampler="gumbel", samples=4, steps=1, progress=False)
    assert len(Counted.passes) == (2 + 1) + 1 + 1


def test_inspect_checks_once_and_tells_how_far_it_is(monkeypatch) -> None:
    """However many routes a report has, the plain copies run once; each part moves the bar, and long passes are not repeated."""
    from modhook.stacked import report

    monkeypatch.setattr(report, "_ENOUGH", 0.0)

    class Told(Tracker):
        """Keeps what it is told."""

        def __init__(self):
            self.stage, self.steps, self.seen = "", 0, []

        def stage_started(self, stage, steps):
            self.stage, self.steps = stage, steps

        def step(self, step, values):
            self.seen.append(step)

    Counted.passes.clear()
    told = Told()
    found = modhook.inspect(Counted(nn.Linear(3, 2)), torch.randn(4, 3), samples=4, progress=told)
    assert set(found.milliseconds) == {"unmasked", "vmap", "loop"}
    # copies, both routes; what the plain model and the route keep, measured there; the loop, measured
    assert len(Counted.passes) == 2 + (1 + 2) + (1 + 1) + 4
    assert told.stage == "inspect"
    assert told.seen == sorted(told.seen)
    assert 0 < told.seen[-1] <= told.steps


def test_weights_near_a_network_are_made_again_to_the_bit() -> None:
    """A changed number anywhere in a large or a small tensor is seen, and `restore` makes all values again; samples and rows differ."""
    torch.manual_seed(0)
    model = nn.ParameterDict({"large": nn.Parameter(torch.randn(11, LARGE // 11)), "small": nn.Parameter(torch.randn(3))})
    numbers = Numbers(model, ["large", "small"], 3)
    near = Together(numbers)
    before = {n: v.clone() for n, v in near.items()}
    for name, value in before.items():
        own = model[name].detach()
        gap = (value - own).abs()
        assert bool((gap <= (0.05 * own.abs() + 0.01) * 1.001).all())
        assert gap.mean() > 0.005
        noise = (value - own) / (0.1 * own + 0.02)
        assert len({row[:3].round(decimals=3).numpy().tobytes() for row in noise.flatten(0, -2)}) == noise.flatten(0, -2).shape[0]
    for name, at in (("large", (1, 10, LARGE // 11 - 1)), ("large", (2, 0, 0)), ("small", (2, 1))):
        value = near[name]
        value.data[at] += 1e-6
        assert [near.same(name, k, value[k]) for k in range(3)] == [k != at[0] for k in range(3)]
        near.restore()
        assert all(torch.equal(near[n], before[n]) for n in before)
    assert all(torch.equal(Alone(numbers, k)[n], before[n][k : k + 1]) for n in before for k in range(3))


def test_a_route_that_writes_does_not_spoil_the_next_one(monkeypatch) -> None:
    """A route that writes into the shared weights and fails leaves the values that the loop is compared on."""
    true = canary.compare

    def spoiled(route, job, expected):
        def writes(job, *around):
            if route is canary_route:
                with torch.no_grad():
                    for value in job.parameters.values():
                        value.data.add_(1)
            return route(job, *around)

        return true(writes, job, expected)

    from modhook.stacked.routes import run_vmap as canary_route

    monkeypatch.setattr(canary, "compare", spoiled)
    stacked = modhook.stack(nn.Linear(3, 2), ((torch.randn(4, 3),), {}), samples=2)
    assert stacked.route == "loop"
    assert stacked.choice.error < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_differences_are_those_of_the_formula(dtype) -> None:
    """The largest difference, piece by piece, is max |a - b| / max |b| in float64; NaN and infinity agree only with themselves."""
    torch.manual_seed(0)
    expected = torch.randn(2, 400, 500).to(dtype)
    found = expected.clone()
    found[1, 399, 499] += 0.25
    wide = torch.complex128 if dtype.is_complex else torch.float64
    right = float((found.to(wide) - expected.to(wide)).abs().max() / expected.to(wide).abs().max())
    assert canary.difference(found, list(expected)) == pytest.approx(right, rel=1e-6)
    assert canary.difference(found, expected) == pytest.approx(right, rel=1e-6)
    for odd in (float("nan"), float("inf")):
        both, one = found.clone(), expected.clone()
        both[0, 0, 0] = one[0, 0, 0] = odd
        assert canary.difference(both, list(one)) == pytest.approx(right, rel=1e-6)
        assert canary.difference(both, list(expected)) == float("inf")
        assert canary.difference(found, list(one)) == float("inf")
