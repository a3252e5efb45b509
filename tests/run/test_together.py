"""Runs whose masks are learned together: the cube of one by one, also after a failure and after a kill."""

from __future__ import annotations

import itertools
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "kills"))

from kill_harness import Victim, differences, leftovers

from modhook.errors import UserError
from modhook.fit import joint
from modhook.plugin.interfaces import Tracker
from modhook.plugin.manager import plugins
from modhook.run import together as module
from modhook.run.data import Draw
from modhook.run.together import Turns
from modhook.run.trackers import Trackers
from modhook.study import load
from modhook_tasks.addmul import AddMul, AddMulOptions


class Remembers(AddMul):
    """A task whose batches depend on what it gave before."""

    def state_dict(self) -> dict[str, Any]:
        """Return it."""
        return {"given": 1}


ADDMUL = AddMul(AddMulOptions())
RunStudy = Callable[..., tuple[int, str, str]]


@pytest.fixture
def three(tiny: Path) -> Path:
    """The study with three seeds that go together, and masks that are learned for ten steps."""
    text = tiny.read_text().replace("seeds = 2", "seeds = 3").replace("steps = 5", "steps = 10")
    tiny.write_text(f"{text}\n[run]\ntogether = true\n")
    return tiny


def test_a_group_leaves_the_cube_of_one_by_one_though_a_run_fails(
    three: Path, tmp_path: Path, modhook_run: RunStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three seeds together, of which one gets numbers that are not finite: bytes, reasons and lines are those of one by one."""
    real, drawn, at_once = Draw.__init__, Draw.__next__, []

    def known(self: Draw, task: Any, stage: str | None, size: int, seed: int, device: Any) -> None:
        real(self, task, stage, size, seed, device)
        self.fails_at = 6 if (stage, seed) == ("add", 2) else -1  # type: ignore[attr-defined]

    def failing(self: Draw) -> Any:
        self.fails_at -= 1  # type: ignore[attr-defined]
        batch = drawn(self)
        return {**batch, "inputs": batch["inputs"] * torch.nan} if self.fails_at == 0 else batch  # type: ignore[attr-defined]

    stacked = joint.Joint._at_once
    monkeypatch.setattr(Draw, "__init__", known)
    monkeypatch.setattr(Draw, "__next__", failing)
    monkeypatch.setattr(joint.Joint, "_at_once", lambda *a: at_once.append(len(a[2])) or stacked(*a))
    code, one_by_one, _ = modhook_run("run", three, "--out", tmp_path / "alone", "--set", "run.together=false")
    assert (code, at_once) == (1, [])
    code, together, told = modhook_run("run", three, "--out", tmp_path / "together")
    assert code == 1
    assert "3 runs together: seed=1, seed=2, seed=3" in told
    # control: a step without a route, the trial, 8 at once; add: 4 - 1 before the failure, a trial of two, then these; mul: two.
    assert at_once.count(3) == 8 + 4
    assert at_once.count(2) == 3 + 8
    assert differences(tmp_path / "alone/tiny.zarr", tmp_path / "together/tiny.zarr") == ["zarr.json"]  # the setting
    assert one_by_one.replace("/alone/", "/together/") == together
    assert "the loss is nan at step 6" in one_by_one + told


def test_killed_together_and_continued(three: Path, tmp_path: Path, modhook_run: RunStudy) -> None:
    """SIGKILL in the middle of the mask steps of a group, and the same command again: the bytes of a run that was not killed."""
    assert modhook_run("run", three, "--out", tmp_path / "whole", "--checkpoint-every", "0")[0] == 0
    victim = Victim(three, tmp_path / "cut", every=0, slow=0.02, rng=random.Random(1))
    assert victim.run("mask stage") == -signal.SIGKILL
    assert victim.run(None) == 0
    assert "continues from its checkpoint" in victim.errors
    assert "runs together" in victim.errors
    assert differences(victim.out / "tiny.zarr", tmp_path / "whole/tiny.zarr") == []
    assert leftovers(victim.out) == []


def test_bad_values_and_the_rule(three: Path) -> None:
    """A value that is none is refused in one sentence; `auto` counts weights, batch and what the study asks for, and no clock."""
    for value, text in (("0", "must be at least 1, not 0"), ('"yes"', '"yes" is none of'), ("2.5", "2.5 is none of")):
        with pytest.raises(UserError, match=rf"run\.together.*{text}"):
            load(three, None, [f"run.together={value}"], plugins=plugins())
    layout = attrs.make_class("L", ["name", "state", "units"])

    def number(weights: tuple[int, ...], device: str = "cpu", task: Any = ADDMUL, dtype: str = "float32", **settings: str) -> int:
        study = load(three, None, [f"{k.replace('__', '.')}={v}" for k, v in settings.items()], plugins=plugins())
        prepared = attrs.make_class("P", ["points", "layouts", "tasks"])
        point = attrs.make_class("O", ["study"])(study)
        found = prepared([point], [layout("a", {"w": (weights, dtype), "n": ((10**9,), "int64")}, ())], [task])
        work = attrs.make_class("W", ["prepared", "device"])(found, torch.device(device))
        return module.at_once(work, attrs.make_class("R", ["index"])(0))  # type: ignore[arg-type]

    auto = {"run__together": '"auto"', "masks__samples": "4", "masks__batch": "64"}
    assert [number((side, 100), **auto) for side in (100, 325, 326)] == [8, 8, 1]  # 4 x 32,500 is the bound
    assert number((100, 100), **{**auto, "masks__samples": "16"}) == 1
    assert number((10, 10, 3, 3), **auto) == 1
    assert [number((500, 500), dtype=dtype, **auto) for dtype in ("bfloat16", "float16", "float64", "complex64")] == [1] * 4
    assert number((10, 10), device="cuda", **auto) == 1
    assert [number((9, 9), run__together=text) for text in ("false", "1", "3", "true")] == [1, 1, 3, 8]
    assert number((600, 600), run__together="true") == 8
    assert number((9, 9), **{**auto, "masks__batch": "1024"}) == 1
    assert number((9, 9), task=Remembers(AddMulOptions()), run__together="true") == 1
    assert number((9, 9), masks__mode='"train"', **auto) == 1


@pytest.mark.parametrize(("seeds", "together", "groups"), [(8, "auto", [8]), (11, "auto", [8]), (7, "auto", []), (7, True, [7])])
def test_auto_takes_as_many_as_pay_or_none(seeds: int, together: Any, groups: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer runs than `auto` wants go one by one: waiting for each other costs more than it saves; a number that was given is taken."""
    formed: list[int] = []
    done: list[int] = []

    def one(work: Any, run: Any) -> Any:
        done.append(run.index)
        return run

    def group(work: Any, runs: Any) -> Any:
        formed.append(len(runs))
        return [one(work, run) for run in runs]

    for name, fake in {
        "missing": lambda work, run: True,
        "at_once": lambda work, run: 8,
        "_same_network": lambda *a: True,
        "compute_run": one,
        "_computed": group,
    }.items():
        monkeypatch.setattr(module, name, fake)
    run = SimpleNamespace(index=0)
    study = SimpleNamespace(run=SimpleNamespace(together=together))
    work: Any = SimpleNamespace(prepared=SimpleNamespace(points=[SimpleNamespace(study=study)]))
    assert len(list(module.in_turn(work, [run] * seeds))) == seeds  # type: ignore[list-item]
    assert (formed, len(done)) == (groups, seeds)


def test_trackers_hear_one_run_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run is told as it goes, the next when it has ended, from its beginning and as of when it happened.

    Of empty steps the latest is kept.
    """

    class Heard(Tracker):
        def __init__(self) -> None:
            self.events: list[Any] = []
            self.times: list[float] = []

        def run_started(self, label: str) -> None:
            self.events.append(label)

        def step(self, step: int, values: Any) -> None:
            self.events.append((step, dict(values)))
            self.times.append(self.now())

        def run_finished(self, label: str) -> None:
            self.events.append(f"end {label}")

    heard = Heard()
    clock = itertools.count(100.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    turns = Turns(heard, 3)
    runs = [turns.of(i) for i in range(3)]
    for name, run in zip("abc", runs, strict=True):
        run.run_started(name)
        for step in (1, 2, 3):
            run.step(step, {"loss": 1.0} if step == 2 else {})
    assert heard.events == ["a", (1, {}), (2, {"loss": 1.0}), (3, {})]
    runs[1].run_finished("b")
    turns.ended(1)
    runs[0].run_finished("a")
    turns.ended(0)
    rest = ["end a", "b", (2, {"loss": 1.0}), (3, {}), "end b", "c", (2, {"loss": 1.0}), (3, {})]
    assert heard.events[4:] == rest
    runs[2].run_finished("c")
    turns.ended(2)
    assert heard.events[-1] == "end c"
    # The clock was asked three times by the first run's steps, four times each by the others' events, twice at the end of b.
    assert heard.times == [100, 101, 102, 105, 106, 109, 110]


def test_trackers_that_tell_runs_apart_hear_all_at_once() -> None:
    """Of these each run has one of its own, told where the cube is and of that run, as it goes; one that fails is named once."""
    made: list[Any] = []

    class Apart(Tracker):
        apart = True

        def __init__(self) -> None:
            self.events: list[Any] = []
            made.append(self)

        def place(self, cube: str) -> None:
            self.events.append(cube)

        def run_started(self, label: str) -> None:
            self.events.append(label)

        def close(self) -> None:
            self.events.append("closed")

    class Fails(Tracker):
        apart = True

        def run_started(self, label: str) -> None:
            raise OSError("no space")

    class InTurn(Tracker):
        def __init__(self) -> None:
            self.events: list[Any] = []

        def run_started(self, label: str) -> None:
            self.events.append(label)

        def message(self, text: str) -> None:
            self.events.append(text)

    every = Trackers({"in turn": (heard := InTurn()), "apart": Apart(), "fails": Fails()})
    every.place("here.zarr")
    rest, own = every.divided(2)
    for one in own:
        one.run_started(f"run {own.index(one)}")
    rest.run_started("run 0")
    for one in own:
        one.close()
    assert [one.events for one in made] == [["here.zarr"], *(["here.zarr", f"run {i}", "closed"] for i in range(2))]
    text = "the tracker 'fails' failed (OSError: no space) and is left out from here on"
    assert heard.events == [text, "run 0"]
    assert every.failures == [f"{text}; the cube has everything."]
