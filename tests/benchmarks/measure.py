"""Medians of interleaved steps, and peaks of memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

clock: Callable[[], float] = time.perf_counter
"""What steps are timed with: wall time, or `time.process_time` where other work runs beside."""
typical: Callable[[list[float]], float] = statistics.median
"""What counts of many times: their median, or `min` where other work also takes caches and memory away."""


def interleaved(steps: Mapping[str, Callable[[], Any]], seconds: float, least: int = 5) -> dict[str, float]:
    """Return the typical milliseconds of each step: all take turns, for about `seconds` in all, at least `least` rounds.

    A turn is one step that is not counted and then three that are: training repeats the same step, and does not find the
    caches and the allocator as another kind of step left them.
    """
    for step in steps.values():  # the first steps settle the route, compile and fill the caches
        step()
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or min(map(len, times.values())) < 3 * least:
        for name, step in steps.items():
            step()
            for _ in range(3):
                _wait()
                start = clock()
                step()
                _wait()
                times[name].append(1e3 * (clock() - start))
    return {name: typical(found) for name, found in times.items()}


def best(function: Callable[[], Any], tries: int) -> float:
    """Return the seconds of the fastest of many calls: what the machine can do, whatever runs beside it."""
    function()
    found = []
    for _ in range(tries):
        start = clock()
        function()
        found.append(clock() - start)
    return min(found)


def busy() -> None:
    """Count CPU time of one thread, of the fastest step, from here on: what other work takes away is hardly counted."""
    global clock, typical
    clock, typical = time.process_time, min
    torch.set_num_threads(1)


def peak(step: Callable[[], Any]) -> int:
    """Return the bytes that a step has allocated at its peak, above what there was before it."""
    step()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    total = most = 0
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        total += event.nbytes()
        most = max(most, total)
    return most


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
