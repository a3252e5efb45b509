"""Transfer sharing and removed output weights, recounted weight by weight from the raw masks of real cubes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from modhook import Masks
from modhook.cube import masks_from, open_cube
from modhook.errors import UserError
from modhook_plugins.analyses.operation_confusion import OperationConfusion
from modhook_plugins.analyses.removed_output import RemovedOutput, RemovedOutputOptions
from modhook_plugins.networks.fnn import FNN, FNNOptions

STUDIES = Path(__file__).parents[2] / "studies"
SCAN = """
[study]
name = "s"
[task]
name = "scan"
splits = ["turn_left"]
[model]
name = "seq2seq_lstm"
hidden = 8
layers = 1
[train]
steps = 4
batch = 16
eval_batch = 2_000
validate_every = 0
[masks]
steps = 8
lr = 0.8
[analyses]
removed_output = {}
"""


def test_transfer_sharing(tmp_path: Path, run_study: Callable[..., None]) -> None:
    """What is used, and which of it a new mask keeps, equals sets of places; the first layer counts like the others."""
    run_study(STUDIES / "transfer.toml", "--variant", "smoke", "--out", tmp_path, "--set", "task.permutations=3")
    with open_cube(tmp_path / "transfer-smoke.zarr") as cube:
        found = cube["transfer_sharing"].sel(seed=1).load()
        stages = [str(s) for s in found["stage"].values]
        assert len(stages) == 3
        assert all(found[name].sel(stage=stages[0]).isnull().all() for name in ("reused", "used"))
        kept = [
            {n: set(np.flatnonzero(m.numpy()).tolist()) for n, m in masks_from(cube, seed=1, stage=s).items()}
            for s in stages
        ]
        size = {n: m.numel() for n, m in masks_from(cube, seed=1, stage=stages[0]).items()}
        assert set(found["parameter"].values) == set(size)
        for i in (1, 2):
            at = found.sel(stage=stages[i])
            for n in size:
                used = set.union(*(k[n] for k in kept[:i]))
                assert float(at["used"].sel(parameter=n)) == pytest.approx(len(used) / size[n])
                share = len(kept[i][n] & used) / len(kept[i][n]) if kept[i][n] else np.nan
                assert float(at["reused"].sel(parameter=n)) == pytest.approx(share, nan_ok=True)
        inner = found["reused"].sel(stage=stages[1], parameter="layer2.weight")
        assert 0 < inner < 1, "masks must differ, or the comparison shows nothing"


def test_removed_output(tmp_path: Path, run_study: Callable[..., None]) -> None:
    """Each token's share equals a loop over its row of the output layer, which is found without an option."""
    (tmp_path / "s.toml").write_text(SCAN)
    run_study(tmp_path / "s.toml", "--out", tmp_path)
    with open_cube(tmp_path / "s.zarr") as cube:
        found = cube["removed_output"]["removed"].sel(seed=1).load()
        assert found["token"].values[0] == "<end>"
        assert set(found["token"].values) >= {"I_JUMP", "I_TURN_LEFT"}
        control, own = (masks_from(cube, seed=1, stage=s)["output.weight"].tolist() for s in ("control", "turn_left"))
        assert len(control) == found.sizes["token"]
        for i, (before, after) in enumerate(zip(control, own, strict=True)):
            kept = sum(before)
            dropped = sum(b and not a for b, a in zip(before, after, strict=True))
            expected = dropped / kept if kept else np.nan
            assert float(found.sel(stage="turn_left")[i]) == pytest.approx(expected, nan_ok=True)
            assert float(found.sel(stage="control")[i]) == pytest.approx(0 if kept else np.nan, nan_ok=True)
        assert 0 < found.sel(stage="turn_left").max() <= 1, "something must be dropped, or this shows nothing"


def removed(masks: dict[str, dict[str, torch.Tensor]], options: RemovedOutputOptions) -> np.ndarray:
    """What the analysis computes from masks over a network of two inputs and three outputs."""
    run = SimpleNamespace(
        model=FNN(FNNOptions((4,))).build({"inputs": 2, "outputs": 3}),
        task=SimpleNamespace(tokens=("a", "b", "c"), control=True),
        stages=tuple(masks),
        masks={s: Masks(m) for s, m in masks.items()},
    )
    return RemovedOutput(options).compute(run)["removed_output/removed"]  # type: ignore[arg-type]


def test_removed_output_of_named_tensors() -> None:
    """Matrix and bias of a named layer count together; a token without weights is NaN; a wrong layer is named."""
    true, false = True, False
    control = {
        "layer1.weight": torch.ones(4, 2, dtype=torch.bool),
        "output.weight": torch.tensor([[true] * 4, [true, true, false, false], [false] * 4]),
        "output.bias": torch.tensor([true, false, false]),
    }
    own = control | {
        "output.weight": torch.tensor([[true, true, true, false], [false, true, true, true], [true] * 4]),
        "output.bias": torch.tensor([false, true, true]),
    }
    masks = {"control": control, "jump": own}
    np.testing.assert_allclose(removed(masks, RemovedOutputOptions())[1], [1 / 4, 1 / 2, np.nan])
    np.testing.assert_allclose(removed(masks, RemovedOutputOptions(("output.*",)))[1], [2 / 5, 1 / 2, np.nan])
    with pytest.raises(
        UserError, match=r"one row for each of the 3 tokens; masked are: layer1.weight \(4, 2\), output"
    ):
        removed(masks, RemovedOutputOptions(("layer1.weight",)))


def test_analyses_of_another_task_say_so() -> None:
    """A task without operations, tokens or control is refused before anything is computed."""
    task = SimpleNamespace(control=True, splits=("iid",))
    with pytest.raises(UserError, match="'operation_confusion' needs a task with several operations, such as addmul"):
        OperationConfusion().variables(task)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="'removed_output' needs a task that writes tokens, such as scan"):
        RemovedOutput().variables(task)  # type: ignore[arg-type]
    task = SimpleNamespace(control=False, tokens=("a",))
    with pytest.raises(UserError, match="'removed_output' compares with the control"):
        RemovedOutput().variables(task)  # type: ignore[arg-type]
