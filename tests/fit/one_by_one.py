"""Fits that are learned together beside those that are learned one by one: what is said, and whether they are the same."""

from __future__ import annotations

from typing import Any

import torch

from modhook import Fit, Tracker


class Heard(Tracker):
    """Keeps what is said, and the steps that are told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.steps: list[int] = []

    def message(self, text: str) -> None:
        """Keep it."""
        self.said.append(text)

    def step(self, step: int, values: Any) -> None:
        """Keep it."""
        self.steps.append(step)


def same(one: Fit, other: Fit) -> None:
    """Compare everything but the clock."""
    assert one.masks.keys() == other.masks.keys()
    for name, logit in one.logits.items():
        assert torch.equal(logit, other.logits[name]), name
        assert torch.equal(one.masks[name], other.masks[name])
    for name, weight in one.weights.items():
        assert torch.equal(weight, other.weights[name])
    assert one.history.drop_vars("ms_per_step").identical(other.history.drop_vars("ms_per_step"))
    assert (one.steps, one.stopped) == (other.steps, other.stopped)
