"""How far every run of a cube is: what the cube says, and what runs under way write beside it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence

import attrs
import numpy as np

from modhook.cube import Where, open_cube, place_of
from modhook.errors import printable
from modhook.run.live import LiveRun, live_runs
from modhook.run.making import being_made

QUIET = 120.0
"""Seconds without a sign of life after which it is said how long ago the last one was."""
_SHARE = 50
"""The cube is read again when as many times as the last reading took have passed: watching costs 2 % of a core at most."""


@attrs.frozen
class Curve:
    """One measured value over the steps of a stage."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    percent: bool = False
    """Whether the values are shares, which are said in percent."""

    @property
    def last(self) -> str:
        """The latest value, for people."""
        return self.said(self.values[-1])

    def said(self, value: float) -> str:
        """Write one of its values."""
        return f"{100 * value:.4g} %" if self.percent else f"{value:.4g}"


_WORDS = {"density": "weights kept", "changed": "logits that changed side", "mask_loss": "loss under the mask"}
"""What a value is called where people read it; others by their names in the cube."""


@attrs.frozen
class RunSeen:
    """One run.

    Attributes:
        label: its coordinates, `seed=3, masks.beta=1e-05`.
        state: "done", "failed", "running", "stopped" (begun, and nobody computes it) or "waiting".
        done: how many of its stages are done; total: how many it has.
        stage: the one under way; step, steps: how far it is; speed in steps per second; left: seconds to its end.
        curves: its loss, density and what else is measured, so far.
        silent: seconds since its last sign of life, where that is long.
        reasons: of what failed, a line for each stage.
    """

    label: str
    state: str
    done: int
    total: int
    stage: str = ""
    step: int = 0
    steps: int = 0
    speed: float | None = None
    left: float | None = None
    curves: tuple[Curve, ...] = ()
    silent: float | None = None
    reasons: tuple[str, ...] = ()


@attrs.frozen
class Seen:
    """A study at one moment; `making`: a process is about to make its cube, and nothing else is known."""

    name: str
    path: str
    runs: tuple[RunSeen, ...]
    making: bool = False
    at: float = attrs.field(factory=time.time)

    @property
    def counts(self) -> dict[str, int]:
        """How many runs are in each state."""
        return {
            state: sum(run.state == state for run in self.runs)
            for state in ("done", "running", "stopped", "failed", "waiting")
        }

    @property
    def running(self) -> tuple[RunSeen, ...]:
        """The runs that are under way, and those that were stopped midway."""
        return tuple(run for run in self.runs if run.state in ("running", "stopped"))

    @property
    def failed(self) -> tuple[RunSeen, ...]:
        """The runs in which something failed."""
        return tuple(run for run in self.runs if run.reasons)

    @property
    def over(self) -> bool:
        """Whether nothing is left to wait for."""
        return not self.making and all(run.state in ("done", "failed") for run in self.runs)

    @property
    def summary(self) -> str:
        """The counts in words: `3 of 10 runs done, 2 running`."""
        if self.making:
            return "its cube is being made: data and network are looked at first"
        counts = self.counts
        rest = [f"{n} {state}" for state, n in counts.items() if n and state != "done"]
        idle = "" if self.over or counts["running"] else "; nobody is seen to compute it now"
        return ", ".join([f"{counts['done']} of {len(self.runs)} runs done", *rest]) + idle


@attrs.frozen
class _InCube:
    stages: tuple[str, ...]
    done: tuple[str, ...]
    failed: Mapping[str, str]


class Watcher:
    """Looks at one cube again and again. Raises `CubeError` where there is none, and none is being made."""

    def __init__(self, cube: Where, share: int = _SHARE) -> None:
        self._cube, self._share = cube, share
        self._name = ""
        self._known: dict[str, _InCube] = {}
        self._again = 0.0
        self._before: frozenset[tuple[str, str]] = frozenset()

    def look(self) -> Seen:
        """Return how far the runs are now."""
        if not self._known and not place_of(self._cube).exists() and being_made(self._cube):
            return Seen("", str(self._cube), (), making=True)
        live = {run.label: run for run in live_runs(self._cube)}
        # A run or stage that has ended, or begun, is looked up at once; else the cube is read as often as it is cheap.
        now = frozenset((run.label, run.stage.name if run.stage else "") for run in live.values())
        if time.monotonic() >= self._again or now != self._before:
            self._read()
        self._before = now
        runs = [_seen(label, there, live.get(label)) for label, there in self._known.items()]
        return Seen(printable(self._name), str(self._cube), tuple(runs))

    def _read(self) -> None:
        began = time.monotonic()
        with open_cube(self._cube) as cube:
            runs = cube["runs"].to_dataset()
            status, reason = runs["status"].load(), runs["reason"]
            self._name = str(cube.attrs.get("study", {}).get("study", {}).get("name", ""))
            dims = [str(d) for d in status.dims if d != "stage"]
            stages = [str(s) for s in status["stage"].values]
            known = {}
            for place in itertools.product(*(status[d].values.tolist() for d in dims)):
                where = dict(zip(dims, place, strict=True))
                codes = status.sel(where).values
                failed = [s for s, code in zip(stages, codes, strict=True) if code == 2]
                known[", ".join(f"{k}={v}" for k, v in where.items())] = _InCube(
                    tuple(s for s, code in zip(stages, codes, strict=True) if code >= 0),
                    tuple(s for s, code in zip(stages, codes, strict=True) if code == 1),
                    {s: str(reason.sel({**where, "stage": s}).values) for s in failed},
                )
        self._known = known
        self._again = time.monotonic() + self._share * (time.monotonic() - began)


def _seen(label: str, there: _InCube, live: LiveRun | None) -> RunSeen:
    reasons = tuple(printable(f"{stage}: {why}") for stage, why in there.failed.items())
    done, total = len(there.done), len(there.stages)
    if live is None:
        state = "failed" if reasons else "done" if done == total else "stopped" if done else "waiting"
        return RunSeen(printable(label), state, done, total, reasons=reasons)
    state, silent = "running" if live.alive else "stopped", time.time() - live.last
    seen = RunSeen(printable(label), state, done, total, silent=silent if silent > QUIET else None, reasons=reasons)
    stage = live.stage
    if stage is None:
        return attrs.evolve(seen, stage="starting")
    if stage.finished:
        return attrs.evolve(seen, stage=f"{printable(stage.name)}: measured")
    return attrs.evolve(
        seen,
        stage=printable(stage.name),
        step=stage.step,
        steps=stage.steps,
        speed=stage.speed if state == "running" else None,
        left=stage.left if state == "running" else None,
        curves=tuple(_curves(stage.rows)),
    )


def _curves(rows: Sequence[tuple[int, Mapping[str, float | None]]]) -> Iterable[Curve]:
    """Yield a curve per value, loss and density first; what was not finite is left out."""
    names = dict.fromkeys(name for _, values in rows for name in values)
    first = [n for n in ("loss", "density", "mask_loss") if n in names]
    for name in (*first, *(n for n in names if n not in first)):
        points = [(step, v) for step, values in rows if (v := values.get(name)) is not None and np.isfinite(v)]
        if points:
            said = _WORDS.get(name, printable(name.replace("_", " ")))
            steps, known = zip(*points, strict=True)
            yield Curve(said, steps, known, name == "density")
