"""Fits that are kept in a file: continued to the very bits, refused where anything is another, removed when complete."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from modhook import Fit, ModhookWarning, fit_masks
from modhook.errors import CheckpointError, UserError

ITEMS = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))


def loss(net: Any, batch: Any) -> torch.Tensor:
    """Squared outputs."""
    out: torch.Tensor = (net(batch) - 1).square().mean()
    return out


def fitted(**options: Any) -> Fit:
    """A fit of 70 steps of a network with dropout."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 2))
    fixed: dict[str, Any] = {"samples": 2, "steps": 70, "lr": 0.1, "progress": False}
    return fit_masks(net, list(ITEMS.split(8)), loss, **{**fixed, **options})


def press(step: int, trainer: Any) -> None:
    """Press Ctrl-C at step 33."""
    if step == 33:
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_and_the_same_call_again(tmp_path: Path) -> None:
    """Logits, masks and history of a fit in two parts are those of an unbroken one; other arguments and networks are refused."""
    file, whole = tmp_path / "fit.safetensors", fitted()
    with pytest.warns(ModhookWarning, match="after 33 of 70"):
        first = fitted(checkpoint=file, callback=press)
    assert (first.stopped, file.is_file()) == ("interrupted", True)
    for other, said in (
        ({"lr": 0.2}, r"lr was 0\.1 and is 0\.2"),
        ({"sampler": "hard_concrete"}, "sampler was gumbel"),
    ):
        with pytest.raises(
            CheckpointError, match=f"of another computation: .*{said}.*; delete it, or give another file"
        ):
            fitted(checkpoint=file, **other)
    second = fitted(checkpoint=str(file))
    assert (second.stopped, second.steps, file.exists()) == (None, 70, False)
    assert all(torch.equal(second.logits[n], whole.logits[n]) for n in whole.logits)
    clock = "ms_per_step"
    assert second.history.drop_vars(clock).equals(whole.history.drop_vars(clock))


def test_a_density_is_held_from_where_it_was(tmp_path: Path) -> None:
    """A fit of given densities that is stopped before these are reached goes on to the very bits, from its own starting density."""
    options: dict[str, Any] = {"density": {"0.*": 0.2, "*": 0.5}, "steps": 40, "exclude": ()}
    file, whole = tmp_path / "fit.safetensors", fitted(**options)
    with pytest.warns(ModhookWarning, match="after 5 of 40"):
        fitted(checkpoint=file, callback=lambda step, _: signal.raise_signal(signal.SIGINT) if step == 5 else None, **options)
    second = fitted(checkpoint=file, **options)
    assert all(torch.equal(second.logits[n], whole.logits[n]) for n in whole.logits)
    assert second.masks == whole.masks


def test_files_that_cannot_be(tmp_path: Path) -> None:
    """A folder, a missing folder and a file of something else are refused in one sentence, and stay."""
    (tmp_path / "x").write_text("no checkpoint")
    for path, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "a/b", "is not there"),
        (tmp_path / "x", "cannot be read"),
    ):
        with pytest.raises(UserError, match=said):
            fitted(checkpoint=path)
    assert (tmp_path / "x").read_text() == "no checkpoint"
