"""Watching a run from outside it, in a terminal or on a page: reads the cube and what runs write beside it, and writes nothing."""

from modhook.watching.page import Page
from modhook.watching.state import Seen, Watcher
from modhook.watching.terminal import watch

__all__ = ["Page", "Seen", "Watcher", "watch"]
