"""The histogram of the control's keep-probabilities."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

from modhook.cube import logits_from, open_cube

STUDY = """
[study]
name = "s"
[task]
name = "double_addition"
mode = "fnn"
train_size = 1_000
valid_size = 50
[model]
name = "fnn"
hidden = [8]
[train]
steps = 4
batch = 16
validate_every = 0
[masks]
steps = 12
samples = 2
lr = 1.5
[analyses]
mask_histogram = {}
"""


def test_counts_equal_a_loop_over_the_logits(tmp_path: Path) -> None:
    """Every bin of a cube holds what a plain loop over the stored logits counts there."""
    from modhook.cli import main

    (tmp_path / "s.toml").write_text(STUDY)
    with pytest.raises(SystemExit) as stop:
        main(["run", str(tmp_path / "s.toml"), "--out", str(tmp_path)])
    assert stop.value.code == 0
    with open_cube(tmp_path / "s.zarr") as cube:
        found = cube["mask_histogram"].sel(seed=1)
        logits = [x for t in logits_from(cube, seed=1, stage="control").values() for x in t.double().flatten().tolist()]
        keep = [1 / (1 + math.exp(-x)) for x in logits]
        for name, values in (("all", keep), ("above", [k for k in keep if k > 2e-4])):
            expected = Counter(min(int(k * 500), 499) for k in values)
            assert found[name].values.tolist() == [expected[i] for i in range(500)]
        assert len(set(found["all"].values)) > 3, "the counts must differ, or the comparison shows nothing"
