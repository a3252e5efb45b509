"""Random numbers of the mask samples: one generator per sample.

Sample k's numbers depend on (run seed, stage, k) alone and not on K, on threads or on which process draws them.

torch draws on CPU with one thread and one number at a time. For float32 on CPU the generator gives only a key, and the
numbers are those of a counter-based generator under that key: drawn side by side, several per instruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from modhook.noise.seeding import derive


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
    from modhook.noise.kernels import fill, run

    run(fill, keys(generators), out.view(len(generators), -1).numpy(), threads=torch.get_num_threads())  # (K, N)
    return out


def skipped(like: Tensor, generators: Sequence[torch.Generator]) -> None:
    """Draw from the generators what `uniform` would, one row at a time, and keep none of it."""
    if counted(like):
        keys(generators)
        return
    for generator in generators:
        torch.empty_like(like).uniform_(generator=generator)


def counted(like: Tensor) -> bool:
    """Return whether a tensor's noise comes from the counter-based generator: float32 on CPU."""
    return like.device.type == "cpu" and like.dtype == torch.float32


def keys(generators: Sequence[torch.Generator]) -> npt.NDArray[np.uint32]:
    """Draw the keys of one tensor's streams: (K, 2)."""
    drawn = torch.empty(len(generators), dtype=torch.int64, device="cpu")  # (K,)
    for row, generator in zip(drawn, generators, strict=True):
        row.random_(-(2**63), None, generator=generator)  # all 64 bits
    return drawn.numpy().view(np.uint32).reshape(-1, 2)


def flat(tensor: Tensor) -> npt.NDArray[Any]:
    """Return a tensor's numbers end to end as kernels take them: (N,)."""
    found: npt.NDArray[Any] = tensor.detach().reshape(-1).contiguous().numpy()
    return found
