"""Random numbers of the mask samples: one generator per sample.

Sample k's numbers depend on (run seed, stage, k) alone and not on K, on threads or on which process draws them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
from torch import Tensor

from modhook.seeding import derive

# Below this many numbers per sample, handing work to another thread costs more than drawing them.
_PARALLEL_FROM = 1 << 14


def generators(seed: int, label: str, samples: int, device: torch.device | str = "cpu") -> list[torch.Generator]:
    """Return one generator per sample k, seeded from (seed, label, k)."""
    return [torch.Generator(device).manual_seed(derive(seed, label, "mask noise", k)) for k in range(samples)]


def uniform(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Return numbers in [0, 1): (K, *like.shape), row k from generator k, of `like`'s dtype and device.

    On CPU torch draws with one thread, so the rows are filled side by side.
    """
    out = torch.empty((len(generators), *like.shape), dtype=like.dtype, device=like.device)
    threads = min(len(generators), torch.get_num_threads())
    if like.device.type == "cpu" and threads > 1 and like.numel() >= _PARALLEL_FROM:
        list(_pool(threads).map(lambda pair: pair[0].uniform_(generator=pair[1]), zip(out, generators, strict=True)))
    else:
        for row, generator in zip(out, generators, strict=True):
            row.uniform_(generator=generator)
    return out


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="modhook-noise")
