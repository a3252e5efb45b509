"""SCAN's train and test sets: which commands each split holds, and how often.

Source: Lake & Baroni (2018), experiments 1 to 3. The simple split was drawn at random by its authors, so that its train
set cannot be derived; the package carries it as one bit per command.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Sequence
from functools import cache

import attrs
import numpy as np

from modhook_tasks.scan.grammar import Example, examples

LONGEST_TRAINED = 22
"""Most actions of a command in the train set of the length split."""

JUMP_REPEATS = 1_467
TURN_LEFT_REPEATS = 2_189
"""How often the bare primitive is in its split's train set, about a tenth of that set."""


@attrs.frozen
class Split:
    """The train and test set of one split."""

    train: Sequence[Example]
    test: Sequence[Example]


def _simple() -> Split:
    every = examples()
    packed = importlib.resources.files("modhook_tasks.scan").joinpath("simple_train.bits").read_bytes()
    in_train = np.unpackbits(np.frombuffer(packed, np.uint8), count=len(every)).tolist()
    return Split(
        train=[e for e, kept in zip(every, in_train, strict=True) if kept],
        test=[e for e, kept in zip(every, in_train, strict=True) if not kept],
    )


def _length() -> Split:
    every = examples()
    return Split(
        train=[e for e in every if len(e.actions) <= LONGEST_TRAINED],
        test=[e for e in every if len(e.actions) > LONGEST_TRAINED],
    )


def _primitive(phrase: str, repeats: int) -> Split:
    """Train on all commands without `phrase` and `repeats` times on `phrase` alone; test on all others that have it."""
    every = examples()
    alone = [e for e in every if e.command == phrase]
    having = [e for e in every if f" {phrase} " in f" {e.command} "]
    without = [e for e in every if f" {phrase} " not in f" {e.command} "]
    return Split(train=without + alone * repeats, test=[e for e in having if e.command != phrase])


_SPLITS: dict[str, Callable[[], Split]] = {
    "simple": _simple,
    "jump": lambda: _primitive("jump", JUMP_REPEATS),
    "length": _length,
    "turn_left": lambda: _primitive("turn left", TURN_LEFT_REPEATS),
}

SPLITS = tuple(_SPLITS)
"""Names of the splits: simple, jump, length, turn_left."""


@cache
def generated(name: str) -> Split:
    """Return one split of `SPLITS`, generated from the grammar. Examples are in the order of their command."""
    return _SPLITS[name]()
