"""The transfer protocol: frozen, re-initialised and reset weights, read back from the cube after every stage."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from modhook.cli import main
from modhook.cube import masks_from, open_cube, weights_from
from modhook_plugins.networks.fnn import FNN, FNNOptions

STUDY = """
[study]
name = "move"
protocol = "transfer"
[task]
name = "addmul"
train_size = 300
valid_size = 40
[model]
name = "fnn"
hidden = [9, 7]
init = "xavier"
[train]
batch = 16
validate_every = 0
[masks]
steps = 6
samples = 4
lr = 0.8
exclude = []
logits_dtype = "float32"
[protocol]
used_init = 2.0
new_init = -1.0
"""


def run(*arguments: str | Path) -> int:
    """Run the command line; return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return int(stop.value.code or 0)


def test_used_weights_never_change_and_others_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that an earlier mask kept stay bit for bit; unused ones and the whole first layer are new in every stage."""
    from modhook.run.context import Context

    after: list[dict[str, torch.Tensor]] = []
    write = Context._write

    def spy(self: Context, stage: str, record: object) -> None:
        after.append({n: p.detach().clone() for n, p in self.model.named_parameters()})
        write(self, stage, record)  # type: ignore[arg-type]

    monkeypatch.setattr(Context, "_write", spy)
    file = tmp_path / "move.toml"
    file.write_text(STUDY)
    assert run("run", file, "--out", tmp_path) == 0
    cube = open_cube(tmp_path / "move.zarr")
    masks = {s: masks_from(cube, seed=1, stage=s) for s in ("control", "add", "mul")}
    used = {n: torch.zeros_like(m) for n, m in masks["control"].items()}
    for stage, (old, new) in zip(("control", "add"), itertools.pairwise(after), strict=True):
        used = {n: used[n] | masks[stage][n] for n in used}
        for name in old:
            kept = used[name] & ("layer1" not in name)
            assert torch.equal(old[name][kept], new[name][kept])
            if name.endswith("weight"):
                assert (old[name] != new[name])[~kept].all()
        assert any((used[n] & ("layer1" not in n)).any() for n in used), "nothing was used, so nothing is shown"
    for stage, weights in zip(("control", "add", "mul"), after, strict=True):
        for name, tensor in weights_from(cube, seed=1, stage=stage).items():
            assert torch.equal(tensor, weights[name])


def test_scores_are_the_earlier_functions_under_their_own_masks(tmp_path: Path) -> None:
    """After stage i, split j <= i is measured under mask j; later splits are NaN."""
    file = tmp_path / "move.toml"
    file.write_text(STUDY)
    assert run("run", file, "--out", tmp_path) == 0
    scores = xr.open_datatree(tmp_path / "move.zarr", engine="zarr")["scores"]["accuracy"].sel(seed=1).values
    assert np.isnan(scores).tolist() == [[False, True, True], [False, False, True], [False] * 3]


def test_xavier() -> None:
    """Deviation sqrt(2) * sqrt(2 / (in + out)), the last layer's without the gain; biases 0."""
    torch.manual_seed(0)
    net = FNN(FNNOptions((300, 200), "xavier")).build({"inputs": 400, "outputs": 100})
    for layer, gain in ((net.layer1, 2**0.5), (net.layer2, 2**0.5), (net.output, 1)):
        expected = gain * (2 / sum(layer.weight.shape)) ** 0.5
        assert abs(float(layer.weight.detach().std()) / expected - 1) < 0.03
        assert not layer.bias.any()


def test_a_pattern_that_fits_nothing_and_a_wrong_option_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown option of [protocol] is a mistake of the study; so is a first layer that the network does not have."""
    file = tmp_path / "move.toml"
    file.write_text(STUDY + "used_inti = 1.0\n")
    assert run("check", file) == 2
    assert "protocol.used_inti" in "".join(capsys.readouterr())
    file.write_text(STUDY + 'reset = ["first*"]\n')
    assert run("run", file, "--out", tmp_path) == 2
    assert "protocol.reset pattern 'first*' matches no parameter" in "".join(capsys.readouterr())
