"""Rules for stock operations that vmap refuses or does slowly; none asks the user to change a module."""

from __future__ import annotations

from modhook.stacked.rules.memory import Memory as Memory
from modhook.stacked.rules.mode import Rules as Rules
from modhook.stacked.rules.reads import Disagreement as Disagreement
from modhook.stacked.rules.scoped import stock_switches as stock_switches

__all__ = ["Disagreement", "Memory", "Rules", "stock_switches"]
