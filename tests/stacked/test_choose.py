"""`auto` picks by a fixed table, `fastest` by measuring, and both say so."""

from __future__ import annotations

import time

import pytest
import stacked_loops as loops
import torch
from torch import nn

from modhook.stacked import stack
from modhook.stacked.choose import TABLE, Facts, choose


def convolutions(width):
    """Return a small network of convolutions."""
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.Conv2d(width, width, 3), nn.Flatten(), nn.Linear(width, 2))


@pytest.mark.parametrize(
    ("model", "samples", "row"),
    [
        (nn.Linear(3, 3), 4, "everything else"),
        (nn.Linear(3, 3), 1, "one mask sample"),
        (convolutions(8), 4, "everything else"),
        (convolutions(110), 4, "convolutions hold at least half"),
        (nn.Sequential(convolutions(110), nn.Linear(500, 500)), 4, "everything else"),
        (nn.TransformerEncoderLayer(160, 2, 16), 4, "attention layers"),
        (nn.Sequential(nn.MultiheadAttention(160, 2), nn.Linear(600, 600)), 4, "everything else"),
    ],
)
def test_rows(model, samples, row):
    """Each row is found by module types, sizes and K, and the reason quotes it."""
    loop, reason = choose(model, samples)
    assert row in reason
    assert loop == reason.startswith("loop")


def test_every_row_can_be_reached_and_the_last_takes_all():
    """No row hides behind an earlier one."""
    facts = [
        Facts("cpu", 1, 0, 0, 1), Facts("cpu", 4, 10**6, 0, 10**6), Facts("cpu", 4, 0, 10**6, 10**6),
        Facts("cuda", 4, 10**6, 0, 10**6),
    ]  # fmt: skip
    assert [next(r for r in TABLE if r.fits(f)) for f in facts] == list(TABLE)


def test_auto_never_looks_at_the_clock(monkeypatch):
    """With a clock that fails, `auto` still chooses, and where the table says loop it tries nothing else."""

    def broken():
        raise AssertionError("the clock was read")

    monkeypatch.setattr(time, "perf_counter", broken)
    monkeypatch.setattr(time, "time", broken)
    example = ((torch.randn(2, 3, 5, 5),), {})
    stacked = stack(convolutions(110), example=example, samples=4)
    assert (stacked.route, stacked.choice.vectorised) == ("loop", "")
    assert (
        stacked.reason
        == "loop by the table of routes: on CPU, convolutions hold at least half of the weights, and 100,000"
    )
    assert "everything else" in stack(convolutions(8), example=example, samples=4).reason
    with pytest.raises(AssertionError, match="the clock"):
        stack(convolutions(8), example=example, samples=4, executor="fastest")


@pytest.mark.parametrize("width", [8, 110])
def test_forced_routes_agree_with_auto(width):
    """Whatever the table says, forcing another route gives the same numbers."""
    torch.manual_seed(0)
    model, x = convolutions(width).double(), torch.randn(3, 2, 3, 5, 5, dtype=torch.float64)
    sets = loops.parameter_sets(model, 3)
    outputs = {e: stack(model, executor=e)(sets, x) for e in ("auto", "fastest", "vmap", "loop")}
    assert max(loops.worst(o, outputs["loop"]) for o in outputs.values()) <= 1e-9
