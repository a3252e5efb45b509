"""The fastest part of the zoo, on every run of the tests; `nox -s zoo` runs all of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "zoo"))

import zoo_layers
import zoo_nasty
from zoo_harness import run

SAMPLE = (
    "Conv2d",
    "BatchNorm2d",
    "EmbeddingBag, offsets",
    "MultiheadAttention, padding",
    "LSTM, 2 layers, bidirectional",
    "GRU, packed",
)
CASES = [case for case in zoo_layers.cases() if case.name.startswith(SAMPLE) and case.training]
CASES += [case for case in zoo_nasty.cases() if case.training]
# vmap had no rule for these in the oldest versions of torch.
SLOW = {"aten::matrix_exp."} if not hasattr(torch, "_grouped_mm") else set()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case):
    """Outputs and gradients equal those of plain copies."""
    result = run(case)
    assert result.matches, result
    assert not set(result.slow) - SLOW
    assert result.route != "loop"
