"""The tracker that an argument `progress` of a public function asks for."""

from __future__ import annotations

from typing import Any

from modhook.plugin.interfaces import Tracker
from modhook.plugin.manager import plugins
from modhook.values.arguments import checked


def tracker_of(progress: Any) -> Tracker:
    """Return the tracker that `progress` asks for. Raises `UserError`."""
    if isinstance(progress, Tracker):
        return progress
    shows = checked("progress", progress, bool)
    tracker: Tracker = plugins().load("trackers", "progress")() if shows else Tracker()
    return tracker
