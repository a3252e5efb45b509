"""Real processes that are killed or interrupted; `nox -s kills` does it more than fifty times."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "kills"))

from kill_harness import Victim, differences, leftovers

Run = Callable[..., tuple[int, str, str]]


def test_killed_while_writing_and_interrupted(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """SIGKILL in the middle of a cube's and of a checkpoint's write, then Ctrl-C: exit 130, and the same cube in the end."""
    tiny.write_text(tiny.read_text().replace("seeds = 2", "seeds = 1"))
    assert modhook_run("run", tiny, "--out", tmp_path / "whole", "--checkpoint-every", "0")[0] == 0
    victim = Victim(tiny, tmp_path / "cut", every=0, slow=0.02, rng=random.Random(4))
    assert victim.run("checkpoint write") == -signal.SIGKILL
    assert victim.run("cube write") == -signal.SIGKILL
    assert victim.run("mask stage", signal.SIGINT) == 130
    assert "the latest checkpoint are kept, and the same command continues" in victim.errors
    assert victim.run(None) == 0
    assert "continues" in victim.errors
    assert differences(victim.out / "tiny.zarr", tmp_path / "whole/tiny.zarr") == []
    assert leftovers(victim.out) == []
