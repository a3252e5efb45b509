"""SCAN's splits against the counts that its authors publish."""

from __future__ import annotations

from collections import Counter

import pytest

from modhook_tasks.scan.grammar import examples
from modhook_tasks.scan.splits import SPLITS, generated

COUNTS = {"simple": (16_728, 4_182), "jump": (14_670, 7_706), "length": (16_990, 3_920), "turn_left": (21_890, 1_208)}


@pytest.mark.parametrize("name", SPLITS)
def test_counts(name: str) -> None:
    """Train and test sets have the published sizes."""
    split = generated(name)
    assert COUNTS[name] == (len(split.train), len(split.test))


@pytest.mark.parametrize("name", SPLITS)
def test_train_and_test_are_a_partition(name: str) -> None:
    """No test command is trained on, and no command is lost."""
    split = generated(name)
    train, test = {e.command for e in split.train}, {e.command for e in split.test}
    assert not train & test
    assert train | test == {e.command for e in examples()}
    assert len(test) == len(split.test)


@pytest.mark.parametrize(
    ("name", "phrase", "without", "repeats"),
    [("jump", "jump", 13_203, 1_467), ("turn_left", "turn left", 19_701, 2_189)],
)
def test_primitive_splits_teach_the_phrase_alone(name: str, phrase: str, without: int, repeats: int) -> None:
    """The phrase is trained on alone, repeated; every other train command is there once and lacks it."""
    counts = Counter(e.command for e in generated(name).train)
    assert repeats == counts.pop(phrase)
    assert without == len(counts)
    assert {1} == set(counts.values())
    assert not any(f"{phrase} " in f"{command} " for command in counts)
    assert all(f"{phrase} " in f"{e.command} " and e.command != phrase for e in generated(name).test)


def test_length_split_leaves_a_gap() -> None:
    """Train commands have at most 22 actions, test commands 24 to 48."""
    split = generated("length")
    assert max(len(e.actions) for e in split.train) == 22
    assert (min(len(e.actions) for e in split.test), max(len(e.actions) for e in split.test)) == (24, 48)


def test_simple_split_looks_random() -> None:
    """The packed bits belong to this order of commands: every kind of command is split about four to one."""
    train = {e.command for e in generated("simple").train}
    for word in ("jump", "opposite", "around", "thrice", "and", "after"):
        having = [e.command for e in examples() if word in e.command.split()]
        share = sum(command in train for command in having) / len(having)
        assert 0.78 < share < 0.82, word
