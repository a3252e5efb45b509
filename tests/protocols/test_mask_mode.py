"""`[masks] mode`: what dropout and batch norm do while masks are learned, seen from inside the network."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from modhook.cli import main
from modhook.cube import masks_from, open_cube

NET = """
import torch
from torch import nn

SEEN = []

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1, self.norm = nn.Linear(42, 8), nn.BatchNorm1d(8)
        self.dropout, self.output = nn.Dropout(0.5), nn.Linear(8, 20)

    def forward(self, x):
        h = self.dropout(self.norm(self.layer1(x)))
        SEEN.append((torch.is_grad_enabled(), self.norm.training, self.dropout.training))
        return self.output(h)
"""
STUDY = """
[study]
name = "mode"
protocol = "PROTOCOL"
[task]
name = "addmul"
train_size = 300
valid_size = 40
[model]
name = "modenet:Net"
[train]
TRAIN
batch = 16
validate_every = 2
[masks]
steps = 5
samples = 4
lr = 0.8
validate_every = 2
mode = "MODE"
[protocol]
"""
TRAIN = {"posthoc": "steps = 4", "transfer": ""}


def run(file: Path, out: Path) -> int:
    """Run a study; return the exit code."""
    with pytest.raises(SystemExit) as stop:
        main(["run", str(file), "--out", str(out)])
    return int(stop.value.code or 0)


@pytest.mark.parametrize("protocol", ["posthoc", "transfer"])
def test_dropout_and_batch_norm_follow_the_mode(
    protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Learning runs in the mode, measuring always in evaluation mode, and no buffer ever changes in a mask stage."""
    from modhook.run.context import Context

    (tmp_path / "modenet.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    net: Any = importlib.import_module("modenet")
    write, seen, buffers = Context._write, {}, []

    def spy(self: Context, stage: str, record: object) -> None:
        seen[stage] = set(net.SEEN)
        net.SEEN.clear()
        buffers.append({n: b.clone() for n, b in self.model.named_buffers()})
        write(self, stage, record)  # type: ignore[arg-type]

    begin = Context.stage

    def stage(self: Context, name: str, steps: int, **more: bool) -> object:
        net.SEEN.clear()  # of calls before the first stage, in which the task is tried
        return begin(self, name, steps, **more)

    monkeypatch.setattr(Context, "_write", spy)
    monkeypatch.setattr(Context, "stage", stage)
    learned = {}
    for mode in ("eval", "dropout", "train"):
        text = STUDY.replace("PROTOCOL", protocol).replace("MODE", mode).replace("TRAIN", TRAIN[protocol])
        (tmp_path / "mode.toml").write_text(text + ('reset = ["layer1.*"]\n' if protocol == "transfer" else ""))
        buffers.clear()
        assert run(tmp_path / "mode.toml", tmp_path / mode) == 0, capfd.readouterr().err
        for stage in ("control", "add", "mul"):
            assert {s[1:] for s in seen[stage] if s[0]} == {(mode == "train", mode != "eval")}
            assert {s[1:] for s in seen[stage] if not s[0]} == {(False, False)}
        assert all(torch.equal(after[n], b) for after in buffers[1:] for n, b in buffers[0].items())
        learned[mode] = masks_from(open_cube(tmp_path / mode / "mode.zarr"), seed=1, stage="control")["layer1.weight"]
    assert not torch.equal(learned["eval"], learned["dropout"])
    assert not torch.equal(learned["dropout"], learned["train"])
    assert bool(buffers[0]["norm.num_batches_tracked"]) is (protocol == "posthoc")  # base training does count
