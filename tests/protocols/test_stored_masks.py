"""Masks of earlier stages are those that were stored, also where a logit rounds to zero in float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from modhook import Masks
from modhook.cli import main
from modhook.cube import masks_from, open_cube
from modhook_plugins.protocols.transfer import Transfer

POSTHOC = """
[study]
name = "tiny"
[task]
name = "cifar10"
source = "generated"
removed = ["cat", "dog"]
[model]
name = "cnn"
channels = [4, 4, 4, 4]
[train]
steps = 2
batch = 16
validate_every = 0
[masks]
steps = 2
samples = 2
exclude = []
logits_dtype = "float16"
"""
TRANSFER = """
[study]
name = "tiny"
protocol = "transfer"
[task]
name = "addmul"
train_size = 300
valid_size = 40
[model]
name = "fnn"
hidden = [9, 7]
init = "xavier"
[masks]
steps = 2
samples = 2
exclude = []
logits_dtype = "float16"
"""


def tiny(logit: Tensor) -> Tensor:
    """Every other logit just below zero, the others just above: float16 knows neither."""
    return torch.where(torch.arange(logit.numel()).view_as(logit) % 2 == 0, -1e-9, 1e-9)


@pytest.fixture
def just_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits end with logits of +-1e-9, and the masks that belong to them."""
    import attrs

    import modhook

    learn = modhook.fit_masks

    def fit_masks(model, *args, fixed=None, **kwargs):  # type: ignore[no-untyped-def]
        fit = learn(model, *args, fixed=fixed, **kwargs)
        logits = {n: tiny(t) for n, t in fit.logits.items()}
        masks = Masks({**{n: t >= 0 for n, t in logits.items()}, **(fixed or {})}, model)
        return attrs.evolve(fit, logits=logits, masks=masks)

    monkeypatch.setattr(modhook, "fit_masks", fit_masks)


def ran(text: str, folder: Path) -> Path:
    """Run a study; return its cube."""
    (folder / "tiny.toml").write_text(text)
    with pytest.raises(SystemExit) as stop:
        main(["run", str(folder / "tiny.toml"), "--out", str(folder)])
    assert stop.value.code == 0
    return folder / "tiny.zarr"


@pytest.mark.usefixtures("just_below")
def test_copied_masks_are_the_stored_ones(tmp_path: Path) -> None:
    """A stage that copies the control's output mask has exactly that mask: half of the weights, and not all of them."""
    with open_cube(ran(POSTHOC, tmp_path)) as cube:
        assert (cube["masks/layout0/logits"].values.astype(np.float64) >= 0).all()  # what rounding leaves
        control = masks_from(cube, seed=1, stage="control")
        for stage in ("cat", "dog"):
            masks = masks_from(cube, seed=1, stage=stage)
            for name in ("output.weight", "output.bias"):
                assert torch.equal(masks[name], tiny(masks[name].float()) >= 0)
                assert torch.equal(masks[name], control[name])


@pytest.mark.usefixtures("just_below")
def test_used_weights_are_those_of_the_stored_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In transfer the weights that count as used are those that an earlier mask keeps: every other one."""
    found: list[dict[str, Tensor]] = []
    used = Transfer._used

    def spy(self: Transfer, context, earlier):  # type: ignore[no-untyped-def]
        found.append(used(self, context, earlier))
        return found[-1]

    monkeypatch.setattr(Transfer, "_used", spy)
    ran(TRANSFER, tmp_path)
    first, *later = found
    assert not any(mask.any() for mask in first.values())
    for masks in later:
        for name, mask in masks.items():
            expected = torch.zeros_like(mask) if name.startswith("layer1.") else tiny(mask.float()) >= 0
            assert torch.equal(mask, expected), name
