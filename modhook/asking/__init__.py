"""Asking one's own network: functions, seeds and controls in one call, to a cube and a report."""

from modhook.asking.answer import Answer
from modhook.asking.api import ask

__all__ = ["Answer", "ask"]
