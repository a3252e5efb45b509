"""Double addition against the reference's draw, Python's arithmetic and hand-placed inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import modhook
from modhook import UserError
from modhook.errors import StudyError
from modhook.study import structure
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
        batch = t.prepare(raw, RNG, mode != "fnn")
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


@pytest.mark.parametrize("mode", MODES)
def test_loss_is_the_mean_of_the_sums_that_count(mode: str) -> None:
    """The loss of a single-sum stage is that sum's cross-entropy; of both, the mean of the two; in a batch to measure too."""
    t = task(mode)
    torch.manual_seed(1)
    weight = torch.randn(t.outputs, t.inputs)

    def net(x: Tensor) -> Tensor:
        return x.cumsum(1) @ weight.T if mode != "fnn" else x @ weight.T

    for stage, sums in (("control", (0, 1)), ("tuple1", (0,)), ("tuple2", (1,))):
        raw = t.train_set(stage)
        losses = []
        for two in raw["numbers"].tolist():
            hide = None if len(sums) == 2 else 1 - sums[0]
            out = net(place(mode, *two[0], *two[1], hide=hide)[None])[0]
            for pair in sums:
                step = pair if mode == "fnn" else 5 if mode in ("together", "only_one") else 3 * pair + 2
                slot = 0 if t.outputs == 20 else 20 * pair
                answer = sum(two[pair]) % 100
                for place_value, digit in enumerate((answer % 10, answer // 10)):
                    logits = out[step, slot + 10 * place_value : slot + 10 * place_value + 10]
                    losses.append(-logits.log_softmax(0)[digit])
        expected = torch.stack(losses).mean()
        for training in (True, False):
            torch.testing.assert_close(t.loss(net, t.prepare(raw, RNG, training)), expected)


def test_each_pass_of_a_feed_forward_network_has_masks_of_its_own() -> None:
    """In the control stage the first half of the batch are first passes, the second half second ones; 2K groups cut them apart."""
    t = task("fnn")
    control, *others = t.stages
    assert (control.draws, [s.draws for s in others]) == (2, [1, 1])
    assert all(s.draws == 1 for s in task("together").stages)
    batch = t.prepare(t.train_set("control"), RNG, True)
    assert [len(batch[n]) for n in ("inputs", "target", "slot")] == [60, 60, 60]
    assert not batch["inputs"][:30, 40:].any()
    assert not batch["inputs"][30:, :40].any()
    assert batch["slot"].tolist() == [0] * 30 + [1] * 30
    for number, stage in enumerate(("tuple1", "tuple2")):
        batch = t.prepare(t.train_set(stage), RNG, True)
        assert batch["slot"].tolist() == [number] * 30
        assert batch["inputs"].shape == (30, 80)


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


def test_a_study_draws_masks_for_both_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner draws twice the study's samples in the control stage, and the study's own number in the others."""
    from modhook.cli import main

    drawn = {}
    fit = modhook.fit_masks

    def watched(*arguments: Any, **options: Any) -> modhook.Fit:
        drawn[options["label"]] = options["samples"], options["reg_batch"]
        return fit(*arguments, **options)

    monkeypatch.setattr(modhook, "fit_masks", watched)
    study = Path(__file__).parents[2] / "studies/tuple_fnn.toml"
    with pytest.raises(SystemExit) as stop:
        main(["run", str(study), "--variant", "smoke", "--out", str(tmp_path)])
    assert stop.value.code == 0
    assert drawn == {"control": (8, 16), "tuple1": (4, 16), "tuple2": (4, 16)}


def test_validation_of_a_stage_hides_the_other_tuple() -> None:
    """In a stage of one tuple the other's inputs are all zero and its sum counts for nothing; elsewhere nothing changes."""
    task = DoubleAddition(DoubleAdditionOptions(mode="together", train_size=20, valid_size=30))
    for stage, other in (("tuple1", 1), ("tuple2", 0)):
        for split in ("iid", stage):
            batch = task.prepare(task.validation_set(split, stage), np.random.default_rng(0), False)
            per_tuple = batch["inputs"].unflatten(-1, (2, 40))  # (B, 6, 2, 40)
            assert not per_tuple[:, :, other].any()
            assert per_tuple[:, :, 1 - other].sum((1, 2)).tolist() == [24.0] * 30  # 4 digits in 6 steps
            assert not batch["counted"][:, other].any()
            assert batch["counted"][:, 1 - other].all()
        assert task.validation_set(f"tuple{other + 1}", stage) is None
    for stage in (None, "control"):
        for split in task.splits:
            plain, shown = task.test_set(split), task.validation_set(split, stage)
            assert shown is not None
            assert all(torch.equal(plain[n], shown[n]) for n in plain)


SHAPES = (
    {"tuples": 3},
    {"terms": 3, "op": "mul"},
    {"n_digits": 3, "op": "mul"},
    {"tuples": 4, "terms": 4, "n_digits": 1, "ranges": ((0, 10), (2, 3), (5, 9), (0, 1))},
)


def _digits_of(number: int, n: int) -> list[int]:
    return [int(d) for d in reversed(f"{number:0{n}d}")]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_other_shapes_by_hand(mode: str, options: dict[str, Any]) -> None:
    """Draw, inputs, time steps, targets, where each result is read, the loss and the text, by plain loops over Python's numbers."""
    t = task(mode, **options)
    n, tuples, terms = options.get("n_digits", 2), options.get("tuples", 2), options.get("terms", 2)
    names = [f"tuple{i + 1}" for i in range(tuples)]
    assert t.splits == ("iid", *names)
    assert [s.name for s in t.stages] == ["control", *names]
    assert t.stages[0].draws == (tuples if mode == "fnn" else 1)
    wide, narrow = 10 * n * terms, 10 * n
    inputs = wide if mode in ("same_input", "same_io") else wide * tuples
    outputs = narrow if mode in ("same_output", "same_io") else narrow * tuples
    assert t.shape() == {"inputs": inputs, "outputs": outputs}

    random = np.random.RandomState(0x12345678 + 2)
    ranges = options.get("ranges", ((0, 10**n),) * tuples)
    blocks = [random.randint(low, high, (20, 1, terms)) for low, high in ranges]
    numbers = np.concatenate(blocks, 1).tolist()
    steps = tuples if mode == "fnn" else 3 * tuples
    expected, answers = torch.zeros(20, steps, inputs), torch.zeros(20, tuples, n, dtype=torch.long)
    out = torch.zeros(20, steps, outputs)
    texts = []
    for i, item in enumerate(numbers):
        said = []
        for p, pair in enumerate(item):
            made = 0 if options.get("op", "add") == "add" else 1
            for value in pair:
                made = made + value if options.get("op", "add") == "add" else made * value
            made %= 10**n
            sign = " + " if options.get("op", "add") == "add" else " * "
            said.append(f"{sign.join(map(str, pair))} = {made:0{n}d}")
            answers[i, p] = torch.tensor(_digits_of(made, n))
            shown = [p] if mode == "fnn" else range(steps) if mode == "together" else range(3 * p, 3 * p + 3)
            slot = 0 if inputs == wide else wide * p
            for step in shown:
                for place_, digit in enumerate(d for value in pair for d in _digits_of(value, n)):
                    expected[i, step, slot + 10 * place_ + digit] = 1
            read = p if mode == "fnn" else steps - 1 if mode in ("together", "only_one") else 3 * p + 2
            for place_, digit in enumerate(_digits_of(made, n)):
                # one wrong digit in the last tuple of the first item
                wrong = 1 if (i, p, place_) == (0, tuples - 1, n - 1) else 0
                out[i, read, (0 if outputs == narrow else narrow * p) + 10 * place_ + (digit + wrong) % 10] = 9.0
        texts.append(", ".join(said))

    raw = t.test_set("iid")
    assert raw["numbers"].tolist() == numbers
    assert t.decode(raw) == texts
    batch = t.prepare(raw, RNG, False)
    assert torch.equal(batch["inputs"], expected)
    assert torch.equal(batch["target"], answers)
    for split in t.splits:
        right = t.score(lambda x: out, t.prepare(t.test_set(split), RNG, False))["accuracy"].tolist()
        assert right == [0.0 if split in ("iid", names[-1]) else 1.0] + [1.0] * 19
    if mode == "fnn":  # in training the passes that count are items of their own
        control = t.prepare(t.train_set("control"), RNG, True)
        assert control["inputs"].shape == (30 * tuples, inputs)
        assert control["slot"].tolist() == [p for p in range(tuples) for _ in range(30)]
        last = t.prepare(t.train_set(names[-1]), RNG, True)
        weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(1))
        logits = (last["inputs"] @ weight.T)[:, -narrow:].unflatten(-1, (n, 10)).log_softmax(-1)
        wanted = -logits.gather(-1, last["target"].unsqueeze(-1)).mean()
        torch.testing.assert_close(t.loss(lambda x: x @ weight.T, last), wanted)
    else:
        one = t.prepare(t.train_set(names[1]), RNG, True)
        assert one["counted"][0].tolist() == [p == 1 for p in range(tuples)]


def test_the_delay_is_for_all_tuples_but_the_first() -> None:
    """With three sums, only the first counts before the delay is over."""
    t = task(tuples=3, tuple2_delay=1)
    raw = t.train_set(None)
    assert [t.prepare(raw, RNG, True)["counted"][0].tolist() for _ in range(2)] == [[True, False, False], [True] * 3]


def test_copied_io_of_three_tuples() -> None:
    """All tuples get the last one's columns and rows, so that a network treats equal tuples equally."""
    t = task("fnn", copied_io=True, tuples=3, n_digits=1)
    net = nn.Sequential(nn.Linear(60, 7), nn.ReLU(), nn.Linear(7, 30))
    last = net[0].weight[:, 40:].clone()
    t.edit_network(net, "tuple1")
    x = torch.randn(5, 20)
    found = []
    for p in range(3):
        padded = torch.zeros(5, 60)
        padded[:, 20 * p : 20 * p + 20] = x
        found.append(net(padded)[:, 10 * p : 10 * p + 10])
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[2])
    assert torch.equal(net[0].weight[:, 40:], last)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"n_digits": 0}, "task.n_digits: must be at least 1, not 0"),
        ({"terms": 1}, "task.terms: must be at least 2, not 1"),
        ({"tuples": 1}, "task.tuples: must be at least 2, not 1"),
        ({"op": "mull"}, r"task.op: .*did you mean .mul"),
        ({"ranges": [[0, 50]]}, "ranges must have one .low, high. for each of the 2 tuples, not 1 in all"),
        (
            {"ranges": [[0, 50], [60, 60]]},
            r"the range of tuple 2 is \[60, 60\], but numbers of 2 digits need 0 <= low < high <= 100",
        ),
        ({"ranges": [[0, 101], [0, 5]]}, r"the range of tuple 1 is \[0, 101\]"),
        ({"ranges": [[-1, 5], [0, 5]]}, r"the range of tuple 1 is \[-1, 5\]"),
        ({"ranges": [[0, 5, 7], [0, 5]]}, "must have 2 entries, not 3"),
    ],
)
def test_options_that_do_not_fit(table: dict[str, Any], words: str) -> None:
    """Each is one sentence, before anything is drawn."""
    with pytest.raises(StudyError, match=words):
        structure(DoubleAdditionOptions, table, "task")


@pytest.mark.parametrize(
    ("study", "changes"),
    [
        ("tuple_lstm", ["task.tuples=3", "task.n_digits=1", 'task.op="mul"']),
        ("tuple_fnn_copied_io", ["task.tuples=3", "task.terms=3", "task.ranges=[[0, 20], [50, 100], [7, 9]]"]),
    ],
)
def test_a_study_of_another_shape(study: str, changes: list[str], tmp_path: Path) -> None:
    """Smoke variants run with the options; every stage has a score on every split, and its figure can be drawn."""
    from modhook.cli import main
    from modhook.cube import open_cube

    wanted = [part for change in changes for part in ("--set", change)]
    cube_path = tmp_path / f"{study}-smoke.zarr"
    for arguments in (
        [
            "run",
            str(Path(__file__).parents[2] / f"studies/{study}.toml"),
            "--variant",
            "smoke",
            *wanted,
            "--out",
            str(tmp_path),
        ],
        ["plot", str(cube_path), "--figure", "tuple_performance", "--out", str(tmp_path / "figures")],
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
    with open_cube(cube_path) as cube:
        scores = cube["scores"]["accuracy"]
        assert [str(s) for s in scores["split"].values] == ["iid", "tuple1", "tuple2", "tuple3"]
        assert bool(scores.notnull().all())
