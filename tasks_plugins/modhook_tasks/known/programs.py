"""The compiled programs as plain Python, and every input that they are asked about.

`frac_prevs`: the share of `x` among the tokens up to here. `hist`: how often this token occurs. `reverse`: the sequence backwards.
`sort`: the sequence in ascending order. All inputs have the full length, 5: the first three programs share one vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import attrs

LENGTH = 5
"""Tokens of an input, BOS not counted."""
LETTERS = ("a", "b", "c", "x")
DIGITS = ("1", "2", "3", "4")


@attrs.frozen
class Program:
    """One program: what it computes of a sequence of tokens, one value per position."""

    doc: str
    vocabulary: tuple[str, ...]
    run: Callable[[Sequence[str]], list[str | float]]


def frac_prevs(tokens: Sequence[str]) -> list[str | float]:
    """Return the share of `x` among the tokens up to each position."""
    return [list(tokens[: i + 1]).count("x") / (i + 1) for i in range(len(tokens))]


def hist(tokens: Sequence[str]) -> list[str | float]:
    """Return how often each position's token occurs, as text."""
    return [str(list(tokens).count(token)) for token in tokens]


def reverse(tokens: Sequence[str]) -> list[str | float]:
    """Return the sequence backwards."""
    return list(reversed(tokens))


def sort(tokens: Sequence[str]) -> list[str | float]:
    """Return the sequence in ascending order."""
    return sorted(tokens)


PROGRAMS = {
    "frac_prevs": Program("the share of x among the tokens up to here", LETTERS, frac_prevs),
    "hist": Program("how often this token occurs", LETTERS, hist),
    "reverse": Program("the sequence backwards", LETTERS, reverse),
    "sort": Program("the sequence in ascending order", DIGITS, sort),
}


def every_input(vocabulary: Sequence[str]) -> list[tuple[str, ...]]:
    """Return all sequences of the full length, in order: 4**5 = 1024."""
    return list(itertools.product(vocabulary, repeat=LENGTH))
