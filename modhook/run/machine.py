"""When stages are computed and on what: the processor, never the machine's name or a path."""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modhook.cube import Cube


def write_timing(cube: Cube, run: Mapping[str, Any], stage: str, seconds: float, device: torch.device | str) -> None:
    """Write how long a stage took, when it ended, and on which processor; cubes of older versions have no place for the latter two."""
    cube.write("timing/seconds", np.float64(seconds), run, stage=stage)
    for what, text in (("ended", now()), ("processor", processor(device))):
        if f"timing/{what}" in cube.variables:
            cube.write(f"timing/{what}", text, run, stage=stage)


def processor(device: torch.device | str) -> str:
    """Return the processor that computes on a device: `AMD EPYC 9R14, 4 threads`, `NVIDIA H100 80GB HBM3`."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    name = _cpu() if device.type == "cpu" else f"{_cpu()} ({device.type})"
    return f"{name}, {threads} thread{'s' if threads != 1 else ''}"


def now() -> str:
    """Return the time, UTC, as `2026-01-31T23:59:59Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@functools.cache
def _cpu() -> str:
    """Return the name of the machine's processor, as it says it itself; its architecture where it says nothing."""
    found = ""
    try:
        if sys.platform == "linux":
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
            found = next((line.partition(":")[2] for line in lines if line.startswith(("model name", "Model"))), "")
        elif sys.platform == "darwin":
            asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            found = subprocess.run(asked, capture_output=True, text=True, timeout=5, check=False).stdout  # noqa: S603 - a fixed command
    except (OSError, subprocess.SubprocessError):  # a report without a name is better than a run without its result
        found = ""
    return " ".join((found or platform.processor() or platform.machine() or "unknown").split())
