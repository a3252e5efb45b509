"""The inverse test with input and output layers replaced by the control's mask, or by all weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import modhook
from modhook.cube import masks_from, open_cube, weights_from
from modhook.errors import PatternError
from modhook.study import load
from modhook_plugins.analyses.inverse import Inverse, InverseOptions
from modhook_plugins.networks.fnn import FNN, FNNOptions
from modhook_tasks.double_addition import DoubleAddition, DoubleAdditionOptions

STUDIES = Path(__file__).parents[2] / "studies"
STUDY = """
[study]
name = "s"
[task]
name = "double_addition"
mode = "fnn"
train_size = 10_000
valid_size = 400
[model]
name = "fnn"
hidden = [64, 32]
[train]
steps = 400
batch = 64
lr = 0.02
validate_every = 0
[masks]
steps = 6
samples = 2
lr = 0.6
[analyses]
inverse = { io = ["layer1.weight", "output.*"], io_mask = "MASK" }
"""
IO = ("layer1.weight", "output.weight")


def plain_pass(weights: dict[str, Tensor], tuple_number: int, numbers: Tensor) -> Tensor:
    """Return the digits (N, 2) that a feed-forward pass over one tuple writes, with matrix products alone."""
    x = torch.zeros(len(numbers), 80)
    for row, two in enumerate(numbers[:, tuple_number].tolist()):
        for i, digit in enumerate(d for n in two for d in (n % 10, n // 10)):
            x[row, 40 * tuple_number + 10 * i + digit] = 1
    for name in ("layer1", "layer2"):
        x = (x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]).relu()
    out = x @ weights["output.weight"].T + weights["output.bias"]
    return out[:, 20 * tuple_number : 20 * tuple_number + 20].view(-1, 2, 10).argmax(-1)


@pytest.mark.parametrize("instead", ["control", "full"])
def test_io_layers_are_replaced(instead: str, tmp_path: Path) -> None:
    """Scores equal matrix products with inner masks inverted and IO layers under the control's mask, or whole."""
    from modhook.cli import main

    (tmp_path / "s.toml").write_text(STUDY.replace("MASK", instead))
    with pytest.raises(SystemExit) as stop:
        main(["run", str(tmp_path / "s.toml"), "--out", str(tmp_path)])
    assert stop.value.code == 0
    numbers = DoubleAddition(DoubleAdditionOptions("fnn", valid_size=400)).test_set("iid")["numbers"].long()
    answers = torch.stack([numbers.sum(-1) % 100 % 10, numbers.sum(-1) % 100 // 10], -1)  # (N, 2, 2)
    with open_cube(tmp_path / "s.zarr") as cube:
        weights = weights_from(cube, seed=1)
        control = masks_from(cube, seed=1, stage="control")
        found = cube["inverse"]["accuracy"].sel(seed=1)
        for stage in ("control", "tuple1", "tuple2"):
            own = masks_from(cube, seed=1, stage=stage)
            kept = {n: control[n] if instead == "control" else torch.ones_like(m) for n, m in own.items() if n in IO}
            kept |= {n: ~m for n, m in own.items() if n not in IO}
            assert set(kept) == {*IO, "layer2.weight"}
            masked = {n: w * kept[n] if n in kept else w for n, w in weights.items()}
            right = torch.stack([(plain_pass(masked, t, numbers) == answers[:, t]).all(-1) for t in (0, 1)], 1)
            for split, expected in (("iid", right.all(1)), ("tuple1", right[:, 0]), ("tuple2", right[:, 1])):
                assert float(found.sel(stage=stage, split=split)) == pytest.approx(float(expected.double().mean()))
        assert len(set(found.values.ravel())) > 3, "the scores must differ, or the comparison shows nothing"


def masks(fill: bool, model: nn.Module) -> modhook.Masks:
    """Masks over all weights with one value."""
    return modhook.Masks(
        {n: torch.full(p.shape, fill, dtype=torch.bool) for n, p in model.named_parameters() if "bias" not in n}, model
    )


class Run:
    """What the analysis needs of a finished run, two stages with opposite masks, and the masks that it measured."""

    def __init__(self) -> None:
        self.model = FNN(FNNOptions((3,))).build({"inputs": 80, "outputs": 40})
        self.task = DoubleAddition(DoubleAdditionOptions("fnn"))
        self.stages = ("control", "tuple1")
        self.masks = {"control": masks(False, self.model), "tuple1": masks(True, self.model)}
        self.measured: dict[str, Any] = {}

    def score(self, masks: modhook.Masks, stage: str) -> dict[str, dict[str, float]]:
        """Keep the masks."""
        self.measured[stage] = {n: bool(m.all()) for n, m in masks.items()}
        return {"accuracy": dict.fromkeys(self.task.splits, 0.0)}


@pytest.mark.parametrize(
    ("options", "control", "tuple1"),
    [
        (
            InverseOptions(),
            {"layer1.weight": True, "output.weight": True},
            {"layer1.weight": False, "output.weight": False},
        ),
        (
            InverseOptions(("output.*",), "control"),
            {"layer1.weight": True, "output.weight": False},
            {"layer1.weight": False, "output.weight": False},
        ),
        (
            InverseOptions(("output.*",), "full"),
            {"layer1.weight": True, "output.weight": True},
            {"layer1.weight": False, "output.weight": True},
        ),
    ],
)
def test_each_layer_gets_its_mask(options: InverseOptions, control: dict[str, bool], tuple1: dict[str, bool]) -> None:
    """Without options all is inverted; named layers get the control's own mask, or all weights, in the control too."""
    run = Run()
    Inverse(options).compute(run)  # type: ignore[arg-type]
    assert run.measured == {"control": control, "tuple1": tuple1}


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    """A misspelt layer is named, and no score is computed."""
    run = Run()
    with pytest.raises(PatternError, match=r"analyses.inverse.io pattern 'outptu.weight' matches no parameter"):
        Inverse(InverseOptions(("outptu.weight",))).compute(run)  # type: ignore[arg-type]
    assert not run.measured


@pytest.mark.parametrize(
    ("study", "first", "last"),
    [
        ("tuple_fnn_fullmask_io", "layer1.weight", "output.weight"),
        ("tuple_lstm_fullmask_io", "lstm.weight_ih_l0", "output.weight"),
    ],
)
def test_the_studies_name_the_input_and_output_layers(study: str, first: str, last: str) -> None:
    """The published studies name the layer that reads the input and the one that writes the output.

    These keep the control's mask ("fullmask": the mask of the full task), not all weights.
    """
    assert load(STUDIES / f"{study}.toml").analyses["inverse"] == InverseOptions((first, last), "control")
