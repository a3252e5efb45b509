"""Starts `python -m modhook run`, kills it with SIGKILL in a phase of its life, and compares what is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import attrs

from modhook.cube import open_cube

HERE = Path(__file__).parent
PHASES = (
    "start-up",
    "cube creation",
    "base training",
    "mask stage",
    "measuring and between",
    "checkpoint write",
    "cube write",
    "analysis",
)
LIMIT = 1800.0
"""Seconds that no process may need, on a busy machine too."""


@attrs.define
class Victim:
    """One study that is run, killed and run again in one folder.

    Attributes:
        killed: {phase: number of kills that hit it}; the phase is read after the process is dead.
    """

    study: Path
    out: Path
    every: float
    slow: float
    rng: random.Random
    killed: Counter[str] = attrs.field(factory=Counter)
    errors: str = ""
    """What the latest process wrote to its standard error."""

    def run(self, target: str | None, how: signal.Signals = signal.SIGKILL) -> int:
        """Run the study, and kill it in a phase, `target` if that comes; return the exit code, 0 if it came to its end."""
        phase = self.out.with_name(f"{self.out.name}.phase")
        phase.write_bytes(b" " * 64)
        process = self._start(phase)
        wanted, seen, last = self.rng.randint(1, 12), 0, b""
        entries = 1 if target in ("start-up", "cube creation", "analysis") else wanted
        deadline = time.monotonic() + LIMIT
        while process.poll() is None:
            if time.monotonic() > deadline:
                process.kill()
                raise TimeoutError(f"a process needed more than {LIMIT} s")
            now = phase.read_bytes()
            if now != last:
                last = now
                seen += _name(now) == target
            if target and seen >= entries and _name(now) == target:
                longest = {"start-up": 3.0, "cube creation": 0.3, "analysis": 0.2}.get(target, 1.5 * self.slow)
                time.sleep(self.rng.uniform(0, longest))
                process.send_signal(how)
                break
            time.sleep(0.0005)
        _, self.errors = process.communicate(timeout=LIMIT)
        assert process.returncode in (0, -how, 130), self.errors
        if process.returncode:
            hit = _name(phase.read_bytes()) or "start-up"
            self.killed[hit] += 1
            print(f"{self.out.name}: {how.name} in {hit}", flush=True)
            self._half_finished_cube_opens()
        return process.returncode

    def _start(self, phase: Path) -> subprocess.Popen[str]:
        path = os.pathsep.join([str(HERE / "child"), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {**os.environ, "PYTHONPATH": path, "KILLS_PHASE": str(phase), "KILLS_SLOW": str(self.slow)}
        env["OMP_NUM_THREADS"] = "1"
        command = ["run", str(self.study), "--out", str(self.out), "--checkpoint-every", str(self.every)]
        return subprocess.Popen(
            [sys.executable, "-m", "modhook", *command],
            env=env,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def _half_finished_cube_opens(self) -> None:
        for cube in self.out.glob("*.zarr"):
            with open_cube(cube) as tree:
                assert "status" in tree["runs"]


def uninterrupted(study: Path, out: Path, every: float) -> None:
    """Run a study from beginning to end, with nothing in its way."""
    command = ["run", str(study), "--out", str(out), "--checkpoint-every", str(every)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "modhook", *command], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def differences(a: Path, b: Path) -> list[str]:
    """Return the files of two cubes that are not byte for byte the same, the group `timing` aside."""
    found = [{p.relative_to(c).as_posix(): p.read_bytes() for p in c.rglob("*") if p.is_file()} for c in (a, b)]
    names = {n for files in found for n in files if not n.startswith("timing/")}
    assert len(names) > 50
    return sorted(n for n in names if found[0].get(n) != found[1].get(n))


def leftovers(out: Path) -> list[str]:
    """Return what a finished study should not leave: half-written files, checkpoints."""
    return sorted(str(p.relative_to(out)) for p in out.rglob("*") if "partial" in p.name or "checkpoints" in p.name)


def _name(mark: bytes) -> str:
    return mark.decode().strip().partition(" ")[2]
