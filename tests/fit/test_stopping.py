"""When a fit ends before its last step: settled masks, callbacks, Ctrl-C; and what is returned then."""

from __future__ import annotations

import signal
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from modhook import ModhookWarning, Sampler, UserError, fit_masks
from modhook.fit.settled import has_settled


class Pushed(Sampler):
    """No noise: the gradient of the loss reaches the logits as it is."""

    def apply(self, weight: Tensor, logits: Tensor, generators: Any) -> Tensor:
        return (weight * logits).expand(len(generators), *weight.shape)


def network() -> nn.Module:
    """One layer whose weights are all 1."""
    net = nn.Linear(100, 1, bias=False)
    nn.init.ones_(net.weight)
    return net


def still(net: Any, batch: Tensor) -> Tensor:
    """Ten logits are pulled down to -1; the others nowhere."""
    return (net(batch) + 1).square().mean()


BATCH = torch.cat([torch.ones(4, 10), torch.zeros(4, 90)], 1)
OPTIONS: dict[str, Any] = {"samples": 2, "init": 0.5, "lr": 0.05, "sampler": Pushed(), "beta": 0.0, "progress": False}


def test_a_mask_that_stops_moving_ends_the_fit() -> None:
    """The first measured row from which 20 rows back nothing changed ends it; the masks are those of the whole fit."""
    whole = fit_masks(network(), [BATCH], still, steps=400, **OPTIONS)
    fit = fit_masks(network(), [BATCH], still, steps=400, stop="settled", **OPTIONS)
    rows, changed = [int(s) for s in whole.history["step"].values], whole.history["changed"].values
    assert changed.sum() >= 10, "something moved"
    expected = next(
        s
        for i, s in enumerate(rows)
        if s % 60 == 0 and i >= 19 and changed[i - 19 : i + 1].sum() == 0 and s * 0.05 > 3 * 0.5
    )
    assert (fit.stopped, fit.steps) == ("settled", expected)
    assert expected < 400
    assert fit.history.sizes["step"] == rows.index(expected) + 1
    assert np.isfinite(float(fit.history["mask_loss"][-1]))
    assert torch.equal(fit.masks["weight"], whole.masks["weight"])
    assert (whole.stopped, whole.steps) == (None, 400)


def test_a_mask_that_could_not_move_yet_has_not_settled() -> None:
    """Logits that no step brings to 0 never change side: that is no sign of anything."""
    fit = fit_masks(network(), [BATCH], still, steps=200, stop="settled", **{**OPTIONS, "init": 5.0, "lr": 0.01})
    assert (fit.stopped, fit.steps, float(fit.history["changed"].sum())) == (None, 200, 0)


@pytest.mark.parametrize(
    ("changed", "logits", "travelled", "start", "settled"),
    [
        ([0.0] * 20, 100, 7.0, 2.0, True),
        ([0.0] * 19, 100, 7.0, 2.0, False),
        ([0.0] * 20, 100, 6.0, 2.0, False),
        ([50.0] + [0.0] * 20, 100, 7.0, 2.0, True),
        ([1.0] + [0.0] * 19, 100, 7.0, 2.0, False),
        ([1.0] + [0.0] * 19, 10_000, 7.0, 2.0, True),
        ([1.0, 1.0] + [0.0] * 18, 10_000, 7.0, 2.0, False),
        ([0.0] * 30, 100, float("nan"), 2.0, False),
        ([9.0] + [0.0] * 29, 100, float("nan"), 2.0, True),
    ],
)
def test_the_rule(changed: list[float], logits: int, travelled: float, start: float, settled: bool) -> None:
    """20 rows, 1e-4 of all logits, 3 times the way to 0; where the way is not known, something must have moved."""
    assert has_settled(changed, logits, travelled, start) is settled


TRUTHS = [
    (True, 7),
    (np.True_, 7),
    (torch.tensor(True), 7),
    (torch.tensor([True]), 7),
    (np.array(True), 7),
    (torch.tensor(False), 30),
    (torch.tensor([True, True]), 30),
    (torch.tensor(1), 30),
    (1, 30),
    ("yes", 30),
    (None, 30),
]


@pytest.mark.parametrize(("answer", "steps"), TRUTHS)
def test_a_callback_that_returns_true_stops(answer: Any, steps: int) -> None:
    """True ends the fit after that step, with all that was learned; other values mean nothing."""
    fit = fit_masks(network(), [BATCH], still, steps=30, callback=lambda s, t: answer if s == 7 else None, **OPTIONS)
    seven = fit_masks(network(), [BATCH], still, steps=steps, **OPTIONS)
    assert (fit.stopped, fit.steps) == ("callback" if steps == 7 else None, steps)
    assert torch.equal(fit.logits["weight"], seven.logits["weight"])
    assert fit.history["step"].values[-1] == steps


def test_ctrl_c_returns_what_there_is() -> None:
    """After the step under way, with a warning; Ctrl-C is Python's own again afterwards."""

    def press(step: int, trainer: Any) -> None:
        if step == 7:
            signal.raise_signal(signal.SIGINT)

    with pytest.warns(ModhookWarning, match="stopped by Ctrl-C after 7 of 30 steps") as caught:
        fit = fit_masks(network(), [BATCH], still, steps=30, callback=press, **OPTIONS)
    assert caught[0].filename == __file__
    assert (fit.stopped, fit.steps) == ("interrupted", 7)
    seven = fit_masks(network(), [BATCH], still, steps=7, **OPTIONS)
    assert torch.equal(fit.logits["weight"], seven.logits["weight"])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_ends_everything() -> None:
    """It raises as usual, in the middle of the step, and Ctrl-C is Python's own again."""
    steps = []

    def press(step: int, trainer: Any) -> None:
        steps.append(step)
        if step == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit_masks(network(), [BATCH], still, steps=30, callback=press, **OPTIONS)
    assert steps == [1, 2, 3]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_a_batch_is_awaited() -> None:
    """Workers of a DataLoader end at Ctrl-C, too, and drawing fails: the steps before are returned all the same."""

    def batches() -> Any:
        for _ in range(3):
            yield BATCH
        signal.raise_signal(signal.SIGINT)
        raise RuntimeError("DataLoader worker exited unexpectedly")

    with pytest.warns(ModhookWarning, match="after 3 of 30 steps"):
        fit = fit_masks(network(), batches(), still, steps=30, **OPTIONS)
    assert (fit.stopped, fit.steps) == ("interrupted", 3)


def test_a_program_that_handles_ctrl_c_itself_keeps_it() -> None:
    """Its handler is called and stays; in another thread than the main one nothing is touched either."""
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(1))
    try:
        fit = fit_masks(
            network(), [BATCH], still, steps=5, callback=lambda s, t: signal.raise_signal(signal.SIGINT), **OPTIONS
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert (fit.stopped, len(pressed)) == (None, 5)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(fit_masks(network(), [BATCH], still, steps=2, **OPTIONS)))
    thread.start()
    thread.join()
    assert found[0].steps == 2


def test_batches_that_end_and_a_word_that_is_no_rule() -> None:
    """The end of an iterator is one of the reasons; another word than "settled" is refused."""
    with pytest.warns(ModhookWarning, match="ended after 3 of 9"):
        fit = fit_masks(network(), iter([BATCH] * 3), still, steps=9, **OPTIONS)
    assert (fit.stopped, fit.steps) == ("batches", 3)
    with pytest.raises(UserError, match=r"unknown stop 'setled' \(did you mean 'settled'\?\)"):
        fit_masks(network(), [BATCH], still, steps=1, stop="setled", **OPTIONS)
