"""Random numbers of the mask samples: one generator per sample.

Sample k's numbers depend on (run seed, stage, k) alone and not on K, on threads or on which process draws them.

torch draws on CPU with one thread and one number at a time. For float32 on CPU the generator gives only a key, and the
numbers are those of a counter-based generator under that key: drawn side by side, several per instruction.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from modhook.seeding import derive

# Below this many numbers, handing work to another thread costs more than drawing them.
_PARALLEL_FROM = 1 << 17


def generators(seed: int, label: str, samples: int, device: torch.device | str = "cpu") -> list[torch.Generator]:
    """Return one generator per sample k, seeded from (seed, label, k)."""
    return [torch.Generator(device).manual_seed(derive(seed, label, "mask noise", k)) for k in range(samples)]


def uniform(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Return numbers in [0, 1): (K, *like.shape), row k from generator k, of `like`'s dtype and device."""
    out = torch.empty((len(generators), *like.shape), dtype=like.dtype, device=like.device)
    if not counted(like):
        for row, generator in zip(out, generators, strict=True):
            row.uniform_(generator=generator)
        return out
    from modhook.kernels import fill

    drawn, rows = keys(generators), out.view(len(generators), -1).numpy()  # (K, 2), (K, N)
    in_blocks(like.numel(), len(drawn), lambda first, last: fill(drawn, first, last, rows))
    return out


def counted(like: Tensor) -> bool:
    """Return whether a tensor's noise comes from the counter-based generator: float32 on CPU."""
    return like.device.type == "cpu" and like.dtype == torch.float32


def keys(generators: Sequence[torch.Generator]) -> npt.NDArray[np.uint32]:
    """Draw the keys of one tensor's streams: (K, 2)."""
    drawn = torch.empty(len(generators), dtype=torch.int64)  # (K,)
    for row, generator in zip(drawn, generators, strict=True):
        row.random_(-(2**63), None, generator=generator)  # all 64 bits
    return drawn.numpy().view(np.uint32).reshape(-1, 2)


def in_blocks(numel: int, samples: int, work: Callable[[int, int], None]) -> None:
    """Call `work(first, last)` for ranges of blocks that together cover `numel` numbers, on as many threads as torch uses."""
    from modhook.kernels import BLOCK

    blocks = -(-numel // BLOCK)
    threads = min(torch.get_num_threads(), blocks) if numel * samples >= _PARALLEL_FROM else 1
    if threads <= 1:
        work(0, blocks)
        return
    edges = [blocks * i // threads for i in range(threads + 1)]
    list(_pool(threads).map(work, edges[:-1], edges[1:]))


@cache
def _openmp() -> Callable[[int], int] | None:
    """Return OpenMP's `omp_pause_resource_all`, where torch is built with one that has it."""
    if not torch.backends.openmp.is_available():
        return None
    try:
        library = ctypes.CDLL(str(next((Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"))))
        return cast(Callable[[int], int], library.omp_pause_resource_all)
    except (OSError, AttributeError, StopIteration):
        return None


def _let_go() -> None:
    """End torch's idle threads, which wait busily for some milliseconds after each operation and hold the cores."""
    if (pause := _openmp()) is not None:
        pause(1)  # "soft": the next operation starts them again


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="modhook-noise")
