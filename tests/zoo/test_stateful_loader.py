"""torchdata's StatefulDataLoader as the batches of a fit: a fit that is stopped goes on at the batch where it stood."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import modhook

pytestmark = [
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),  # of torchdata itself
    pytest.mark.filterwarnings("ignore::modhook.errors.ModhookWarning"),
]
stateful = pytest.importorskip("torchdata.stateful_dataloader")


class Stopped(BaseException):
    """Ends a fit as a kill would."""


def loader(workers: int, seed: int = 5) -> Iterable[Any]:
    """Five batches of eight, in another order in every pass; torchdata draws where its orders begin when it is made."""
    inputs = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    data = TensorDataset(inputs, (inputs[:, 0] > 0).long())
    torch.manual_seed(seed)
    return stateful.StatefulDataLoader(data, batch_size=8, shuffle=True, num_workers=workers)  # type: ignore[no-any-return]


def fit(batches: Iterable[Any], **options: Any) -> dict[str, torch.Tensor]:
    """Learn masks in 17 steps, more than three passes."""
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)).eval()

    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))

    def loss(model: Any, batch: Any) -> torch.Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    found = modhook.fit_masks(net, batches, loss, samples=2, steps=17, lr=0.3, progress=False, **options)
    return dict(found.logits)


@pytest.mark.parametrize(("workers", "at"), [(0, 3), (0, 5), (0, 12), (1, 7)])
def test_a_fit_goes_on_at_its_batch(workers: int, at: int, tmp_path: Path) -> None:
    """Within a pass, at its end and in a later one, with and without worker processes: logits are those of a fit that never stopped."""
    whole = fit(loader(workers))

    def stop(step: int, trainer: Any) -> None:
        if step == at:
            raise Stopped

    kept = {"checkpoint": tmp_path / "fit.ckpt", "checkpoint_every": 0}
    with pytest.raises(Stopped):
        fit(loader(workers), callback=stop, **kept)
    again = fit(loader(workers, seed=99), **kept)  # another process draws other numbers
    assert all(torch.equal(whole[name], again[name]) for name in whole)
