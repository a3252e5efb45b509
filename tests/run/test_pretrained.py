"""Weights that are loaded instead of trained: tested before masking, and refused where they are code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from modhook.cube import masks_from, open_cube, weights_from
from modhook_tasks.addmul import AddMul, AddMulOptions

Run = Callable[..., tuple[int, str, str]]
NET = """
from torch import nn
def make(width):
    return nn.Sequential(nn.Linear(42, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 20))
"""


@pytest.fixture
def mine(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The study with a network that is no plugin, and weights in `w.pt` instead of training."""
    (tmp_path / "pretrained_net.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    text = tiny.read_text().replace('name = "fnn"\nhidden = [12, 8]', 'name = "pretrained_net:make"\nwidth = 64')
    tiny.write_text(text.replace("steps = 6", 'weights = "w.pt"').replace("valid_size = 60", "valid_size = 300"))
    return tiny


def _inputs(operands: torch.Tensor, operation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the inputs (N, 42) and the digits of the results (N, 2), written out."""
    a, b = operands.long().unbind(1)
    digits = torch.cat([F.one_hot(d, 10) for d in (a % 10, a // 10, b % 10, b // 10)], 1)
    right = torch.where(operation == 0, a + b, a * b) % 100
    return torch.cat([digits, F.one_hot(operation.long(), 2)], 1).float(), torch.stack([right % 10, right // 10], 1)


def _trained() -> nn.Module:
    """Return a network that was trained without modhook, for a moment."""
    namespace: dict[str, Any] = {}
    exec(NET, namespace)  # the very text of the module
    torch.manual_seed(0)
    net: nn.Module = namespace["make"](64)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(150):
        x, y = _inputs(torch.randint(100, (512, 2)), torch.randint(2, (512,)))
        loss = F.cross_entropy(net(x).view(-1, 10), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_pretrained_weights_are_tested_before_masking(mine: Path, tmp_path: Path, modhook_run: Run, kind: str) -> None:
    """`unmasked` holds the scores of the file's weights, computed plainly; masks are learned on the very same weights."""
    net = _trained()
    state = net.state_dict()
    save_file(state, tmp_path / "w.safetensors") if kind == "safetensors" else torch.save(state, tmp_path / "w.pt")
    mine.write_text(mine.read_text().replace("w.pt", f"w.{kind}"))
    code, _, err = modhook_run("run", mine, "--out", tmp_path, "--set", "study.seeds=1")
    assert code == 0, err
    with open_cube(tmp_path / "tiny.zarr") as cube:
        scores = cube["scores"]["accuracy"].sel(seed=1, stage="unmasked")
        for split in ("iid", "add", "mul"):
            x, y = _inputs(**AddMul(AddMulOptions(400, 300)).test_set(split))
            with torch.no_grad():
                right = (net(x).view(-1, 2, 10).argmax(-1) == y).all(1)
            assert float(scores.sel(split=split)) == float(right.double().mean())
        assert 0.02 < float(scores.sel(split="iid")) < 0.98, "the test needs a network that can do something"
        stored = weights_from(cube, seed=1)
        assert all(torch.equal(stored[n], t) for n, t in state.items())
        assert "train_loss" not in cube["history"], "nothing was trained"
        assert 0 < masks_from(cube, seed=1, stage="add").density < 1


def test_a_network_of_the_papers_own_code(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """`train.weights` names its model.pth, one per seed: `unmasked` is what these weights compute, and nothing is trained."""
    text = (
        tiny.read_text()
        .replace("steps = 6", 'weights = "{seed}/model.pth"')
        .replace("valid_size = 60", "valid_size = 300")
    )
    tiny.write_text(text)
    generator = torch.Generator().manual_seed(1)
    parameters = {}
    for seed in (1, 2):
        found = parameters[seed] = {}
        for i, (a, b) in enumerate(((42, 12), (12, 8), (8, 20))):
            found[f"layers_{i}_bias"] = torch.randn(b, generator=generator)
            found[f"layers_{i}_weight"] = torch.randn(b, a, generator=generator)
        (tmp_path / str(seed)).mkdir()
        torch.save({"VERSION": 1, "parameters": found, "state": {}}, tmp_path / f"{seed}/model.pth")
    code, _, err = modhook_run("run", tiny, "--out", tmp_path)
    assert code == 0, err
    x, y = _inputs(**AddMul(AddMulOptions(400, 300)).test_set("iid"))
    with open_cube(tmp_path / "tiny.zarr") as cube:
        for seed, p in parameters.items():
            out = x
            for i in range(3):
                out = (out.clamp(min=0) if i else out) @ p[f"layers_{i}_weight"].T + p[f"layers_{i}_bias"]
            right = (out.view(-1, 2, 10).argmax(-1) == y).all(1)
            assert float(cube["scores"]["accuracy"].sel(seed=seed, stage="unmasked", split="iid")) == float(
                right.double().mean()
            )
            assert torch.equal(weights_from(cube, seed=seed)["layer2.weight"], p["layers_1_weight"])
        assert "train_loss" not in cube["history"]
    tiny.write_text(tiny.read_text().replace("hidden = [12, 8]", "hidden = [12, 9]"))
    code, _, err = modhook_run("run", tiny, "--out", tmp_path / "other")
    words = "layers_1, weight, has shape (8, 12)", "layer2.weight has (9, 12); is it the same network?"
    assert (code, [w in " ".join(err.split()) for w in words], "Traceback" in err) == (2, [True, True], False), err
    assert not (tmp_path / "other").exists()


def test_a_file_with_code_is_refused(mine: Path, tmp_path: Path, modhook_run: Run) -> None:
    """A file that would run code, a whole pickled network, and no weights at all: one sentence each, and nothing is run."""

    class Evil:
        """Would make a folder if it were unpickled."""

        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "evil"),))

    said = "holds Python objects besides tensors, which are code that loading would run, so it is refused"
    for content in ({"0.weight": Evil()}, nn.Linear(42, 8)):
        torch.save(content, tmp_path / "w.pt")
        code, _, err = modhook_run("run", mine, "--out", tmp_path / "out")
        assert (code, said in err, "model.state_dict()" in err) == (2, True, True), err
    (tmp_path / "w.pt").write_text("no weights")
    code, _, err = modhook_run("run", mine, "--out", tmp_path / "out")
    assert (code, "cannot be read as weights" in err) == (2, True), err
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "out").exists()
