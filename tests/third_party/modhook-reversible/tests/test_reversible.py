"""The automaton is reversible, the numbers are those of plain loops, and modhook's interfaces are kept."""

import numpy as np
import pytest
import torch
from modhook_reversible.automaton import Options, Reversible, stepped
from modhook_reversible.directions import Directions, channels
from modhook_reversible.figure import DirectionsFigure
from modhook_reversible.network import RingConv

from modhook.testing import check_analysis, check_figure, check_model, check_task

SMALL = {"cells": 5, "examples": 30}


@pytest.mark.parametrize("rule", [0, 30, 110, 255])
def test_the_answers_are_those_of_the_rule(rule):
    """Every cell of every item, by a loop over cells and the bits of the rule's number."""
    data = Reversible(Options(rule=rule, cells=5, examples=12)).train_set(None)
    for states, answer in zip(data["states"].int().tolist(), data["answer"].tolist(), strict=True):
        early, late, forward = states[0], states[1], states[2][0]
        middle, outer = (late, early) if forward else (early, late)
        for i, cell in enumerate(answer):
            pattern = f"{middle[i - 1]}{middle[i]}{middle[(i + 1) % 5]}"
            assert cell == int(f"{rule:08b}"[7 - int(pattern, 2)]) ^ outer[i]


def test_time_runs_backwards():
    """Twenty steps on, and twenty back, lead to where they began."""
    early, late = torch.randint(2, (2, 7, 12), generator=torch.Generator().manual_seed(3))
    a, b = early, late
    for _ in range(20):
        a, b = b, stepped(30, b, a)
    for _ in range(20):
        a, b = stepped(30, a, b), a
    assert torch.equal(a, early)
    assert torch.equal(b, late)


def test_channels_by_a_loop():
    """A channel counts that reads something and is read by something."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(6, 4, 3, generator=generator) < 0.1, torch.rand(6, 6, 1, generator=generator) < 0.2
    expected = [any(first[i].flatten().tolist()) and any(second[:, i, 0].tolist()) for i in range(6)]
    assert np.array_equal(channels(first, second), expected)
    assert 0 < sum(expected) < 6


def test_the_promises_of_the_interfaces():
    """Task, network, analysis and figure keep them."""
    check_task(Reversible, RingConv, SMALL, {"hidden": 4})
    check_model(RingConv, Reversible, {"hidden": 4}, SMALL)
    check_analysis(Directions, Reversible, RingConv, task_options=SMALL, model_options={"hidden": 4})
    check_figure(DirectionsFigure, Reversible, RingConv, [Directions], SMALL, {"hidden": 4})
