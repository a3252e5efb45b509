"""Turns texts into arrays, once: repeats removed, part of each train file held out, characters as numbers.

The arrays are kept in the cache folder, one .npy file each, and are mapped into memory: a later start reads nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
import torch
from torch import Tensor

from modhook.errors import DataError
from modhook_tasks.mathematics.contents import Contents, pairs
from modhook_tasks.mathematics.modules import SETS, TRAIN
from modhook_tasks.sequences import pad

ARRAYS = ("source", "source_length", "target", "target_length")
LONGEST = 1_000
"""No line may be longer; the official ones have at most 160 characters."""


@attrs.frozen
class Index:
    """The data of one module: `train` has the rows of easy, medium and hard in turn, `test` is held out or a file of its own."""

    characters: str
    train: Mapping[str, Tensor]
    """Tensors by `ARRAYS`: `source` (N, S) and `target` (N, T) uint8, lengths (N,) int16."""
    train_sizes: tuple[int, ...]
    """Rows of easy, medium and hard."""
    test: Mapping[str, Mapping[str, Tensor]]
    """The same by set; those of the train sets are what was held out."""

    def trained(self, difficulties: Sequence[str]) -> list[dict[str, Tensor]]:
        """Return the training rows of some of easy, medium and hard, in this order; neighbours are one part and are not copied."""
        stops = list(itertools.accumulate(self.train_sizes))
        wanted = [i for i, name in enumerate(TRAIN) if name.removeprefix("train-") in difficulties]
        runs: list[list[int]] = []
        for i in wanted:
            if runs and runs[-1][1] == stops[i] - self.train_sizes[i]:
                runs[-1][1] = stops[i]
            else:
                runs.append([stops[i] - self.train_sizes[i], stops[i]])
        return [{key: tensor[start:stop] for key, tensor in self.train.items()} for start, stop in runs]


def with_the_same_characters(indices: Mapping[str, Index]) -> dict[str, Index]:
    """Return the data of several modules with one character set, that of all: generated questions have each their own."""
    characters = "".join(sorted(set().union(*(index.characters for index in indices.values()))))
    return {name: _renumbered(index, characters) for name, index in indices.items()}


def _renumbered(index: Index, characters: str) -> Index:
    if index.characters == characters:
        return index
    table = np.array([0, *(characters.index(c) + 1 for c in index.characters)], dtype=np.uint8)

    def new(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        tokens = {key: torch.from_numpy(table[tensors[key].numpy()]) for key in ("source", "target")}
        return {key: tokens.get(key, tensor) for key, tensor in tensors.items()}

    return attrs.evolve(
        index,
        characters=characters,
        train=new(index.train),
        test={found: new(tensors) for found, tensors in index.test.items()},
    )


def write(folder: Path, contents: Contents, held_out: int, where: str) -> None:
    """Build the arrays and put them into `folder`, whole or not at all. Raises `DataError`."""
    kept = without_repeats({found: pairs(text, f"{where}, {found}") for found, text in contents.texts.items()})
    train, test = hold_out(kept, held_out, where)
    lines = {"train": [pair for found in TRAIN for pair in train[found]], **test}
    widths = tuple(max(len(pair[i]) for rows in lines.values() for pair in rows) for i in (0, 1))
    if max(widths) > LONGEST:
        raise DataError(f"{where} has a line of {max(widths)} characters, more than {LONGEST}; it is another file.")
    with whole(folder) as unfinished:
        for part, rows in lines.items():
            for key, array in encode(rows, contents.characters, widths).items():
                np.save(unfinished / f"{part}.{key}.npy", array)
        facts = {"characters": contents.characters, "train_sizes": [len(train[t]) for t in TRAIN], "test": list(test)}
        (unfinished / "facts.json").write_text(json.dumps(facts))


@contextlib.contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Give a new folder to fill; it becomes `folder` where all went well, and is deleted otherwise. Raises `DataError`."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unfinished-"))
        try:
            yield unfinished
            unfinished.replace(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{folder.name} cannot be kept in {folder.parent} ({error.strerror or error}); set MODHOOK_CACHE to another folder."
        ) from error


def read(folder: Path) -> Index:
    """Map the arrays of `folder`. Raises `DataError` if one is damaged."""
    try:
        facts = json.loads((folder / "facts.json").read_text())
        parts = {part: _mapped(folder, part) for part in ("train", *facts["test"])}
        train = parts.pop("train")
        return Index(facts["characters"], train, tuple(facts["train_sizes"]), parts)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"the index in {folder} cannot be read ({error}); delete that folder, and it is made again."
        ) from error


def _mapped(folder: Path, part: str) -> dict[str, Tensor]:
    # "c": changes would stay in memory; torch warns about arrays that cannot be changed at all.
    return {key: torch.from_numpy(np.load(folder / f"{part}.{key}.npy", mmap_mode="c")) for key in ARRAYS}


Rows = list[tuple[bytes, bytes]]
"""(question, answer) pairs."""


def without_repeats(found: Mapping[str, tuple[Sequence[bytes], Sequence[bytes]]]) -> dict[str, Rows]:
    """Return the pairs of each set whose question comes first there, in the order of `SETS`."""
    seen: set[bytes] = set()
    kept: dict[str, Rows] = {}
    for name in (s for s in SETS if s in found):
        rows = kept[name] = []
        for question, answer in zip(*found[name], strict=True):
            if question not in seen:
                seen.add(question)
                rows.append((question, answer))
    return kept


def hold_out(kept: Mapping[str, Rows], size: int, where: str) -> tuple[dict[str, Rows], dict[str, Rows]]:
    """Return the train sets without `size` pairs each, and the test sets: those pairs, and the sets that are for tests only.

    Each train set's are drawn by a generator of its own, `RandomState(1234).choice` without replacement.
    """
    train: dict[str, Rows] = {}
    test: dict[str, Rows] = {}
    for name, rows in kept.items():
        if name not in TRAIN:
            if not rows:
                raise DataError(f"{where}, {name} has no question that was not trained on.")
            test[name] = rows
            continue
        if len(rows) <= size:
            raise DataError(
                f"{where}, {name} has {len(rows)} different questions, too few to hold out {size}; lower task.held_out."
            )
        chosen = np.zeros(len(rows), dtype=bool)
        chosen[np.random.RandomState(1234).choice(len(rows), size, replace=False)] = True
        train[name] = [row for row, out in zip(rows, chosen, strict=True) if not out]
        test[name] = [row for row, out in zip(rows, chosen, strict=True) if out]
    return train, test


def encode(rows: Rows, characters: str, widths: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return the arrays of some pairs; token 0 ends a sequence and fills it up, token i + 1 is character i."""
    table = np.zeros(256, dtype=np.uint8)
    table[list(characters.encode("ascii"))] = np.arange(1, len(characters) + 1)
    arrays = {}
    for i, key in enumerate(("source", "target")):
        lengths = np.array([len(row[i]) for row in rows], dtype=np.int16)  # (N,)
        tokens = table[np.frombuffer(b"".join(row[i] for row in rows), np.uint8)]  # (sum of lengths,)
        arrays[key], arrays[f"{key}_length"] = pad(tokens, lengths, widths[i] + 1), lengths + 1
    return arrays
