"""What a study says of its mistakes, in the words of `ask`: its arguments, and not a study's keys or the command line's options."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from modhook.errors import UserError

_WORDS = (
    (r"compute it again with `modhook run STUDY --repair`, or restore that file from a copy",
     "restore that file from a copy, or delete the cube and ask anew"),
    (r"use another --out, or --fresh to start over", "give another out, or delete it to ask anew"),
    (r"--fresh to start over|start the study over with --fresh", "delete it to ask anew"),
    (r"; --retry-failed tries again", ""),
    (r"give another one with --out|use another --out", "give another out"),
    (r"give --device cpu or another one", "give device='cpu' or another one"),
    (r"--(out|device|workers)\b", r"\1="),
    (r"\bmasks\.cut: \{within = ", "within: {within = "),
    (r"\bmasks\.cut\b", "within"),
    (r"\b(?:masks|run|study|train)\.(\w+)", r"\1"),
)  # fmt: skip


def in_arguments(text: str) -> str:
    """Return a sentence about a study as one about the arguments of `ask`."""
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    return text


@contextlib.contextmanager
def told_in_arguments() -> Iterator[None]:
    """Within it, a mistake is told in the words of `ask`."""
    try:
        yield
    except UserError as error:
        text = in_arguments(str(error))
        if text == str(error):
            raise
        new = type(error).__new__(type(error), text)  # some are made of other things than their sentence
        raise new from error.__cause__
