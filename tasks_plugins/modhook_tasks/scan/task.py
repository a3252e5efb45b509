"""The SCAN task: commands to actions, sequence to sequence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import attrs
from annotated_types import Ge, Le

import modhook
from modhook.errors import near_miss
from modhook_tasks.scan.encoding import SOURCE_TOKENS, TARGET_TOKENS, encode
from modhook_tasks.scan.official import read_split
from modhook_tasks.scan.splits import SPLITS, Split, generated
from modhook_tasks.sequences import SequenceTask, decoded, joined, one_or_several

if TYPE_CHECKING:
    from modhook.plugin.interfaces import Batch

_STAGE_DOCS = {
    "simple": "the train set of the simple split: a random four fifths of all commands",
    "jump": "the train set of the jump split: everything without jump, and jump alone",
    "length": "the train set of the length split: commands of at most 22 actions",
    "turn_left": "the train set of the turn-left split: everything without 'turn left', and 'turn left' alone",
}


def _known(name: str) -> None:
    if name not in SPLITS:
        hint = f"{near_miss(name, SPLITS)}; valid splits: {', '.join(SPLITS)}."
        raise modhook.UserError(f"unknown SCAN split {name!r}{hint}")


def _splits(_: Any, attribute: Any, value: str | tuple[str, ...]) -> None:
    names = (value,) if isinstance(value, str) else value
    if not names:
        raise modhook.UserError(f"{attribute.name} is empty; name at least one of {', '.join(SPLITS)}.")
    for name in names:
        _known(name)
    if len(set(names)) < len(names):
        raise modhook.UserError(f"{attribute.name} names a split twice: {', '.join(names)}.")


@attrs.frozen
class ScanOptions:
    """Options of the task `scan`."""

    splits: tuple[str, ...] = attrs.field(default=SPLITS, validator=_splits)
    """Splits whose test sets are measured; each is a mask stage, on its own train set, but the only one of `train_split`."""
    source: Literal["generated", "folder"] = "generated"
    """`generated` from the grammar, or read from the official files in `folder`."""
    folder: str | None = None
    """The official SCAN folder, the one that holds `simple_split`."""
    teacher_forcing: Annotated[float, Ge(0.0), Le(1.0)] = 0.5
    """Share of the training batches in which the network sees the true previous action and not its own."""
    train_split: str | tuple[str, ...] = attrs.field(default="simple", validator=_splits, converter=one_or_several)
    """Split whose train set trains the network and the control mask; or a list of splits, whose train sets are then put
    together: a command that is in several of them counts as often. With a list of several, each of `splits` is a stage."""

    def __attrs_post_init__(self) -> None:
        if self.source not in ("generated", "folder"):
            raise modhook.UserError(f"source must be 'generated' or 'folder', not {self.source!r}.")
        if self.source == "folder" and self.folder is None:
            raise modhook.UserError("source is 'folder' but folder is not set; name the official SCAN folder.")
        if self.source == "generated" and self.folder is not None:
            raise modhook.UserError("a folder is given but source is 'generated'; set source to 'folder' to read it.")


class Scan(SequenceTask):
    """SCAN (Lake & Baroni 2018) with the protocol of Csordas et al. (2021), section 3.2."""

    Options = ScanOptions
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    options: ScanOptions
    tokens = TARGET_TOKENS
    """The output vocabulary: token i is row i of an output layer."""

    def __init__(self, options: ScanOptions) -> None:
        super().__init__(options)
        self.teacher_forcing = options.teacher_forcing
        self._data: dict[tuple[str, str], Batch] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the options, in their order."""
        return self.options.splits

    @property
    def trained(self) -> tuple[str, ...]:
        """The splits of `train_split`: one, or several."""
        chosen = self.options.train_split
        return (chosen,) if isinstance(chosen, str) else chosen

    @property
    def stages(self) -> tuple[modhook.Stage, ...]:
        """The control on the splits of `train_split`, then one stage per split that is not the same."""
        others = [split for split in self.splits if (split,) != self.trained]
        whole = "; and ".join(_STAGE_DOCS[split] for split in self.trained)
        return (modhook.Stage("control", whole), *(modhook.Stage(s, _STAGE_DOCS[s]) for s in others))

    def shape(self) -> Mapping[str, Any]:
        """Return the vocabularies' sizes and tokens; token 0 is the end mark in both."""
        return {
            "source_vocabulary": len(SOURCE_TOKENS),
            "target_vocabulary": len(TARGET_TOKENS),
            "source_tokens": SOURCE_TOKENS,
            "target_tokens": TARGET_TOKENS,
        }

    def load(self) -> None:
        """Generate or read every split that is trained on or measured. Raises `DataError`."""
        for name in dict.fromkeys((*self.trained, *self.splits)):
            split = self._split(name)
            self._data[name, "train"] = encode(split.train)
            # By length: a batch of short answers is decoded in few steps, which makes evaluation several times faster.
            self._data[name, "test"] = encode(sorted(split.test, key=lambda example: len(example.actions)))

    def _split(self, name: str) -> Split:
        if self.options.source == "generated":
            return generated(name)
        assert self.options.folder is not None  # the options refuse it
        return read_split(Path(self.options.folder).expanduser(), name)

    def train_set(self, stage: str | None) -> Batch:
        """Return the train sets of `train_split` for base training and the control, else that of the stage's own split."""
        names = self.trained if stage in (None, "control") else (stage,)
        return joined([self._set(name, "train") for name in names])

    def test_set(self, split: str) -> Batch:
        """Return the test set of one split, shortest answers first."""
        return self._set(split, "test")

    def _set(self, split: str | None, part: str) -> Batch:
        if not self._data:
            self.load()
        try:
            return self._data[str(split), part]
        except KeyError:
            names = list(dict.fromkeys(name for name, _ in self._data))
            raise modhook.UserError(f"unknown SCAN split {split!r}; this study has {', '.join(names)}.") from None

    def decode(self, batch: Batch) -> list[str]:
        """Return each item as `command -> actions`."""
        return decoded(batch, SOURCE_TOKENS, TARGET_TOKENS, " ")
