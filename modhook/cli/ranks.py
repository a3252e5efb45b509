"""Which of several processes that torchrun started speaks; looked at without importing torch."""

from __future__ import annotations

import os


def several() -> bool:
    """Return whether this process is one of several that torchrun, or what sets the same variables, has started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def speaks() -> bool:
    """Return whether this process is the one that prints: the first."""
    return not several() or os.environ["RANK"] == "0"
