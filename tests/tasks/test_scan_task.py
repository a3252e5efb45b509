"""The SCAN task: tensors, stages, loss and score."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import modhook
from modhook_tasks.scan.encoding import SOURCE_TOKENS, TARGET_TOKENS, encode
from modhook_tasks.scan.grammar import Example, examples
from modhook_tasks.scan.splits import generated
from modhook_tasks.scan.task import Scan, ScanOptions
from modhook_tasks.sequences import END, joined


@pytest.fixture(scope="module")
def task() -> Scan:
    """Return the task with its default options, loaded."""
    task = Scan(ScanOptions())
    task.load()
    return task


def few(task: Scan, *items: int) -> dict[str, Tensor]:
    """Return some items of the simple test set."""
    return {key: value[list(items)] for key, value in task.test_set("simple").items()}


class Answers:
    """Stands for a network: gives fixed logits and remembers how it was called."""

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.flags = logits, []

    def __call__(self, source: Tensor, source_length: Tensor, target: Tensor, teacher_forcing: bool) -> Tensor:
        self.flags.append(teacher_forcing)
        return self.logits


def test_encoding_ends_and_pads() -> None:
    """Sequences carry their end mark, count it, and are padded behind it."""
    data = encode([Example("jump twice", ("I_JUMP", "I_JUMP")), Example("walk", ("I_WALK",))])
    jump, twice, walk = (SOURCE_TOKENS.index(word) for word in ("jump", "twice", "walk"))
    assert [[jump, twice, END], [walk, END, END]] == data["source"].tolist()
    assert data["source_length"].tolist() == [3, 2]
    i_jump, i_walk = TARGET_TOKENS.index("I_JUMP"), TARGET_TOKENS.index("I_WALK")
    assert [[i_jump, i_jump, END], [i_walk, END, END]] == data["target"].tolist()
    assert data["target_length"].tolist() == [3, 2]
    assert all(tensor.dtype == torch.int64 for tensor in data.values())


def test_decode_gives_every_example_back(task: Scan) -> None:
    """Encoding loses nothing: all commands and meanings come back as text."""
    expected = [f"{e.command} -> {' '.join(e.actions)}" for e in examples()]
    assert expected == task.decode(encode(examples()))


def test_data_sizes_and_stages(task: Scan) -> None:
    """Each stage trains on its own split's train set, the control and the network on the simple one."""
    assert task.splits == ("simple", "jump", "length", "turn_left")
    assert [stage.name for stage in task.stages] == ["control", "jump", "length", "turn_left"]
    sizes = {stage.name: len(task.train_set(stage.name)["source"]) for stage in task.stages}
    assert sizes == {"control": 16_728, "jump": 14_670, "length": 16_990, "turn_left": 21_890}
    assert len(task.train_set(None)["source"]) == 16_728
    assert [len(task.test_set(split)["target"]) for split in task.splits] == [4_182, 7_706, 3_920, 1_208]


def test_train_split_moves_the_control() -> None:
    """A baseline trained on another split has that split as its control and not as a stage."""
    task = Scan(ScanOptions(splits=("simple", "jump"), train_split="jump"))
    assert [stage.name for stage in task.stages] == ["control", "simple"]
    sizes = [len(task.train_set(stage)["source"]) for stage in (None, "control", "simple")]
    assert sizes == [14_670, 14_670, 16_728]


def test_several_train_splits(task: Scan) -> None:
    """Their train sets are put together, repeats and all, for the network and the control; each split is a stage then."""
    several = Scan(ScanOptions(splits=("simple", "jump"), train_split=("jump", "turn_left")))
    assert [stage.name for stage in several.stages] == ["control", "simple", "jump"]
    lists = [generated(name).train for name in ("jump", "turn_left")]
    expected = [f"{e.command} -> {' '.join(e.actions)}" for part in lists for e in part]
    assert len(expected) == 14_670 + 21_890
    for stage in (None, "control"):
        assert several.decode(several.train_set(stage)) == expected
    assert several.decode(several.train_set("jump")) == expected[:14_670]
    assert several.splits == ("simple", "jump")


def test_parts_of_other_widths_are_joined() -> None:
    """Items keep their tokens and lengths, padded with end marks to the widest part."""
    parts = [encode([Example("walk", ("I_WALK",))]), encode([Example("jump twice", ("I_JUMP",) * 2)])]
    made = joined(parts)
    assert {key: tensor.shape for key, tensor in made.items()} == {
        "source": (2, 3),
        "source_length": (2,),
        "target": (2, 3),
        "target_length": (2,),
    }
    assert made["source"][0].tolist() == [*parts[0]["source"][0].tolist(), END]
    assert made["target"][1].tolist() == parts[1]["target"][0].tolist()
    assert joined(parts[:1]) is parts[0], "one part is not copied"


def test_a_list_of_one_split_is_that_split() -> None:
    """`train_split = ["jump"]` and `train_split = "jump"` are the same study."""
    one = ScanOptions(train_split=("jump",))
    assert one == ScanOptions(train_split="jump")
    assert [stage.name for stage in Scan(one).stages] == ["control", "simple", "length", "turn_left"]


def test_test_sets_are_short_first(task: Scan) -> None:
    """Evaluation batches are of like length, so that few steps are wasted on padding."""
    lengths = task.test_set("length")["target_length"]
    assert torch.equal(lengths, lengths.sort().values)


def test_unknown_split_lists_the_valid_ones() -> None:
    """A misspelt split is refused before anything runs."""
    valid = r"'lenght' \(did you mean 'length'\?\); valid splits: simple, jump, length, turn_left"
    with pytest.raises(modhook.UserError, match=valid):
        ScanOptions(splits=("simple", "lenght"))
    with pytest.raises(modhook.UserError, match="unknown SCAN split 'all'"):
        ScanOptions(train_split="all")
    with pytest.raises(modhook.UserError, match="splits is empty"):
        ScanOptions(splits=())
    with pytest.raises(modhook.UserError, match="names a split twice"):
        ScanOptions(splits=("jump", "jump"))
    with pytest.raises(modhook.UserError, match=r"unknown SCAN split 'jumb' \(did you mean 'jump'\?\)"):
        ScanOptions(train_split=("simple", "jumb"))
    with pytest.raises(modhook.UserError, match="train_split names a split twice: jump, jump"):
        ScanOptions(train_split=("jump", "jump"))
    with pytest.raises(modhook.UserError, match="train_split is empty"):
        ScanOptions(train_split=())


def test_split_that_the_study_lacks_is_refused() -> None:
    """Asking for a split that was not loaded names those that were."""
    task = Scan(ScanOptions(splits=("simple",)))
    with pytest.raises(modhook.UserError, match="unknown SCAN split 'jump'; this study has simple"):
        task.test_set("jump")


def test_prepare_trims_to_the_longest_item(task: Scan) -> None:
    """Columns that are padding for all items go, and nothing else does."""
    batch = few(task, 0, 1, 2)
    prepared = task.prepare(batch, np.random.default_rng(0), training=False)
    assert batch["source_length"].max() == prepared["source"].shape[1]
    assert batch["target_length"].max() == prepared["target"].shape[1]
    assert task.decode(batch) == task.decode(prepared)
    assert batch["target"].shape[1] == 49, "the data themselves are not changed"


def test_coin_is_flipped_in_training_alone(task: Scan) -> None:
    """Half of the training batches are teacher forced, reproducibly; evaluation is never, and draws nothing."""
    batch = few(task, 0)
    rng = np.random.default_rng(5)
    flips = [task.prepare(batch, rng, training=True)["teacher_forcing"] for _ in range(400)]
    again = np.random.default_rng(5)
    assert flips == [task.prepare(batch, again, training=True)["teacher_forcing"] for _ in range(400)]
    assert 160 < sum(flips) < 240
    assert all(type(flip) is bool for flip in flips)
    before = rng.bit_generator.state
    assert task.prepare(batch, rng, training=False)["teacher_forcing"] is False
    assert before == rng.bit_generator.state


@pytest.mark.parametrize(("share", "expected"), [(0.0, False), (1.0, True)])
def test_coin_may_be_fixed(share: float, expected: bool) -> None:
    """The extreme shares leave nothing to chance."""
    task = Scan(ScanOptions(splits=("simple",), teacher_forcing=share))
    rng = np.random.default_rng(0)
    assert {expected} == {task.prepare(few(task, 0), rng, training=True)["teacher_forcing"] for _ in range(50)}


@pytest.mark.parametrize("forced", [True, False])
def test_loss_is_summed_over_tokens_and_divided_by_items(task: Scan, forced: bool) -> None:
    """The loss equals a plain loop over items and their valid tokens, in float64."""
    batch = task.prepare(few(task, 3, 700, 4_000), np.random.default_rng(0), training=True)
    batch["teacher_forcing"] = forced
    logits = torch.randn(*batch["target"].shape, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = 0.0
    for item in range(3):
        for t in range(int(batch["target_length"][item])):
            row = [math.exp(x) for x in logits[item, t].tolist()]
            expected -= math.log(row[batch["target"][item, t]] / sum(row)) / 3
    net = Answers(logits)
    assert expected == pytest.approx(float(task.loss(net, batch)), rel=1e-12)
    assert [forced] == net.flags


def test_score_wants_the_whole_answer_with_its_end(task: Scan) -> None:
    """One wrong token, or a missing end mark, makes an item wrong; what follows the end does not."""
    batch = task.prepare(few(task, 4_000, 700, 701, 702), np.random.default_rng(0), training=False)
    written = batch["target"].clone()  # (4, T)
    lengths = batch["target_length"].tolist()
    written[0, 0] = written[0, 0] % 6 + 1  # a wrong action
    written[1, lengths[1] - 1] = 1  # an action in place of the end mark
    written[2, lengths[2] :] = 3  # garbage behind the end mark
    net = Answers(torch.nn.functional.one_hot(written, 7).double())
    assert task.score(net, batch)["accuracy"].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert net.flags == [False]


def test_a_study_of_several_train_splits(tmp_path: Path) -> None:
    """The smoke variant runs on two splits put together; both are stages, and its accuracies can be drawn."""
    from modhook.cli import main
    from modhook.cube import open_cube

    study = Path(__file__).parents[2] / "studies/scan.toml"
    changes = ["--set", "task.train_split=['turn_left', 'jump']", "--set", "task.splits=['turn_left', 'jump']"]
    for arguments in (
        ["run", str(study), "--variant", "smoke", *changes, "--out", str(tmp_path)],
        ["plot", str(tmp_path / "scan-smoke.zarr"), "--figure", "scan_accuracy", "--out", str(tmp_path / "figures")],
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
    with open_cube(tmp_path / "scan-smoke.zarr") as cube:
        scores = cube["scores"]["accuracy"]
        assert [str(s) for s in scores["stage"].values] == ["unmasked", "control", "turn_left", "jump"]
        assert bool(scores.notnull().all())
