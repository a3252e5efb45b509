"""What a fit measures of its deterministic mask on the way, against plain loops; measuring changes nothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from modhook import Masks, UserError, fit_masks
from modhook.fit import engine
from modhook.fit.engine import MaskTrainer
from modhook.fit.plainly import MEASURE_EVERY, SHORT


def loss(net: Any, batch: Any) -> Tensor:
    """Squared error, of which the square root is taken: the loss of a batch is not the mean of its halves' losses."""
    return F.mse_loss(net(batch[0]), batch[1]).sqrt()


def network(dropout: float = 0.0) -> nn.Module:
    """Two layers in float64."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Dropout(dropout), nn.Tanh(), nn.Linear(6, 2)).double()


def data(count: int, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Random batches of 8 items."""
    g = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(8, 4, generator=g, dtype=torch.float64),
            torch.randn(8, 2, generator=g, dtype=torch.float64),
        )
        for _ in range(count)
    ]


def plainly(net: nn.Module, masks: Mapping[str, Tensor], batch: tuple[Tensor, Tensor], samples: int) -> float:
    """The mean loss of equal parts of a batch on a copy whose weights are multiplied by masks."""
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for name, mask in masks.items():
            twin.get_parameter(name).mul_(mask)
        parts = zip(batch[0].chunk(samples), batch[1].chunk(samples), strict=True)
        return sum(float(loss(twin, part)) for part in parts) / samples


@pytest.mark.parametrize("held", [False, True])
def test_the_loss_of_the_deterministic_mask(held: bool) -> None:
    """It is that of a copy under the mask before the step, fixed masks included, on the step's batch or the first held-out one."""
    net, batches, valid = network().eval(), data(3), data(2, seed=2)
    fixed = Masks({"3.weight": torch.rand(2, 6) < 0.7})
    steps, before = 2 * MEASURE_EVERY + 7, {}

    def after(step: int, trainer: MaskTrainer) -> None:
        before[step + 1] = trainer.masks()

    fit = fit_masks(
        net,
        batches,
        loss,
        samples=2,
        steps=steps,
        lr=0.1,
        init=0.5,
        fixed=fixed,
        callback=after,
        progress=False,
        valid=valid if held else None,
    )
    for step in (MEASURE_EVERY, 2 * MEASURE_EVERY, steps):
        row, batch = fit.history.sel(step=step), valid[0] if held else batches[(step - 1) % 3]
        expected = plainly(net, {**before[step], **fixed}, batch, 2)
        assert float(row["mask_loss"]) == pytest.approx(expected, abs=1e-12)
        assert float(row["unmasked_loss"]) == pytest.approx(plainly(net, {}, batch, 2), abs=1e-12)
    assert int(np.isfinite(fit.history["mask_loss"]).sum()) == 3
    short = fit_masks(net, batches, loss, samples=2, steps=SHORT - 1, progress=False)
    assert np.isfinite(short.history["mask_loss"]).sum() == 1
    assert short.history["unmasked_loss"].isnull().all()


def test_how_many_logits_changed_side() -> None:
    """Rows count the signs that differ from those of the row before, and the first row from those at the start."""
    net, signs = network().eval(), []
    start = {n: torch.randn_like(net.get_parameter(n)) / 4 for n in ("0.weight", "3.weight")}

    def sign(logits: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([logits[n].detach().flatten() >= 0 for n in start])

    signs = [sign(start)]
    fit = fit_masks(
        net,
        data(3),
        loss,
        samples=2,
        steps=401,
        lr=0.02,
        beta=0.05,
        init=start,
        callback=lambda step, trainer: signs.append(sign(trainer.logits)),
        progress=False,
    )
    rows = [int(s) for s in fit.history["step"].values]
    assert rows[:2] + rows[-2:] == [3, 6, 399, 401]
    expected = [int((signs[a] != signs[b]).sum()) for a, b in zip([0, *rows], rows, strict=False)]
    assert fit.history["changed"].values.tolist() == expected
    assert sum(expected) > 10


def test_measuring_changes_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout and shuffled held-out batches, the masks and the random numbers afterwards are those without measuring."""

    def fitted(**options: Any) -> tuple[dict[str, Tensor], Tensor]:
        torch.manual_seed(7)
        fit = fit_masks(network(0.5).train(), data(3), loss, sampler="gumbel", samples=2, steps=130, lr=0.1, progress=False, **options)
        return fit.logits, torch.rand(3)

    held = DataLoader(TensorDataset(*data(1)[0]), batch_size=4, shuffle=True)
    found = [fitted(), fitted(valid=held), fitted(valid=iter(data(1)))]
    monkeypatch.setattr(engine, "measures", lambda number, steps: False)
    logits, drawn = fitted()
    for other, numbers in found:
        assert all(torch.equal(other[n], logits[n]) for n in logits)
        assert torch.equal(numbers, drawn)


def test_a_network_that_fails_under_its_mask() -> None:
    """A loss that only the deterministic mask breaks leaves NaN in the history; the fit goes on."""
    net = nn.Linear(4, 2).double()

    def picky(m: Any, batch: Any) -> Tensor:
        out = m(batch[0])
        if not bool((out - net.bias).any()):
            raise ArithmeticError("nothing is left")
        return F.mse_loss(out, batch[1])

    fit = fit_masks(net, data(1), picky, samples=2, steps=30, init=-0.3, executor="loop", progress=False)
    assert fit.steps == 30
    assert math.isnan(float(fit.history["mask_loss"][-1]))
    assert np.isfinite(float(fit.history["unmasked_loss"][-1]))


@pytest.mark.parametrize(
    ("valid", "said"),
    [
        ([], "valid holds no batch"),
        ([(torch.ones(1, 4), torch.ones(1, 2))], "first batch of valid has 1 items, but is measured in 2 groups"),
        (3, "valid must be"),
    ],
)
def test_held_out_batches_that_cannot_be_used(valid: Any, said: str) -> None:
    """No batch, one of fewer items than mask samples, and what is no iterable are refused before anything runs."""
    with pytest.raises(UserError, match=said):
        fit_masks(network(), data(1), loss, samples=2, steps=1, valid=valid, progress=False)
