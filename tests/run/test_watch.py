"""Watching: what is seen of runs under way, stopped, failed and done, in a terminal and on the page."""

from __future__ import annotations

import http.client
import io
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from modhook import Tracker, UserError
from modhook.plugin.manager import plugins
from modhook.run import run_study
from modhook.run.live import Live, live_runs
from modhook.study import load
from modhook.watching import Page, Seen, Watcher
from modhook.watching.page import points, rendered
from modhook.watching.state import Curve
from modhook.watching.terminal import shown, sparkline

Run = Callable[..., tuple[int, str, str]]


class Looking(Tracker):
    """Looks at the cube from outside at some steps, and stops the run where it is told to."""

    def __init__(self, cube: Path, *steps: tuple[str, int], stop: tuple[str, int] | None = None) -> None:
        self.watcher, self.seen, self.at, self.stop, self.stage = Watcher(cube), dict[Any, Seen](), "", stop, ""
        self.steps = steps

    def run_started(self, label: str) -> None:
        self.at = label

    def stage_started(self, stage: str, steps: int) -> None:
        self.stage = stage

    def step(self, step: int, values: Any) -> None:
        # Trackers are told in order: the step that is seen is the one before.
        if (self.stage, step) in self.steps:
            self.seen[self.at, self.stage, step] = self.watcher.look()
        if (self.stage, step) == self.stop:
            self.stop = None  # one press
            raise KeyboardInterrupt


def _study(file: Path, together: str = "false") -> Any:
    return load(file, variant=None, overrides=[f"run.together={together}"], plugins=plugins())


def _text(seen: Seen) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(shown(seen))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_a_run_is_seen_while_it_is_computed(tiny: Path, tmp_path: Path) -> None:
    """Runs, stages, steps and curves are those of the moment; in the end nothing is left beside the cube."""
    looking = Looking(tmp_path / "tiny.zarr", ("mul", 4), ("unmasked", 2))
    run_study(_study(tiny), tmp_path, plugins(), looking)
    first = looking.seen["seed=1", "mul", 4]
    assert [(r.label, r.state, r.stage, r.step, r.steps) for r in first.running] == [("seed=1", "running", "mul", 3, 5)]
    assert first.counts == {"done": 0, "running": 1, "stopped": 0, "failed": 0, "waiting": 1}
    assert (first.running[0].done, first.running[0].total) == (3, 4)  # unmasked, control, add
    curves = {c.name: c for c in first.running[0].curves}
    assert curves["loss"].steps == (1, 2, 3)
    assert list(curves)[:2] == ["loss", "weights kept"]
    assert curves["weights kept"].last == f"{100 * curves['weights kept'].values[-1]:.4g} %"
    second = looking.seen["seed=2", "unmasked", 2]
    assert second.summary == "1 of 2 runs done, 1 running"
    assert "seed=2" in _text(second)
    assert "unmasked 1 of 6" in _text(second)
    last = Watcher(tmp_path / "tiny.zarr").look()
    assert last.over
    assert last.summary == "2 of 2 runs done"
    assert not (tmp_path / ".tiny.zarr.live").exists()


def test_runs_together_are_seen_together(tiny: Path, tmp_path: Path) -> None:
    """Each has a file of its own, from its own first step on; a stop ends the steps of all, and leaves what each can continue from."""
    looking = Looking(tmp_path / "tiny.zarr", ("mul", 4), stop=("mul", 5))
    with pytest.raises(KeyboardInterrupt):
        run_study(_study(tiny, "2"), tmp_path, plugins(), looking)
    seen = looking.seen["seed=1", "mul", 4]
    assert [(r.label, r.state, r.stage, r.step) for r in seen.running] == [
        ("seed=1", "running", "mul", 3),
        ("seed=2", "running", "mul", 3),
    ]
    assert Watcher(tmp_path / "tiny.zarr").look().counts["stopped"] == 2
    assert len(list((tmp_path / "tiny.zarr.checkpoints").glob("*mul*"))) == 1  # that of the run that no tracker ended
    run_study(_study(tiny), tmp_path, plugins(), Looking(tmp_path / "tiny.zarr"))
    assert Watcher(tmp_path / "tiny.zarr").look().summary == "2 of 2 runs done"


def test_a_cube_that_is_being_made_is_waited_for(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a run's first moment it is said that its cube will be there; a killed process and an ended one leave no such word."""
    from modhook.run import drive, making

    path, seen = tmp_path / "results" / "tiny.zarr", list[Seen]()

    def looked(*given: Any) -> Any:
        seen.append(Watcher(path).look())
        raise UserError("a mistake in the data")

    monkeypatch.setattr(drive, "load_tasks", looked)
    with pytest.raises(UserError, match="a mistake in the data"):
        run_study(_study(tiny), path.parent, plugins(), Tracker())
    assert (seen[0].making, seen[0].over, seen[0].runs) == (True, False, ())
    assert "its cube is being made" in _text(seen[0])
    assert "its cube is being made" in rendered(seen[0])
    assert not path.parent.exists()
    with pytest.raises(UserError, match="there is no cube at"):
        Watcher(path).look()
    with making.making(path):
        (file,) = (f for f in making._folder().glob(f"{making._name(path)}*"))
        line = json.loads(file.read_text())
        file.write_text(json.dumps({**line, "since": line["since"] - 100}))  # the number of another process now
        with pytest.raises(UserError, match="there is no cube at"):
            Watcher(path).look()


def test_a_stopped_run_is_said_to_be_stopped(tiny: Path, tmp_path: Path) -> None:
    """Ctrl-C and a process that died leave a run that nobody computes; continuing it takes its file over."""
    with pytest.raises(KeyboardInterrupt):
        run_study(_study(tiny), tmp_path, plugins(), Looking(tmp_path / "tiny.zarr", stop=("add", 3)))
    seen = Watcher(tmp_path / "tiny.zarr").look()
    assert seen.counts["stopped"] == 1
    assert seen.summary == "0 of 2 runs done, 1 stopped, 1 waiting; nobody is seen to compute it now"
    assert "stopped, add 2 of 5" in _text(seen)
    (file,) = (tmp_path / ".tiny.zarr.live").iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines.pop().keys() == {"time", "stopped"}
    assert next(live_runs(tmp_path / "tiny.zarr")).stopped
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert next(live_runs(tmp_path / "tiny.zarr")).alive  # the process of this test
    for key, value in (("pid", 2**22 + 1), ("since", 1.0)):  # no such process; another one of that number
        file.write_text("".join(json.dumps(line | ({key: value} if "run" in line else {})) + "\n" for line in lines))
        assert not next(live_runs(tmp_path / "tiny.zarr")).alive
    looking = Looking(tmp_path / "tiny.zarr", ("mul", 2))
    run_study(_study(tiny), tmp_path, plugins(), looking)
    assert looking.seen["seed=1", "mul", 2].running[0].step == 1
    assert not (tmp_path / ".tiny.zarr.live").exists()


def test_what_is_no_line_of_a_run_is_passed_over(tmp_path: Path, made: Path) -> None:
    """Half-written lines, other files and nonsense in the folder neither end watching nor show."""
    live = Live(made / "tiny.zarr")
    live.run_started("seed=1")
    live.stage_started("add", 10)
    live.step(1, {"loss": 2.0, "density": float("nan")})
    (file,) = (made / ".tiny.zarr.live").iterdir()
    with file.open("a") as more:
        more.write('{"time": 1, "step": "x", "values": {}}\n[]\n{"ti')
    (file.parent / "b.jsonl").write_bytes(b"\xff\x00\n{}\n")
    (run,) = live_runs(made / "tiny.zarr")
    assert run.stage is not None
    assert run.stage.rows == [(1, {"loss": 2.0, "density": None})]
    (file.parent / "b.jsonl").unlink()
    live.run_finished("seed=1")
    assert not file.parent.exists()


def test_a_place_that_cannot_be_written_harms_no_run(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """Where the file cannot be made, the study is computed all the same; `--live` says where its page is."""
    (tmp_path / ".tiny.zarr.live").write_text("a file where the folder should be")
    code, _, err = modhook_run("run", tiny, "--out", tmp_path, "--live")
    assert code == 0
    assert "live: http://127.0.0.1:" in err
    assert (tmp_path / ".tiny.zarr.live").read_text() == "a file where the folder should be"


def test_the_page_shows_it_and_answers_this_machine_alone(made: Path, tmp_path: Path) -> None:
    """The page holds runs and curves, labels cannot bring markup into it, and a request under another name is refused."""
    live = Live(made / "tiny.zarr")
    live.run_started("seed=2")
    live.stage_started("<script>alert(1)</script>", 10)
    for step in (1, 2, 3):
        live.step(step, {"loss": 1.0 / step})
    try:
        with Page(Watcher(made / "tiny.zarr")) as page:
            text = urllib.request.urlopen(page.url).read().decode()
            part = urllib.request.urlopen(page.url + "now").read().decode()
            script = urllib.request.urlopen(page.url + "watch.js").read().decode()
            connection = http.client.HTTPConnection("127.0.0.1", page.port)
            connection.request("GET", "/", headers={"Host": "elsewhere.example"})
            refused = connection.getresponse()
            refused.read()
            connection.close()
    finally:
        live.run_finished("seed=2")
    assert refused.status == 403
    assert part in text
    assert "fetch" in script
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; 3 of 10" in text
    assert f'points="{points(Curve("loss", (1, 2, 3), (1.0, 0.5, 1 / 3)))}"' in text


def test_curves_are_drawn_to_scale() -> None:
    """A line runs from its least to its largest value over its steps, and blocks show means of windows."""
    assert points(Curve("loss", (0, 5, 10), (2.0, 1.0, 0.0))) == "2.0,2.0 110.0,24.0 218.0,46.0 218.0,46.0"
    assert sparkline(Curve("loss", tuple(range(8)), tuple(torch.arange(8.0).tolist()))) == "▁▂▃▄▅▆▇█"
    assert sparkline(Curve("loss", tuple(range(32)), (1.0,) * 32)) == "▁" * 16


def test_watch_on_the_command_line(made: Path, tmp_path: Path, modhook_run: Run) -> None:
    """`modhook watch` of a finished cube says so and ends; where there is no cube, one sentence says it."""
    code, out, _ = modhook_run("watch", made / "tiny.zarr")
    assert code == 0
    assert "2 of 2 runs done" in out
    code, _, err = modhook_run("watch", tmp_path / "none.zarr", "--page")
    assert code == 2
    assert "none.zarr" in err
    assert err.count("\n") == 1
