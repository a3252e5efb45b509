"""Watching in a terminal; plain lines where there is none."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from modhook.watching.state import Curve, RunSeen, Seen, Watcher

_BLOCKS = "▁▂▃▄▅▆▇█"
_BAR = 20
_SHOWN = 20
"""Runs under way that are shown one by one."""


def watch(watcher: Watcher, *, every: float = 2.0, once: bool = False, console: Console | None = None) -> Seen:
    """Show a study until nothing is left to wait for, or once; return what was seen last.

    Where the output is no terminal, a line is printed whenever the runs' states change, and one every minute.
    """
    console = console or Console()
    seen = watcher.look()
    if once or not console.is_terminal:
        console.print(shown(seen))
        said = time.monotonic()
        while not (once or seen.over):
            time.sleep(every)
            before, seen = seen, watcher.look()
            if (seen.counts, seen.making) != (before.counts, before.making) or time.monotonic() - said >= 60:
                console.print(_line(seen), soft_wrap=True)
                said = time.monotonic()
        return seen
    with Live(shown(seen), console=console, auto_refresh=False) as live:
        while not seen.over:
            time.sleep(every)
            seen = watcher.look()
            live.update(shown(seen), refresh=True)
    return seen


def shown(seen: Seen) -> RenderableType:
    """Return the study as rich shows it."""
    parts: list[RenderableType] = [Text(f"{seen.name}  {seen.path}".lstrip(), style="bold"), Text(seen.summary)]
    running = seen.running
    parts += [_run(run) for run in running[:_SHOWN]]
    if len(running) > _SHOWN:
        parts.append(Text(f"and {len(running) - _SHOWN} more"))
    for run in seen.failed:
        parts += [Text(f"failed: {run.label}, {reason}", style="red") for reason in run.reasons]
    return Group(*parts)


def _run(run: RunSeen) -> Text:
    """Return two lines of a run: how far it is, and what it measures."""
    now = f"{run.stage} {run.step} of {run.steps}" if run.steps else run.stage
    if run.state == "stopped":
        now = f"stopped, {now}" if now else "stopped"
    text = Text(f"{run.label}  ", style="bold", overflow="fold")
    text.append(f"{run.done} of {run.total} stages  {now} ", style="not bold")
    if run.steps:
        full = round(_BAR * run.step / run.steps)
        text.append("━" * full, style="not bold cyan").append("─" * (_BAR - full), style="not bold dim")
    said = [] if run.speed is None else [f"{run.speed:.1f} step/s"]
    said += [] if run.left is None else [f"{duration(run.left)} left"]
    said += [] if run.silent is None else [f"last heard of {duration(run.silent)} ago"]
    curves = {curve.name: curve for curve in run.curves}
    for curve in (curves[name] for name in ("loss", "weights kept") if name in curves):
        said.append(f"{curve.name} {curve.last} {sparkline(curve)}")
    if said:
        text.append("\n  " + "   ".join(said), style="not bold dim")
    return text


def _line(seen: Seen) -> Text:
    now = [
        f"{run.label}: {run.stage}" + (f" {run.step} of {run.steps}" if run.steps else "")
        for run in seen.running[:3]
        if run.state == "running"
    ]
    return Text("; ".join([seen.summary, *now]))


def sparkline(curve: Curve, width: int = 16) -> str:
    """Return a curve as blocks, its last `width` windows; the lowest block is the least value among them."""
    size = max(1, -(-len(curve.values) // width))
    means = [_mean(curve.values[i : i + size]) for i in range(0, len(curve.values), size)]
    low, high = min(means), max(means)
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round((v - low) / (high - low) * top) if high > low else 0] for v in means)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def duration(seconds: float) -> str:
    """Return a duration for people."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
