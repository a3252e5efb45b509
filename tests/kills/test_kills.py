"""Real runs, killed with SIGKILL at random moments and continued, end in the bit-identical cube. `nox -s kills`."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest
from kill_harness import PHASES, Victim, differences, leftovers, uninterrupted
from small_study import small_scan, small_study

SWEEP = small_study(
    "killed",
    train_steps=8,
    train="validate_every = 3",
    steps=6,
    masks="validate_every = 4",
    more="""[sweep]
"masks.beta" = [1e-4, 1e-2]
[run]
threads = 1""",
)
TRANSFER = """
[study]
name = "killed"
protocol = "transfer"
[task]
name = "addmul"
train_size = 400
valid_size = 60
[model]
name = "fnn"
hidden = [9, 7]
init = "xavier"
[train]
batch = 16
validate_every = 0
[masks]
steps = 10
samples = 4
lr = 0.8
exclude = []
[protocol]
new_init = -1.0
[analyses]
sharing = {}
[run]
threads = 1
"""
SCAN = small_scan("killed", train_steps=14, steps=14, more="""[analyses]
sharing = {}
[run]
threads = 1""")
DELAYED = """
[study]
name = "killed"
[task]
name = "double_addition"
train_size = 400
valid_size = 60
tuple2_delay = 7
[model]
name = "lstm"
hidden = 6
[train]
steps = 14
batch = 16
[masks]
steps = 8
samples = 2
lr = 0.8
[run]
threads = 1
"""
# Kills per study, and seconds between checkpoints: after every step, and so that steps are lost.
STUDIES = {
    "sweep": (SWEEP, 20, 0.0),
    "delayed": (DELAYED, 10, 0.1),
    "transfer": (TRANSFER, 16, 0.0),
    "scan": (SCAN, 8, 0.2),
}
SHARE = float(os.environ.get("MODHOOK_KILLS", "1"))
"""Multiplies the number of kills."""
hits: dict[str, Counter[str]] = {}


@pytest.mark.parametrize("name", STUDIES)
def test_killed_and_continued(name: str, tmp_path: Path) -> None:
    """However often and wherever it is killed, a study ends in the cube of a run that was not, byte for byte."""
    text, kills, every = STUDIES[name]
    file = tmp_path / "killed.toml"
    file.write_text(text)
    uninterrupted(file, tmp_path / "whole", every)
    rng = random.Random(f"{name} {os.environ.get('MODHOOK_KILLS_SEED', '0')}")
    killed: Counter[str] = Counter()
    rounds = 0
    while sum(killed.values()) < max(2, kills * SHARE):
        rounds += 1
        victim = Victim(file, tmp_path / f"{name}{rounds}", every, 0.01, rng, killed)
        targets = ["cube creation"] * (rounds % 2)
        while len(targets) < max(2, kills * SHARE):
            targets.append(rng.choice([p for p in PHASES if p != "cube creation"]))
        # Not more kills than asked for, and then to the end.
        left = max(0, max(2, round(kills * SHARE)) - sum(killed.values()))
        ended = any(victim.run(t) == 0 for t in targets[:left])
        assert ended or victim.run(None) == 0
        assert differences(victim.out / "killed.zarr", tmp_path / "whole/killed.zarr") == []
        assert leftovers(victim.out) == []
    hits[name] = killed
    print(f"\n{name}: {sum(killed.values())} kills in {rounds} rounds: " + _said(killed))


def test_kills_landed_everywhere() -> None:
    """The kills above hit every phase of a run's life, also the middle of a checkpoint's and of a cube's writing."""
    total = sum(hits.values(), Counter())
    print(f"\nall: {sum(total.values())} kills: " + _said(total))
    assert set(PHASES) - set(total) == set()
    assert sum(total.values()) >= 50 * SHARE


def _said(killed: Counter[str]) -> str:
    return ", ".join(f"{killed[p]} {p}" for p in PHASES)
