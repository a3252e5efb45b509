"""Fits that are kept in a file: continued to the very bits, refused where anything is another, removed when complete."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from modhook import Fit, ModhookWarning, fit_masks
from modhook.errors import CheckpointError, UserError
from modhook.fit import filed
from modhook.values.randomness import drawing

ITEMS = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))


def loss(net: Any, batch: Any) -> torch.Tensor:
    """Squared outputs."""
    out: torch.Tensor = (net(batch) - 1).square().mean()
    return out


def fitted(**options: Any) -> Fit:
    """A fit of 70 steps of a network with dropout."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 2))
    fixed: dict[str, Any] = {"samples": 2, "steps": 70, "lr": 0.1, "sampler": "gumbel", "progress": False}
    return fit_masks(net, list(ITEMS.split(8)), options.pop("loss", loss), **{**fixed, **options})


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


def output(net: Any, batch: Any, which: int = 0) -> torch.Tensor:
    """One output, squared."""
    out: torch.Tensor = (net(batch)[:, which] - 1).square().mean()
    return out


class Output:
    """A loss with a number of its own."""

    def __init__(self, which: int) -> None:
        self.which = which
        self.seen: list[int] = []

    def loss(self, net: Any, batch: Any) -> torch.Tensor:
        self.seen.append(len(batch))
        return output(net, batch, self.which)


def made(which: int) -> Any:
    """Return a loss that holds its number as a closure."""
    return lambda net, batch: output(net, batch, which)


LOSSES = {
    "partial": [functools.partial(output, which=0), functools.partial(output, which=1)],
    "place": [functools.partial(output, which=0), output],
    "closure": [made(0), made(1)],
    "lambdas": [lambda net, batch: output(net, batch, 0), lambda net, batch: output(net, batch, 1)],
    "method": [Output(0).loss, Output(1).loss],
}


@pytest.mark.parametrize("kind", LOSSES)
def test_the_file_of_another_function_is_refused(tmp_path: Path, kind: str) -> None:
    """Losses that differ in a number, as arguments of a partial, in a closure, in their code or in their object, are two losses."""
    file, (one, other) = tmp_path / "fit.safetensors", LOSSES[kind]
    with pytest.warns(ModhookWarning, match="after 33 of 70"):
        fitted(loss=one, checkpoint=file, callback=press)
    with pytest.raises(CheckpointError, match=r"of another computation: loss was .*; delete it, or give another file"):
        fitted(loss=other, checkpoint=file)
    assert fitted(loss=one, checkpoint=file).steps == 70


def test_a_gpu_of_another_kind_is_another_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit stopped on one kind of GPU does not go on with the other numbers that torch draws on another kind: that is refused."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")
    assert [drawing(torch.device(name)) for name in ("cuda:1", "cpu")] == ["cuda:1 (Card 1)", "cpu"]
    file = tmp_path / "fit.safetensors"
    monkeypatch.setattr(filed, "drawing", lambda device: f"{device} (Card 0)")
    with pytest.warns(ModhookWarning, match="after 33 of 70"):
        fitted(checkpoint=file, callback=press)
    monkeypatch.setattr(filed, "drawing", lambda device: f"{device} (Card 1)")
    with pytest.raises(CheckpointError, match=r"device was cpu \(Card 0\) and is cpu \(Card 1\); delete it, or give another file"):
        fitted(checkpoint=file)


def test_a_density_is_held_from_where_it_was(tmp_path: Path) -> None:
    """A fit of given densities that is stopped before these are reached goes on to the very bits, from its own starting density."""
    options: dict[str, Any] = {"density": {"0.*": 0.2, "*": 0.5}, "steps": 40, "exclude": ()}
    file, whole = tmp_path / "fit.safetensors", fitted(**options)
    with pytest.warns(ModhookWarning, match="after 5 of 40"):
        fitted(checkpoint=file, callback=lambda step, _: signal.raise_signal(signal.SIGINT) if step == 5 else None, **options)
    second = fitted(checkpoint=file, **options)
    assert all(torch.equal(second.logits[n], whole.logits[n]) for n in whole.logits)
    assert second.masks == whole.masks


def near(net: Any, batch: torch.Tensor) -> torch.Tensor:
    """Minus the squared error of each item."""
    return -(net(batch) - 1).square().mean(-1).detach()


def pressing(at: int) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    """The same score, in whose call number `at` Ctrl-C is pressed."""
    calls = iter(range(1, 10_000))

    def score(net: Any, batch: torch.Tensor) -> torch.Tensor:
        if next(calls) == at:
            signal.raise_signal(signal.SIGINT)
        return near(net, batch)

    return score


WITHIN: dict[str, Any] = {"within": 0.5, "valid": [ITEMS[:8], ITEMS[8:]], "steps": 20}


def test_ctrl_c_while_the_cut_is_measured(tmp_path: Path) -> None:
    """The fit is returned with the sampler's own masks, and the same call makes the cut that an unbroken one makes."""
    file, whole, steps = tmp_path / "fit.safetensors", fitted(**WITHIN, score=near), list[int]()
    with pytest.warns(ModhookWarning, match="the cut was not made, and the masks are the sampler's own"):
        first = fitted(**WITHIN, score=pressing(5), checkpoint=file)  # two calls are made before the first step
    assert (first.stopped, first.steps, file.is_file()) == ("interrupted", 20, True)
    assert first.masks == first.threshold == whole.threshold != whole.masks
    assert first.smallest(WITHIN["valid"], near, 0.5) == whole.masks
    second = fitted(**WITHIN, score=near, checkpoint=file, callback=lambda step, _: steps.append(step))
    assert (second.masks == whole.masks, second.stopped, steps, file.exists()) == (True, None, [], False)


def test_an_error_while_the_cut_is_measured_leaves_the_file(tmp_path: Path) -> None:
    """What was learned is kept, and the call that is made again with another score, or another `within`, measures only."""
    file, whole, steps = tmp_path / "fit.safetensors", fitted(**WITHIN, score=near), list[int]()
    calls = iter(range(1, 10_000))

    def score(net: Any, batch: torch.Tensor) -> torch.Tensor:
        return near(net, batch) if next(calls) < 5 else torch.full((len(batch),), torch.nan)

    with pytest.raises(UserError, match="the score is nan"):
        fitted(**WITHIN, score=score, checkpoint=file)
    again = fitted(**{**WITHIN, "within": 0.2}, score=near, checkpoint=file, callback=lambda step, _: steps.append(step))
    assert (again.masks == whole.smallest(WITHIN["valid"], near, 0.2), steps, file.exists()) == (True, [], False)
    assert again.history.drop_vars("ms_per_step").equals(whole.history.drop_vars("ms_per_step"))


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (lambda n, b: {"a": near(n, b), "b": near(n, b)}, r"several metrics \(a, b\); return the one that within= is about"),
        (lambda n, b: "good", "score must return one number per item"),
        (lambda n, b: near(n, b) * torch.nan, "the score is nan, which cannot be compared"),
    ],
)
def test_a_score_that_cannot_be_compared_is_refused_first(score: Any, said: str) -> None:
    """Not one step is made before it is said."""
    steps: list[int] = []
    with pytest.raises(UserError, match=said):
        fitted(**WITHIN, score=score, callback=lambda step, _: steps.append(step))
    assert steps == []


def test_files_that_cannot_be(tmp_path: Path) -> None:
    """A folder, a missing folder and a file of something else are refused in one sentence, and stay."""
    (tmp_path / "x").write_text("no checkpoint")
    for path, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "a/b", "is not there"),
        (tmp_path / "x", "cannot be read"),
        ("a\0b", "no file can have the name"),
    ):
        with pytest.raises(UserError, match=said):
            fitted(checkpoint=path)
    assert (tmp_path / "x").read_text() == "no checkpoint"
