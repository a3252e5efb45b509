"""What `inspect` announces is what `fit_masks` does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import modhook


class Rounded(nn.Module):
    """A network that vmap cannot run: it asks for a number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).tanh()
        return self.last(hidden * (1 if hidden.mean().item() < 9 else 2))


def dense() -> nn.Module:
    """A network that is vectorised."""
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


def recurrent() -> nn.Module:
    """A network that is vectorised by a rule."""

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(6, 5, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x)[0][:, -1, :2]

    return Last()


def convolutional() -> nn.Module:
    """A network that the table loops: convolutions with more than 100,000 weights."""
    return nn.Sequential(nn.Conv1d(6, 300, 3), nn.Conv1d(300, 120, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten())


CASES = [(dense, (6,)), (recurrent, (4, 6)), (convolutional, (6, 9)), (Rounded, (6,))]


@pytest.mark.parametrize(("make", "shape"), CASES, ids=lambda c: getattr(c, "__name__", ""))
@pytest.mark.parametrize("samples", [1, 3])
def test_same_route(make: Callable[[], nn.Module], shape: tuple[int, ...], samples: int) -> None:
    """Route and reason are the same for the same batch, whichever they are."""
    torch.manual_seed(0)
    model, x = make(), torch.randn(6, *shape)
    report = modhook.inspect(model, x, samples=samples)
    fit = modhook.fit_masks(
        model, [x], lambda net, batch: net(batch).square().mean(), samples=samples, steps=1, progress=False
    )
    assert fit.route["route"] == report.route
    assert fit.route["reason"].partition(":")[0] == report.reason.partition(":")[0]


def test_a_loss_can_rule_a_route_out() -> None:
    """A loss that asks for a number is looped although the network alone is not, and the fit says so."""
    model, x = dense(), torch.randn(6, 6)
    assert modhook.inspect(model, x, samples=3).route == "vmap"

    def loss(net: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        found = net(batch).square().mean()
        return found * (1 if found.item() < 1e9 else 2)

    fit = modhook.fit_masks(model, [x], loss, samples=3, steps=1, progress=False)
    assert fit.route["route"] == "loop"
    assert fit.route["reason"]
