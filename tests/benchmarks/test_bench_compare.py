"""The comparison of benchmarks, on recorded numbers: nothing is timed here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import compare
import table
import units

THEN = {"fnn: auto": [2.1, 2.0, 2.3], "lstm: auto": [1.2, 1.3], "cnn: auto": [1.1], "cnn: loop": [1.0], "gone": [1.0]}


def test_only_what_leaves_the_noise_is_worse_or_better() -> None:
    """Bands that touch are the same; one that lies above is worse, one below better; the worse ones come first."""
    now = {"fnn: auto": [2.3, 2.6], "lstm: auto": [1.38, 1.5], "cnn: auto": [1.2], "cnn: loop": [0.8], "new": [1.0]}
    lines = {line["ratio"]: line["verdict"] for line in compare.compared(THEN, now)}
    # cnn: auto of one process each: 1.1 and 1.2 with a twentieth to each side touch at 1.155 and 1.14;
    # lstm: auto, medians 1.25 and 1.44, up to 1.3125 then and from 1.368 now
    assert lines == {"lstm: auto": "worse", "cnn: loop": "better", "fnn: auto": "same", "cnn: auto": "same"}
    assert next(iter(lines)) == "lstm: auto"
    text, code = compare.report(THEN, now)
    assert code == 1
    assert text.splitlines()[1].split() == ["lstm:", "auto", "1.20-1.30", "1.38-1.50", "worse"]
    assert "1 worse, 1 better, 2 same" in text
    assert "not stored, so not compared: new" in text


def test_processes_of_one_day_are_no_band() -> None:
    """Where processes agree to a hundredth, another day's that are two hundredths higher are the same; a tenth and more is worse."""
    then = {"fnn: auto": [1.90, 1.91, 1.92]}
    assert compare.compared(then, {"fnn: auto": [1.94, 1.95, 1.95]})[0]["verdict"] == "same"
    assert compare.compared(then, {"fnn: auto": [2.12, 2.13, 2.14]})[0]["verdict"] == "worse"


def test_units_and_weights_are_compared_by_the_fastest_plain_step() -> None:
    """What is compared of units and of weights is what their tables say: mask steps in plain steps of the fastest process."""
    times = [{"plain": 10.0, "auto": 11.0, "loop": 20.0}, {"plain": 8.0, "auto": 12.0, "loop": 16.0}]
    found = [{"milliseconds": each, "route": "vmap"} for each in times]
    assert units.ratios(found) == {"auto": [11 / 8, 12 / 8]}
    assert units.ratios(found)["auto"] == table.ratios(found, "auto", "plain")
    line = units.row("cnn", found)
    assert (line["plain ms"], line["auto"], line["least to most"], line["loop"]) == ("8.0", "1.44", "1.38-1.50", "2.25")


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
