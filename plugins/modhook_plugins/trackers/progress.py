"""Progress for people: a bar with stage, step/s and time left in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bar,
)
from rich.progress import (
    Task as BarTask,
)
from rich.text import Text

from modhook import Tracker

PLAIN_EVERY = 30.0
"""Seconds between two lines of the same stage where there is no terminal."""


class _Speed(ProgressColumn):
    """Steps per second."""

    def render(self, task: BarTask) -> Text:
        return Text(f"{task.speed:.1f} step/s" if task.speed else "", style="progress.data.speed")


class Progress(Tracker):
    """Shows a study's runs and stages on standard error."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._stage, self._steps = "", 0
        self._runs, self._run = 0, 0
        self._since = self._last = 0.0
        self._first: tuple[int, float] | None = None
        self._shown = ""

    def study_started(self, name: str, runs: int) -> None:
        """Say how many runs there are."""
        self._runs = runs

    def study_progress(self, done: int, failed: int, running: int, runs: int) -> None:
        """Say how far the runs on workers are."""
        bad = f", {failed} failed" if failed else ""
        self.message(f"{done} of {runs} runs done{bad}, {running} running")

    def run_started(self, label: str) -> None:
        """Count the run."""
        self._run += 1
        of = f" ({self._run} of {self._runs})" if self._runs > 1 else ""
        self.message(f"run {label}{of}")

    def stage_started(self, stage: str, steps: int) -> None:
        """Start a bar."""
        self._end_bar()
        self._stage, self._steps, self._shown = stage, steps, ""
        self._since = self._last = self.now()
        self._first = None
        if self.console.is_terminal and steps:
            self._bar = Bar(
                TextColumn("{task.description:<10}"),
                BarColumn(),
                MofNCompleteColumn(),
                _Speed(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[values]}"),
                console=self.console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("training" if stage == "unmasked" else stage, total=steps, values="")

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Move the bar, or print a line now and then."""
        if values:
            self._shown = ", ".join(_said(k, v) for k, v in values.items() if k != "step")
        if self._bar is not None:
            assert self._task is not None
            self._bar.update(self._task, completed=step, values=self._shown)
            return
        now = self.now()
        if self._first is None:
            # A continued stage does not begin at 1; before a first step weights are ranked, and programs compiled.
            self._first = step, now
        if now - self._last >= PLAIN_EVERY and not self.console.is_terminal:
            self._last = now
            first, began = self._first
            said = f"  {self._stage}: step {step} of {self._steps}"
            if step > first and now > began:
                speed = (step - first) / (now - began)
                said += f", {speed:.1f} step/s, {_duration((self._steps - step) / speed)} left"
            self.message("; ".join(filter(None, (said, self._shown))))

    def stage_finished(self, stage: str, scores: Mapping[str, float]) -> None:
        """Say the scores."""
        self._end_bar()
        shown = ", ".join(
            f"{name.partition('/')[2]} {100 * v:.1f} %" for name, v in scores.items() if name.startswith("accuracy/")
        )
        self.message(f"  {stage}: {shown or 'done'} ({_duration(self.now() - self._since)})")

    def message(self, text: str) -> None:
        """Print a line."""
        self.console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        """Remove the bar."""
        self._end_bar()

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _said(name: str, value: float) -> str:
    if name == "density":
        return f"weights kept {100 * value:.4g} %"
    return f"{'logits that changed side' if name == 'changed' else name.replace('_', ' ')} {value:.4g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
