"""Names that only some versions of torch have are asked for, not taken for granted."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import torch
for name in ("_grouped_mm", "_weight_norm", "histc"):
    if hasattr(torch, name):
        delattr(torch, name)
import modhook
from modhook.stacked.rules import mode
print(modhook.stack(torch.nn.Linear(4, 2), ((torch.randn(3, 4),), {}), samples=2).route)
"""


def test_a_torch_without_private_operations() -> None:
    """The package is imported and stacks a layer where torch lacks operations that came, or may go, with a version."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "vmap"), done.stderr
