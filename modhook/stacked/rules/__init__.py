"""Rules for stock operations that vmap refuses or does slowly; none asks the user to change a module."""

from __future__ import annotations

from modhook.stacked.rules.mode import Rules as Rules

__all__ = ["Rules"]
