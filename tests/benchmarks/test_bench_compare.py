"""The comparison of benchmarks, on recorded numbers: nothing is timed here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import compare

THEN = {"fnn: auto": [2.1, 2.0, 2.3], "lstm: auto": [1.2, 1.3], "cnn: auto": [1.1], "cnn: loop": [1.0], "gone": [1.0]}


def test_only_what_leaves_the_noise_is_worse_or_better() -> None:
    """Bands that touch are the same; one that lies above is worse, one below better; the worse ones come first."""
    now = {"fnn: auto": [2.3, 2.6], "lstm: auto": [1.31, 1.4], "cnn: auto": [1.2], "cnn: loop": [0.8], "new": [1.0]}
    lines = {line["ratio"]: line["verdict"] for line in compare.compared(THEN, now)}
    # cnn: auto of one process each: 1.1 and 1.2 with a twentieth to each side touch at 1.155 and 1.14
    assert lines == {"lstm: auto": "worse", "cnn: loop": "better", "fnn: auto": "same", "cnn: auto": "same"}
    assert next(iter(lines)) == "lstm: auto"
    text, code = compare.report(THEN, now)
    assert code == 1
    assert text.splitlines()[1].split() == ["lstm:", "auto", "1.20-1.30", "1.31-1.40", "worse"]
    assert "1 worse, 1 better, 2 same" in text
    assert "not stored, so not compared: new" in text


def test_no_regression_ends_well_and_nothing_to_compare_does_not() -> None:
    """Faster or equal is exit code 0; where no ratio is in both, it is 2 and a sentence."""
    assert compare.report(THEN, {"fnn: auto": [1.5, 1.6], "lstm: auto": [1.25]})[1] == 0
    assert compare.report(THEN, {"other": [1.0]}) == (compare.report(THEN, {})[0], 2)


def test_another_processor_is_told_which_are_stored() -> None:
    """The sentence names this processor and those that are stored."""
    stored = {"AMD EPYC, 2 threads": {"ratios": THEN}}
    assert compare.ratios(compare.stored_for(stored, "AMD EPYC, 2 threads")) == THEN
    before = {"machine": "Xeon, 1 thread, Python 3.11.7, torch 2.13.0; CPU time of one thread", "table": {}}
    assert list(compare.by_processor(before)) == ["Xeon, 1 thread; CPU time"]
    with pytest.raises(LookupError, match="Xeon, 2 threads; stored are: AMD EPYC, 2 threads"):
        compare.stored_for(stored, "Xeon, 2 threads")


def test_the_stored_file_can_be_read() -> None:
    """What docs/benchmarks.json holds, of before or by processor, gives ratios of mask steps for each processor."""
    stored = compare.by_processor(json.loads((Path(__file__).parents[2] / "docs/benchmarks.json").read_text()))
    assert stored
    for results in stored.values():
        found = compare.ratios(results)
        assert all(0.1 < value < 100 for values in found.values() for value in values)
        assert len(found["fnn-2000x4: auto"]) >= 2
