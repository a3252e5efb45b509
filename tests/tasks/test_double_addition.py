"""Double addition against the reference's draw, Python's arithmetic and hand-placed inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from modhook import UserError
from modhook_tasks.double_addition import DoubleAddition, DoubleAdditionOptions

MODES = ("together", "only_one", "only_one_io", "same_output", "same_input", "same_io", "fnn")
RNG = np.random.default_rng(0)


def task(mode: Any = "together", **options: Any) -> DoubleAddition:
    """Return a small task."""
    return DoubleAddition(DoubleAdditionOptions(mode, train_size=30, valid_size=20, **options))


def test_draw_of_the_reference() -> None:
    """Published sizes, and one draw of blocks per set."""
    full = DoubleAddition(DoubleAdditionOptions())
    assert (len(full.train_set(None)["numbers"]), len(full.test_set("iid")["numbers"])) == (1_000_000, 10_000)
    random = np.random.RandomState(0x12345678 + 2)
    blocks = [random.randint(0, 100, (10_000, 1, 2)) for _ in range(2)]
    assert np.array_equal(full.test_set("iid")["numbers"], np.concatenate(blocks, 1))


def place(mode: str, a: int, b: int, c: int, d: int, hide: int | None = None) -> Tensor:
    """Return one item's inputs, written out by hand."""
    inputs = 40 if mode in ("same_input", "same_io") else 80
    rows = torch.zeros(2 if mode == "fnn" else 6, inputs)
    for t, (x, y) in enumerate(((a, b), (c, d))):
        if t == hide:
            continue
        slot = 0 if inputs == 40 else 40 * t
        steps = [t] if mode == "fnn" else range(6) if mode == "together" else range(3 * t, 3 * t + 3)
        for step in steps:
            for i, digit in enumerate((x % 10, x // 10, y % 10, y // 10)):
                rows[step, slot + 10 * i + digit] = 1
    return rows


@pytest.mark.parametrize("mode", MODES)
def test_inputs_by_hand(mode: str) -> None:
    """Every mode shows each tuple in its own slot and time; a stage hides the other tuple, a test set nothing."""
    t = task(mode)
    for stage, hide in (("control", None), ("tuple1", 1), ("tuple2", 0)):
        raw = t.train_set(stage)
        batch = t.prepare(raw, RNG, True)
        for i, two in enumerate(raw["numbers"].flatten(1).tolist()):
            assert torch.equal(batch["inputs"][i], place(mode, *two, hide=hide))
            assert batch["counted"][i].tolist() == [hide != 0, hide != 1]
    raw = t.test_set("tuple1")
    assert torch.equal(t.prepare(raw, RNG, False)["inputs"][3], place(mode, *raw["numbers"][3].flatten().tolist()))


@pytest.mark.parametrize("mode", MODES)
def test_each_sum_is_read_from_its_place(mode: str) -> None:
    """A network that writes the right digits at the right place and time only is right; one wrong digit costs one sum."""
    t = task(mode)
    steps, outputs = 2 if mode == "fnn" else 6, 20 if mode in ("same_output", "same_io") else 40
    for split, expected in (("iid", [0.0, 1.0]), ("tuple1", [1.0, 1.0]), ("tuple2", [0.0, 1.0])):
        raw = t.test_set(split)
        batch = t.prepare(raw, RNG, False)
        out = torch.zeros(20, steps, outputs)
        for i, two in enumerate(raw["numbers"].tolist()):
            for pair, (x, y) in enumerate(two):
                answer = (x + y) % 100
                if i == 0 and pair == 1:
                    answer = (answer + 10) % 100
                last = mode in ("together", "only_one")
                step = pair if mode == "fnn" else 5 if last else 3 * pair + 2
                slot = 0 if outputs == 20 else 20 * pair
                out[i, step, slot + answer % 10] = out[i, step, slot + 10 + answer // 10] = 9.0
        assert t.score(lambda x, out=out: out, batch)["accuracy"][:2].tolist() == expected
        assert t.loss(lambda x, out=out: out, batch) < 0.5


def test_loss_is_the_mean_of_the_sums_that_count() -> None:
    """The loss of a single-sum stage is that sum's cross-entropy; of both, the mean of the two."""
    t = task("fnn")
    out = torch.randn(30, 2, 40)
    both = t.prepare(t.train_set("control"), RNG, True)
    each = [nn.functional.cross_entropy(out[:, p, 20 * p : 20 * p + 20].reshape(-1, 10), both["target"][:, p].flatten()) for p in (0, 1)]
    for stage, expected in (("control", sum(each) / 2), ("tuple1", each[0]), ("tuple2", each[1])):
        batch = t.prepare(t.train_set(stage), RNG, True)
        torch.testing.assert_close(t.loss(lambda x: out, batch), expected)


def test_delay() -> None:
    """The second sum counts only after the delay, in base training alone."""
    t = task(tuple2_delay=2)
    raw = t.train_set(None)
    assert [t.prepare(raw, RNG, True)["counted"][0].tolist() for _ in range(3)] == [[True, False]] * 2 + [[True, True]]
    assert t.prepare(t.train_set("control"), RNG, True)["counted"].all()


def test_copied_io() -> None:
    """Tuple 1 gets tuple 2's columns and rows, so that a network treats equal tuples equally; nothing else changes."""
    t = task("fnn", copied_io=True)
    net = nn.Sequential(nn.Linear(80, 7), nn.ReLU(), nn.Linear(7, 40))
    before = {n: p.clone() for n, p in net.named_parameters()}
    t.edit_network(net, "tuple1")
    x = torch.randn(5, 40)
    zero = torch.zeros(5, 40)
    first, second = net(torch.cat([x, zero], 1))[:, :20], net(torch.cat([zero, x], 1))[:, 20:]
    torch.testing.assert_close(first, second)
    assert torch.equal(net[0].weight[:, 40:], before["0.weight"][:, 40:])
    assert torch.equal(net[2].bias[20:], before["2.bias"][20:])
    with pytest.raises(UserError, match="copied_io needs mode = 'fnn'"):
        task("together", copied_io=True)


def test_text() -> None:
    """Items as people read them."""
    numbers = torch.tensor([[[17, 85], [3, 4]]])
    assert task().decode({"numbers": numbers}) == ["17 + 85 = 02, 3 + 4 = 07"]
