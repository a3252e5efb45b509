"""fit_masks with its samples spread over real processes, against one process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.nn import functional as F

from modhook import fit_masks


def loss(net: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Squared error."""
    return F.mse_loss(net(batch[0]), batch[1])


def broken(net: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Fail on rank 1 alone."""
    if dist.get_rank() == 1:
        raise ValueError("broken on purpose")
    return loss(net, batch)


def fitted(function: Any, samples: int, steps: int, **options: Any) -> dict[str, Tensor]:
    """Learn logits of a small network in float64, whose sums hardly depend on their order; SGD shows the gradients."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    batch = (torch.randn(12, 4, dtype=torch.float64), torch.randn(12, 2, dtype=torch.float64))
    fixed = {"lr": 1.0, "optimizer": "sgd", "clip": None, "progress": False}
    fit = fit_masks(model, [batch], function, samples=samples, steps=steps, **{**fixed, **options})
    carried = {} if fit.carried is None else {f"carried {n}": g for n, g in fit.carried.weights.items()}
    measured = torch.tensor([float(fit.history[n][-1]) for n in ("mask_loss", "changed")], dtype=torch.float64)
    return {**fit.logits, **carried, "measured": measured}


def work(rank: int, size: int, folder: str) -> None:
    """One rank: fit with several K, then fail together."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    found = {samples: fitted(loss, samples, 3) for samples in (1, 2, 4, 6)}
    found[0] = fitted(loss, 6, 9, clip=0.05, clip_over="all")
    found[-1] = fitted(loss, 1, 9, clip=0.05, clip_over="all")
    found[-2] = fitted(loss, 6, 3, units="neuron")
    torch.save(found, f"{folder}/{rank}.pt")
    try:
        fitted(broken, 4, 3)
    except Exception as error:
        Path(folder, f"{rank}.txt").write_text(str(error))
    os._exit(0)  # all is written; gloo's threads may abort a process that takes its group down beside others


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_learn_what_one_process_learns(tmp_path: Path, size: int) -> None:
    """Noise and gradients are those of one process, also for K below or no multiple of the ranks; errors end all ranks."""
    mp.spawn(work, (size, str(tmp_path)), nprocs=size)
    for samples in (1, 2, 4, 6):
        expected = fitted(loss, samples, 3)
        for rank in range(size):
            found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)[samples]
            for name, logit in expected.items():
                torch.testing.assert_close(found[name], logit, rtol=0, atol=1e-9)
    units = fitted(loss, 6, 3, units="neuron")
    for rank in range(size):
        for name, tensor in torch.load(tmp_path / f"{rank}.pt", weights_only=True)[-2].items():
            torch.testing.assert_close(tensor, units[name], rtol=0, atol=1e-9)
    for key, samples in ((0, 6), (-1, 1)):  # stored gradients of frozen weights are added up over the ranks once
        expected = fitted(loss, samples, 9, clip=0.05, clip_over="all")
        assert any(name.startswith("carried") for name in expected)
        for rank in range(size):
            found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)[key]
            for name, tensor in expected.items():
                torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-9)
    messages = [(tmp_path / f"{rank}.txt").read_text() for rank in range(size)]
    assert "broken on purpose" in messages[1]
    assert messages[0] == "rank 1 stopped: ValueError: broken on purpose"
