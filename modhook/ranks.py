"""The K samples of one fit spread over the ranks of an initialised torch.distributed process group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist

from modhook.errors import RunError


def spread() -> bool:
    """Return whether this process is one of several ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def share(samples: int) -> range:
    """Return this rank's samples, consecutive and as even as possible; none on some ranks if K is less than the ranks."""
    if not spread():
        return range(samples)
    rank, size = dist.get_rank(), dist.get_world_size()
    return range(samples * rank // size, samples * (rank + 1) // size)


def agree(error: Exception | None, device: torch.device) -> None:
    """Raise `error` on the ranks that have one and `RunError` on the others, so that none waits for a rank that stopped."""
    if spread():
        failed = torch.tensor([error is not None], dtype=torch.float32, device=device)
        dist.all_reduce(failed)
        if error is None and failed.item():
            raise RunError("another rank stopped with an error, so this one stops too; its own message says why.")
    if error is not None:
        raise error


def add_up(learned: Sequence[Tensor], loss: float) -> float:
    """Sum the gradients of `learned` over the ranks, in place, and return the sum of `loss`."""
    if not spread():
        return loss
    for tensor in learned:
        if tensor.grad is None:
            tensor.grad = torch.zeros_like(tensor)
        dist.all_reduce(tensor.grad)
    total = torch.tensor([loss], dtype=torch.float64, device=learned[0].device)
    dist.all_reduce(total)
    return float(total.item())
