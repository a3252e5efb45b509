"""How many held-out tests are items that the masks are learned on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from modhook.asking.batches import Items, Store, Whole
from modhook.errors import listing

MUCH = 0.1
"""Which share of the tests is worth a word: in a small domain a few come twice."""
_AT_ONCE = 1024


def seen(learned: Store, tests: Store) -> int:
    """Return how many of the tests are among the items that are learned on, with their answers.

    Of batches that stay whole those count that are the same batch. Items of another form (types, shapes, keys) are other ones.
    """
    if learned.fingerprint == tests.fingerprint:
        return len(tests)
    if isinstance(learned, Whole) and isinstance(tests, Whole):
        return sum(map(set(learned.prints).__contains__, tests.prints))
    if not isinstance(learned, Items) or not isinstance(tests, Items) or _form(learned) != _form(tests):
        return 0
    known = set(_digests(learned.leaves))
    return sum(digest in known for digest in _digests(tests.leaves))


def told_of_seen(learned: Mapping[str, Store], tests: Mapping[str, Store]) -> str:
    """Return one sentence on the functions whose tests are learned on as well; empty where there is none."""
    counts = {name: seen(learned[name], store) for name, store in tests.items()}
    much = [f"{counts[n]} of {len(store)} of {n!r}" for n, store in tests.items() if counts[n] >= MUCH * len(store)]
    if not much:
        return ""
    return (
        f"held-out tests are among the items that masks are learned on ({listing(much)}): of other items they say nothing; give tests that "
        "were set aside."
    )


def _form(items: Items) -> tuple[str, list[tuple[torch.dtype, torch.Size]]]:
    return items.rest, [(leaf.dtype, leaf.shape[1:]) for leaf in items.leaves]


def _digests(leaves: Sequence[Tensor]) -> Iterator[bytes]:
    """Yield a hash of every item, from all its tensors."""
    leaves = [leaf.to_dense() if leaf.layout != torch.strided else leaf for leaf in leaves]
    for start in range(0, len(leaves[0]), _AT_ONCE):
        rows = np.concatenate([_bytes(leaf[start : start + _AT_ONCE]) for leaf in leaves], axis=1)  # (n, bytes)
        for row in rows:
            yield hashlib.blake2b(row.data, digest_size=16).digest()


def _bytes(leaf: Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Return the bytes of each item, (n, bytes)."""
    flat = leaf.resolve_conj().resolve_neg().contiguous().reshape(len(leaf), -1)
    return flat.view(torch.uint8).numpy() if flat.numel() else np.zeros((len(leaf), 0), np.uint8)
