"""Half masks, operation confusion and mask images of an add/mul cube, recomputed from weights and raw masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from modhook.cube import masks_from, open_cube, weights_from
from modhook_plugins.analyses.mask_images import shrunk

Numbers = Callable[[dict[str, Tensor]], list[tuple[int, int, int, int]]]
STAGES = ("control", "add", "mul")
LAYERS = ["layer1.weight", "layer2.weight", "layer3.weight", "output.weight"]


def right(problems: list[tuple[int, int, int, int]]) -> float:
    """Share of the problems whose number is right."""
    return sum(n == (a * b if op else a + b) % 100 for a, b, op, n in problems) / len(problems)


def test_half_masks(addmul_cube: Path, written_numbers: Numbers) -> None:
    """By default two of four matrices are early; scores and drops equal matrix products with that half masked."""
    with open_cube(addmul_cube) as cube:
        found = cube["half_mask"].sel(seed=1, choice=1).load()
        weights, control = weights_from(cube, seed=1), masks_from(cube, seed=1, stage="control")
        full = right(written_numbers({n: w * control[n] if n in control else w for n, w in weights.items()}))
        for half, on in (("early", LAYERS[:2]), ("late", LAYERS[2:])):
            kept = right(written_numbers({n: w * control[n] if n in on else w for n, w in weights.items()}))
            assert float(found["accuracy"].sel(half=half)) == pytest.approx(kept)
            assert float(found["drop"].sel(half=half)) == pytest.approx(full - kept)
            assert found["masked"].sel(half=half).to_series().to_dict() == {n: int(n in on) for n in LAYERS}
        assert len({full, *found["accuracy"].values.tolist()}) == 3, "the halves must differ, or this shows nothing"


def test_operation_confusion(addmul_cube: Path, written_numbers: Numbers) -> None:
    """Under a mask and its inverse each number counts for every operation whose result it is, else for none; rows are normalised."""
    with open_cube(addmul_cube) as cube:
        found = cube["operation_confusion"].sel(seed=1).load()
        weights = weights_from(cube, seed=1)
        assert found["count"].dims == ("stage", "true", "produced")
        assert list(found["produced"].values) == ["add", "mul", "none"]
        for stage in STAGES:
            masks = masks_from(cube, seed=1, stage=stage)
            for prefix, kept in (("", masks), ("inverse_", {n: ~m for n, m in masks.items()})):
                counts = [[0, 0, 0], [0, 0, 0]]
                for a, b, op, n in written_numbers({n: w * kept[n] if n in kept else w for n, w in weights.items()}):
                    hits = [n == (a + b) % 100, n == a * b % 100]
                    for column, hit in enumerate([*hits, not any(hits)]):
                        counts[op][column] += hit
                assert found[f"{prefix}count"].sel(stage=stage).values.tolist() == counts
                shares = [[c / sum(row) for c in row] for row in counts]
                np.testing.assert_allclose(found[f"{prefix}share"].sel(stage=stage), shares)
            assert (found["count"] != found["inverse_count"]).sel(stage=stage).any(), "the masks must do something"
        assert (found["count"].sel(stage="add", produced="add") > 0).all(), "the network must do something"
        assert found["count"].sum() > 3 * 2_000, "some number must be the result of both operations"


def test_the_results_of_both_operations() -> None:
    """Read back from the one-hot inputs, they are Python's own sums and products."""
    from modhook_tasks.addmul import AddMul, AddMulOptions

    task = AddMul(AddMulOptions(10, 300))
    data = task.test_set("iid")
    batch = task.prepare(data, np.random.default_rng(0), False)
    expected = [[(a + b) % 100, a * b % 100] for a, b in data["operands"].tolist()]
    assert task.results(batch).tolist() == expected


def test_mask_images(addmul_cube: Path) -> None:
    """Each cell counts its weights by who keeps them, one by one; cells that a tensor lacks are NaN."""
    with open_cube(addmul_cube) as cube:
        found = cube["mask_images"].sel(seed=1).load()
        masks = {s: masks_from(cube, seed=1, stage=s) for s in STAGES}
        kinds = [str(k) for k in found["kind"].values]
        assert kinds == ["add", "mul", "several", "control only", "none"]
        for name in LAYERS:
            control, add, mul = (masks[s][name].tolist() for s in STAGES)
            rows, columns = len(add), len(add[0])
            height, width = min(rows, 64), min(columns, 64)
            expected = np.full((64, 64, 5), np.nan)
            expected[:height, :width] = 0
            for r in range(rows):
                for c in range(columns):
                    kind = (
                        2
                        if add[r][c] and mul[r][c]
                        else 0
                        if add[r][c]
                        else 1
                        if mul[r][c]
                        else 3
                        if control[r][c]
                        else 4
                    )
                    expected[r * height // rows, c * width // columns, kind] += 1
            np.testing.assert_array_equal(found["counts"].sel(parameter=name), expected)
            assert found["shape"].sel(parameter=name).values.tolist() == [rows, columns]
        assert found["counts"].sel(parameter="layer1.weight").notnull().sum() == 64 * 42 * 5, "70 rows, in 64 cells"


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (65, 3), (131, 200)])
def test_pictures_lose_no_weight(shape: tuple[int, int]) -> None:
    """Shrinking a matrix of any size counts every weight in the cell that its place belongs to."""
    kept = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.3
    expected = np.zeros([min(n, 64) for n in shape])
    for r, c in kept.nonzero().tolist():
        expected[r * expected.shape[0] // shape[0], c * expected.shape[1] // shape[1]] += 1
    np.testing.assert_array_equal(shrunk(kept), expected)
