"""The task `mathematics`: one module of DeepMind's questions, character by character (reference, section 3).

Does a network that answers easy, medium and hard questions use the same weights for all? Stages: the control on all of
them, and `easy` alone, measured on what was held out, and on questions between and beyond those of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import attrs
import torch
from annotated_types import Ge

import modhook
from modhook.errors import near_miss
from modhook_tasks.mathematics.modules import MODULES, TRAIN
from modhook_tasks.sequences import SequenceTask, decoded, shortest_first

if TYPE_CHECKING:
    from modhook.plugin.interfaces import Batch
    from modhook_tasks.mathematics.index import Index

SPLITS = ("iid", "easy", "hard", "interpolate", "extrapolate")
_PARTS = {"iid": TRAIN, "easy": TRAIN[:1], "hard": TRAIN[2:]}
"""Splits that are made of what was held out of the train sets."""


@attrs.frozen
class MathematicsOptions:
    """Options of the task `mathematics`."""

    module: Literal["add_or_sub", "linear_1d", "differentiate", "sort", "collect"] = "add_or_sub"
    """Which questions."""
    source: Literal["official", "folder", "generated"] = "official"
    """`official`: the archive in the cache folder; `folder`: the archive or the extracted folder in `folder`; `generated`: by
    the package mathematics_dataset, once."""
    folder: str | None = None
    """The official archive, or the folder that was extracted from it."""
    splits: tuple[str, ...] = ()
    """Test sets that are measured; empty: all that the module has."""
    train_size: Annotated[int, Ge(1)] = 100_000
    """Generated questions per difficulty, the held-out ones and repeats among them."""
    test_size: Annotated[int, Ge(1)] = 10_000
    """Generated questions of `interpolate` and `extrapolate` each."""
    held_out: Annotated[int, Ge(1)] = 10_000
    """Questions of each difficulty that are held out of training, to measure on."""

    def __attrs_post_init__(self) -> None:
        if self.source == "folder" and self.folder is None:
            raise modhook.UserError(
                "source is 'folder' but folder is not set; name the official archive or its folder."
            )
        if self.source != "folder" and self.folder is not None:
            raise modhook.UserError(
                f"a folder is given but source is {self.source!r}; set source to 'folder' to read it."
            )
        if self.source == "generated" and self.held_out >= self.train_size:
            raise modhook.UserError(
                f"held_out is {self.held_out}, but only train_size = {self.train_size} questions of each difficulty are "
                "generated; lower held_out."
            )
        for name in self.splits:
            if name not in (valid := _splits(self.module)):
                hint = f"{near_miss(name, valid)}; valid splits: {', '.join(valid)}."
                raise modhook.UserError(f"unknown split {name!r} of {self.module}{hint}")
        if len(set(self.splits)) < len(self.splits):
            raise modhook.UserError(f"splits names a split twice: {', '.join(self.splits)}.")


def _splits(module: str) -> tuple[str, ...]:
    """Return the splits that a module has: only two of the five extrapolate."""
    return SPLITS if MODULES[module].harder else SPLITS[:-1]


class Mathematics(SequenceTask):
    """One module of the DeepMind mathematics dataset (Saxton et al. 2019), version 1.0.

    Repeated questions are removed, in the order easy, medium, hard, interpolate, extrapolate, then `held_out` questions of
    each difficulty are taken out of training. Splits: `iid`, what was held out of all three; `easy` and `hard`, what was
    held out of one; `interpolate`, `extrapolate`, files of their own. (The paper measures the stage `easy` on held-out easy
    questions in the place of `iid`; here that is the split `easy`, and every stage is measured on every split.)
    """

    Options = MathematicsOptions
    options: MathematicsOptions

    def __init__(self, options: MathematicsOptions) -> None:
        super().__init__(options)
        self._index: Index | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """Those of the options, or all of the module."""
        return self.options.splits or _splits(self.options.module)

    @property
    def stages(self) -> tuple[modhook.Stage, ...]:
        """The control, then easy questions alone."""
        return (
            modhook.Stage("control", "easy, medium and hard training questions"),
            modhook.Stage("easy", "easy training questions"),
        )

    def shape(self) -> Mapping[str, Any]:
        """Return the vocabulary, the same for questions and answers; token 0 is the end mark."""
        tokens = self._tokens()
        return {
            "source_vocabulary": len(tokens),
            "target_vocabulary": len(tokens),
            "source_tokens": tokens,
            "target_tokens": tokens,
        }

    def load(self) -> None:
        """Find or generate the texts and index them where the cache has no index. Raises `DataError`."""
        from modhook_tasks.mathematics import data

        o, module = self.options, MODULES[self.options.module]
        files = {found: name for found, name in module.files.items() if found != "extrapolate" or found in self.splits}
        if o.source == "generated":
            self._index = data.generated(module, files, (o.train_size, o.test_size), o.held_out)
        elif o.source == "folder":
            assert o.folder is not None  # the options refuse it
            self._index = data.from_place(Path(o.folder).expanduser(), module, files, o.held_out)
        else:
            self._index = data.official(module, files, o.held_out)

    def train_set(self, stage: str | None) -> Batch:
        """Return the questions of all difficulties for base training and the control, else the easy ones."""
        if stage not in (None, *(known.name for known in self.stages)):
            raise modhook.UserError(f"unknown stage {stage!r} of mathematics; it has control and easy.")
        index = self._loaded()
        stop = index.train_sizes[0] if stage == "easy" else None
        return {key: tensor[:stop] for key, tensor in index.train.items()}

    def test_set(self, split: str) -> Batch:
        """Return the questions of one split, shortest answers first."""
        if split not in self.splits:
            raise modhook.UserError(f"unknown split {split!r} of mathematics; this study has {', '.join(self.splits)}.")
        test = self._loaded().test
        parts = [test[part] for part in _PARTS.get(split, (split,))]
        return shortest_first({key: torch.cat([part[key] for part in parts]) for key in parts[0]})

    def decode(self, batch: Batch) -> list[str]:
        """Return each item as `question -> answer`."""
        tokens = self._tokens()
        return decoded(batch, tokens, tokens)

    def _tokens(self) -> tuple[str, ...]:
        return ("<end>", *self._loaded().characters)

    def _loaded(self) -> Index:
        if self._index is None:
            self.load()
        assert self._index is not None
        return self._index
