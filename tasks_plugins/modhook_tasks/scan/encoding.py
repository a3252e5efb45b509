"""Turns SCAN examples into padded tensors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from modhook_tasks.scan.grammar import ACTIONS, WORDS, Example
from modhook_tasks.sequences import pad

SOURCE_TOKENS = ("<end>", *WORDS)
TARGET_TOKENS = ("<end>", *ACTIONS)

_SOURCE_INDEX = {token: i for i, token in enumerate(SOURCE_TOKENS)}
_TARGET_INDEX = {token: i for i, token in enumerate(TARGET_TOKENS)}


def encode(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Return `source` (N, S), `source_length` (N,), `target` (N, T), `target_length` (N,), all int64.

    The end mark is in the sequences and in their lengths.
    """
    source, source_length = _pad([[_SOURCE_INDEX[word] for word in e.command.split()] for e in examples])
    target, target_length = _pad([[_TARGET_INDEX[action] for action in e.actions] for e in examples])
    return {"source": source, "source_length": source_length, "target": target, "target_length": target_length}


def _pad(rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    lengths = np.array([len(row) for row in rows])  # (N,)
    padded = pad(np.array(list(chain.from_iterable(rows))), lengths, int(lengths.max()) + 1)  # (N, longest + 1)
    return torch.from_numpy(padded), torch.from_numpy(lengths + 1)
