"""The baseline protocol, and the learning-rate schedules by formula."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import xarray as xr

from modhook.cli import main
from modhook.cube import open_cube, weights_from
from modhook.plugin.manager import plugins
from modhook.run.build import build_model, build_task
from modhook.run.data import Draw
from modhook.steps.optim import learning_rate
from modhook.study import load, restore

STUDY = """
[study]
name = "base"
seeds = 1
protocol = "PROTOCOL"
[task]
name = "addmul"
train_size = 200
valid_size = 20
[model]
name = "fnn"
hidden = [8]
[train]
steps = 7
batch = 16
lr = 0.5
clip = 0.3
optimizer = "sgd"
momentum = 0.5
validate_every = 0
schedule = "transformer"
"""


def run(*arguments: str | Path) -> int:
    """Run the command line; return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return int(stop.value.code or 0)


def test_weights_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    """Without [masks], SGD with clipping and the Transformer schedule ends where a loop written out by hand ends."""
    file = tmp_path / "base.toml"
    file.write_text(STUDY.replace("PROTOCOL", "baseline"))
    assert run("run", file, "--out", tmp_path) == 0
    cube = xr.open_datatree(tmp_path / "base.zarr", engine="zarr")
    assert cube["scores"]["stage"].values.tolist() == ["unmasked"]
    study = load(file)
    task = build_task(study, plugins())
    net = build_model(study, task, plugins(), 1)
    draw = Draw(task, None, 16, 1, torch.device("cpu"))
    velocity = [torch.zeros_like(p) for p in net.parameters()]
    for step in range(1, 8):
        net.zero_grad()
        task.loss(net, next(draw)).backward()
        norm = sum(float(p.grad.square().sum()) for p in net.parameters()) ** 0.5
        rate = 0.5 * 4000**0.5 * step * 4000**-1.5
        with torch.no_grad():
            for v, p in zip(velocity, net.parameters(), strict=True):
                v.mul_(0.5).add_(p.grad * min(1.0, 0.3 / norm))
                p.sub_(rate * v)
    stored = weights_from(open_cube(tmp_path / "base.zarr"), seed=1)
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(stored[name], tensor, rtol=1e-5, atol=1e-6)


def test_masks_are_needed_by_every_other_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A study that masks and says nothing about it is refused."""
    file = tmp_path / "base.toml"
    file.write_text(STUDY.replace("PROTOCOL", "posthoc"))
    assert run("check", file) == 2
    assert "masks.steps" in "".join(capsys.readouterr())


def test_transformer_schedule_peaks_at_the_rate() -> None:
    """It rises linearly to `lr` at step 4,000 and falls with the square root of the step."""
    rates = [learning_rate(i - 1, 0.2, schedule="transformer") for i in (1, 2, 4000, 16_000)]
    assert rates == pytest.approx([0.2 / 4000, 0.4 / 4000, 0.2, 0.1])


def test_warmup_and_steps_by_hand() -> None:
    """Warm-up is linear from 1/n, and decay multiplies from each step on."""
    rates = [learning_rate(i, 1.0, warmup=4, decay_at=(3, 5), decay=0.1) for i in range(6)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 0.1, 0.1, 0.01])


def test_masks_bind_no_baseline(tmp_path: Path) -> None:
    """A batch that no number of mask samples divides is fine where no mask is learned, and the cube opens again."""
    file = tmp_path / "base.toml"
    file.write_text(STUDY.replace("PROTOCOL", "baseline").replace("batch = 16", "batch = 15"))
    assert run("run", file, "--out", tmp_path) == 0
    study = restore(open_cube(tmp_path / "base.zarr").attrs["study"])
    assert (study.study.protocol, study.train.batch) == ("baseline", 15)
