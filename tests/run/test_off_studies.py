"""`masks.off`: what a weight becomes that is not kept, in every place where a study measures masks, against plain deep copies."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from modhook import Masks
from modhook.cube import Cube, masks_from, open_cube
from modhook_plugins.networks.fnn import FNN, FNNOptions
from modhook_tasks.addmul import AddMul, AddMulOptions

Run = Callable[..., tuple[int, str, str]]
TASK = AddMul(AddMulOptions(400, 60))


def network() -> nn.Module:
    """Return the study's network."""
    torch.manual_seed(7)
    return FNN(FNNOptions(hidden=(64,))).build(TASK.shape()).eval()


def accuracy(net: nn.Module, split: str) -> float:
    """Return the share of right answers of a network on a split."""
    with torch.no_grad():
        return float(TASK.score(net, TASK.prepare(TASK.test_set(split), None, False))["accuracy"].double().mean())


def trained() -> nn.Module:
    """Return a network that was trained for a moment, without modhook."""
    net, data = network(), TASK.train_set(None)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(250):
        optimizer.zero_grad()
        TASK.loss(net, TASK.prepare(data, None, True)).backward()
        optimizer.step()
    return net


@pytest.mark.parametrize("kind", ["file", "shuffled"])
def test_every_score_of_a_study_is_that_of_the_other_weights(tiny: Path, tmp_path: Path, modhook_run: Run, kind: str) -> None:
    """Scores, validation and an analysis' inverted masks equal those of deep copies with the other weights put in by hand."""
    net = trained()
    other = {n: t + 0.3 * t.std() * torch.randn_like(t) for n, t in net.state_dict().items()}
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    save_file(other, tmp_path / "before-1.safetensors")
    off = "shuffled" if kind == "shuffled" else "before-{seed}.safetensors"
    text = tiny.read_text().replace("steps = 6", 'weights = "w.safetensors"').replace("lr = 0.8", f'lr = 2.0\noff = "{off}"')
    tiny.write_text(text.replace("hidden = [12, 8]", "hidden = [64]"))
    for folder, steps in (("short", 2), ("long", 4)):
        given = ("--out", tmp_path / folder, "--set", "study.seeds=1", "--set", f"masks.steps={steps}")
        code, _, err = modhook_run("run", tiny, *given)
        assert code == 0, err
    differ = 0
    with open_cube(tmp_path / "long" / "tiny.zarr") as cube, open_cube(tmp_path / "short" / "tiny.zarr") as short:
        for stage in ("control", "add", "mul"):
            masks = masks_from(cube, seed=1, stage=stage)
            if kind == "shuffled":
                none = Masks({n: torch.zeros_like(m) for n, m in masks.items()})
                other = dict(none.materialize(net, "shuffled", seed=1).named_parameters())
            for inverted in (False, True):
                twin, zeros = copy.deepcopy(net), copy.deepcopy(net)
                for name, mask in masks.items():
                    keep = ~mask if inverted else mask
                    twin.get_parameter(name).data = torch.where(keep, net.get_parameter(name), other[name]).detach()
                    zeros.get_parameter(name).data *= keep
                found = cube["inverse" if inverted else "scores"]["accuracy"].sel(seed=1, stage=stage)
                for split in ("iid", "add", "mul"):
                    assert float(found.sel(split=split)) == accuracy(twin, split)
                    differ += accuracy(twin, split) != accuracy(zeros, split)
            valid = cube["history"]["valid_accuracy"].sel(seed=1, stage=stage, valid_step=2)
            assert np.array_equal(valid, short["scores"]["accuracy"].sel(seed=1, stage=stage)), "measured on the way"
        assert differ > (6 if kind == "file" else 0), "a test that zero would pass as well"
        assert accuracy(net, "iid") == float(cube["scores"]["accuracy"].sel(seed=1, stage="unmasked", split="iid"))


@pytest.mark.parametrize(
    ("off", "study", "said"),
    [
        ("shufled", "", "masks.off: there is no file"),
        ("shufled", "", "did you mean 'shuffled'?"),
        ("none.safetensors", "", "the name is relative to the study file; zero, shuffled, redrawn or a file"),
        ("wide.safetensors", "", "has shape (3, 42), but the parameter has (64, 42)"),
        ("lacks.safetensors", "", "off lacks"),
        ("broken.safetensors", "", "broken.safetensors"),
        ("redrawn", 'protocol = "transfer"', "masks.off: the protocol 'transfer' changes the weights that masks are over"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_computed(
    tiny: Path, tmp_path: Path, modhook_run: Run, off: str, study: str, said: str
) -> None:
    """A wrong kind, a missing, damaged or foreign file, and a protocol that changes weights end with exit code 2 and no cube."""
    state = network().state_dict()
    first, *rest = state
    save_file({**state, first: state[first][:3].clone()}, tmp_path / "wide.safetensors")
    save_file({n: state[n] for n in rest}, tmp_path / "lacks.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    text = tiny.read_text().replace("lr = 0.8", f'lr = 0.8\noff = "{off}"').replace("seeds = 2", f"seeds = 2\n{study}")
    tiny.write_text(text.replace("hidden = [12, 8]", "hidden = [64]"))
    code, _, err = modhook_run("run", tiny, "--out", tmp_path)
    assert code == 2
    assert said in err
    assert not (tmp_path / "tiny.zarr").exists()


def test_a_file_that_changed_between_finished_stages_is_refused(
    tiny: Path, tmp_path: Path, modhook_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other weights in a file that finished masks were learned with are refused before anything is written; others may change."""
    state = {n: t + 0.1 for n, t in network().state_dict().items()}
    for seed in (1, 2):
        save_file(state, tmp_path / f"before-{seed}.safetensors")
    text = tiny.read_text().replace("lr = 0.8", 'lr = 0.8\noff = "before-{seed}.safetensors"')
    tiny.write_text(text.replace("hidden = [12, 8]", "hidden = [64]"))
    cube, one = tmp_path / "tiny.zarr", ("--set", "study.seeds=1")
    assert modhook_run("run", tiny, "--out", tmp_path, *one)[0] == 0
    first = next(name for name, t in state.items() if t.dim() > 1)
    changed = {**state, first: state[first] + 1e-6}
    save_file(changed, tmp_path / "before-1.safetensors")
    save_file(changed, tmp_path / "before-2.safetensors")
    before = {f: f.read_bytes() for f in cube.rglob("*") if f.is_file()}
    code, _, err = modhook_run("run", tiny, "--out", tmp_path)
    assert (code, "computed with other weights in 'before-1.safetensors' (masks.off)" in err) == (2, True), err
    assert {f: f.read_bytes() for f in cube.rglob("*") if f.is_file()} == before
    save_file(state, tmp_path / "before-1.safetensors")
    code, _, err = modhook_run("run", tiny, "--out", tmp_path)
    assert code == 0, err
    monkeypatch.chdir(tmp_path)  # a cube does not know where its study's file was
    code, _, err = modhook_run("analyse", cube, "own_removed")
    assert code == 0, err
    save_file(state, tmp_path / "before-2.safetensors")
    code, _, err = modhook_run("run", tiny, "--out", tmp_path)
    assert (code, "before-2.safetensors" in err) == (2, True), err
    code, _, err = modhook_run("analyse", cube, "random")
    assert (code, "other weights in 'before-2.safetensors' (masks.off)" in err) == (2, True), err


def test_a_file_of_trained_weights_that_changed_is_refused_once_a_run_has_read_it(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """The seeds of one cube never start from two networks that were in one file of `train.weights`, nor do those of a joined cube."""
    state = network().state_dict()
    save_file(state, tmp_path / "w.safetensors")
    tiny.write_text(tiny.read_text().replace("steps = 6", 'weights = "w.safetensors"').replace("hidden = [12, 8]", "hidden = [64]"))
    assert modhook_run("run", tiny, "--out", tmp_path, "--only", "seed=1")[0] == 0
    first = next(iter(state))
    save_file({**state, first: state[first] + 1e-6}, tmp_path / "w.safetensors")
    code, _, err = modhook_run("run", tiny, "--out", tmp_path, "--only", "seed=2")
    assert (code, "computed with other weights in 'w.safetensors' (train.weights)" in err) == (2, True), err
    assert modhook_run("run", tiny, "--out", tmp_path / "apart", "--only", "seed=2")[0] == 0
    cubes = (tmp_path / "tiny.zarr", tmp_path / "apart" / "tiny.zarr")
    code, _, err = modhook_run("join", tmp_path / "both.zip", *cubes)
    assert (code, "computed with other weights in 'w.safetensors' (train.weights)" in err) == (2, True), err
    save_file(state, tmp_path / "w.safetensors")
    assert modhook_run("run", tiny, "--out", tmp_path, "--only", "seed=2")[0] == 0


def test_a_file_that_is_exchanged_while_a_study_runs_ends_the_runs_that_would_read_it(
    tiny: Path, tmp_path: Path, modhook_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second seed of one command reads the file anew, and is refused other weights than those of the first; absolute names too."""
    state = network().state_dict()
    file = tmp_path / "w.safetensors"
    save_file(state, file)
    tiny.write_text(tiny.read_text().replace("steps = 6", f'weights = "{file}"').replace("hidden = [12, 8]", "hidden = [64]"))
    first, write = next(iter(state)), Cube.set_status

    def exchanging(self: Cube, run: Any, stage: str, *more: Any, **told: Any) -> None:
        write(self, run, stage, *more, **told)
        if stage == "mul":
            save_file({**state, first: state[first] + 1e-6}, file)

    monkeypatch.setattr(Cube, "set_status", exchanging)
    code, out, err = modhook_run("run", tiny, "--out", tmp_path)
    assert (code, f"computed with other weights in '{file}' (train.weights)" in err, "4 stages computed" in out) == (1, True, True), err
    with monkeypatch.context() as there:
        there.chdir(tmp_path)
        code, _, err = modhook_run("run", "tiny.toml", "--out", tmp_path, "--only", "seed=2")
    assert (code, "computed with other weights in" in err) == (2, True), err
