"""What a task plugin may ask of the runner: copied masks, an edited network, prepared batches, its own metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import modhook.plugin.manager
from modhook import Stage, Task
from modhook.cube import masks_from, open_cube, weights_from
from modhook.plugin.hookspecs import Spec
from modhook.plugin.manager import Entry, Plugins, plugins

Run = Callable[..., tuple[int, str, str]]


class Copies(Task):
    """Two stages; `second` copies the control's mask of the last layer, and sees a network whose first bias is zero."""

    metrics = ("accuracy", "margin")
    prepared: list[bool] = []  # noqa: RUF012 - shared on purpose: the test looks at it

    @property
    def splits(self) -> tuple[str, ...]:
        """One split."""
        return ("all",)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The control and one that copies."""
        return (Stage("control", "everything"), Stage("second", "copies the output's mask", copied=("output.*",)))

    def shape(self) -> dict[str, Any]:
        """Vectors of four, two classes."""
        return {"inputs": 4, "outputs": 2}

    def train_set(self, stage: str | None) -> dict[str, Tensor]:
        """Points and the sign of their first coordinate."""
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        return {"x": x, "y": (x[:, 0] > 0).long()}

    def test_set(self, split: str) -> dict[str, Tensor]:
        """The same points."""
        return self.train_set(None)

    def prepare(self, batch: dict[str, Any], rng: np.random.Generator, training: bool) -> dict[str, Any]:
        """Scale by a number from the run's own random source in training."""
        self.prepared.append(training)
        return batch | {"scale": float(rng.uniform(0.9, 1.1)) if training else 1.0}

    def loss(self, net: Any, batch: dict[str, Any]) -> Tensor:
        """Cross-entropy."""
        return nn.functional.cross_entropy(net(batch["x"] * batch["scale"]), batch["y"])

    def score(self, net: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Accuracy and the size of the first bias, which the edit changes."""
        out = net(batch["x"])
        return {
            "accuracy": (out.argmax(-1) == batch["y"]).double(),
            "margin": net.layer1.bias.abs().sum().expand(len(out)),
        }

    def edit_network(self, model: nn.Module, stage: str) -> None:
        """Zero the first bias in `second`."""
        if stage == "second":
            with torch.no_grad():
                model.layer1.bias.zero_()


@pytest.fixture
def with_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the task above as if a package brought it."""
    import sys

    monkeypatch.setitem(sys.modules, "copies_plugin", sys.modules[__name__])
    entries = [e for kind in modhook.plugin.manager.KINDS for e in plugins().entries(kind)]
    found = Plugins(
        [*entries, Entry("tasks", Spec("copies", "for a test", "copies_plugin:Copies"), "modhook-copies")], []
    )
    monkeypatch.setattr(modhook.plugin.manager, "plugins", lambda: found)


@pytest.mark.usefixtures("with_copies")
def test_copied_masks_and_an_edited_network(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """A copied mask is the control's, bit for bit; the edit holds in its stage only, and the cube keeps the trained weights."""
    text = tiny.read_text().replace('name = "addmul"\ntrain_size = 400\nvalid_size = 60', 'name = "copies"')
    tiny.write_text(text)
    code, _, err = modhook_run("run", tiny, "--out", tmp_path)
    assert code == 0, err
    with open_cube(tmp_path / "tiny.zarr") as cube:
        for seed in (1, 2):
            control, second = (masks_from(cube, seed=seed, stage=s) for s in ("control", "second"))
            assert torch.equal(control["output.weight"], second["output.weight"])
            assert not torch.equal(control["layer1.weight"], second["layer1.weight"])
            margin = cube["scores"]["margin"].sel(seed=seed, split="all")
            bias = float(weights_from(cube, seed)["layer1.bias"].abs().sum())
            assert float(margin.sel(stage="control")) == pytest.approx(bias)
            assert float(margin.sel(stage="second")) == 0
            assert float(cube["inverse"]["margin"].sel(seed=seed, stage="second", split="all")) == 0
            on_the_way = cube["history"]["valid_margin"].sel(seed=seed, split="all")
            assert on_the_way.sel(stage="second").values.tolist() == [0.0, 0.0]
            assert on_the_way.sel(stage="control").values == pytest.approx([bias, bias])
    assert set(Copies.prepared) == {True, False}
