"""Workers on this machine, which live as long as the process that started them."""

from __future__ import annotations

from typing import Any

import dask
import torch
from distributed import Nanny, Scheduler, SpecCluster

from modhook.launch.worker import quiet

_SILENT = {"DASK_LOGGING__DISTRIBUTED": "critical"}
"""For what a new worker logs before its preload can silence it."""


def local_cluster(number: int, threads: int, device: torch.device) -> SpecCluster:
    """Start workers, each a process of its own; dask restarts one that dies.

    They end with this process, also if it is killed: each watches a pipe to it.
    """
    quiet()
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    # dask's own default also slows the allocator down, which costs mask training dearly.
    with dask.config.set({"distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": threads, **_SILENT}}):
        return SpecCluster(
            scheduler={
                "cls": Scheduler,
                "options": {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": ":0"},
            },
            workers={i: {"cls": Nanny, "options": worker_options(i, device, gpus)} for i in range(number)},
            silence_logs=False,
        )


def worker_options(number: int, device: torch.device, gpus: int) -> dict[str, Any]:
    """Return how worker `number` is started. On several GPUs each sees one of them, unless the study names one."""
    options: dict[str, Any] = {
        "nthreads": 1,
        "memory_limit": 0,  # dask knows nothing of tensors; it would restart a worker that is well
        "dashboard": False,
        "preload": ["modhook.launch.worker"],
        "resources": {"GPU": 1} if device.type == "cuda" else {},
    }
    if str(device) == "cuda" and gpus:
        options["env"] = {"CUDA_VISIBLE_DEVICES": str(number % gpus)}
    return options
