"""One run on several devices: `torchrun --nproc-per-node N -m modhook run ...`.

Every rank does the same work, but each runs its own part of the K mask samples; the first rank alone writes and speaks.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Iterator

import torch
from torch import distributed as dist

from modhook.errors import UserError
from modhook.steps.ranks import rank

_LAST_WORDS = 2.0
"""Seconds: torchrun ends all ranks as soon as one ends badly, and the first is to say why."""


@contextlib.contextmanager
def joined(several: bool, device: str, executor: str) -> Iterator[None]:
    """Within it, this process is a rank of its group: gloo on CPU, NCCL on GPUs. With `several` False nothing happens.

    Raises `UserError` for a study that ranks cannot share.
    """
    if not several:
        yield
        return
    kind, _, number = device.partition(":")
    if number:
        raise UserError(f"device {device!r} names one device, but each rank needs its own: use {kind!r}.")
    if executor == "fastest":
        raise UserError("masks.executor = 'fastest' measures, and ranks could measure differently; use 'auto'.")
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # Its functions have the default group of the moment of import as their default. torch imports it late, and so they would keep the group
    # beyond its destruction: a thread of gloo that drops a tensor while the interpreter ends aborts the rank.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield
    except BaseException:
        if rank():
            time.sleep(_LAST_WORDS)
        raise
    finally:
        dist.destroy_process_group()
