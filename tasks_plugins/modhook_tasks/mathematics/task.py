"""The task `mathematics`: modules of DeepMind's questions, character by character (reference, section 3).

Does a network that answers easy, medium and hard questions use the same weights for all? Stages: the control on all of
them, and `easy` alone, measured on what was held out, and on questions between and beyond those of training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import attrs
from annotated_types import Ge

import modhook
from modhook.errors import near_miss
from modhook_tasks.mathematics.modules import MODULES, short
from modhook_tasks.mathematics.splits import DIFFICULTIES, chosen_splits, parts, valid_splits
from modhook_tasks.sequences import SequenceTask, decoded, joined, one_or_several, shortest_first

if TYPE_CHECKING:
    from modhook.plugin.interfaces import Batch
    from modhook_tasks.mathematics.index import Index


def _modules(value: str | Sequence[str]) -> str | tuple[str, ...]:
    return one_or_several(short(value) if isinstance(value, str) else [short(name) for name in value])


def _known(_: Any, __: Any, value: str | tuple[str, ...]) -> None:
    names = (value,) if isinstance(value, str) else value
    if not names:
        raise modhook.UserError("task.module is empty; name at least one module, such as 'add_or_sub'.")
    for name in names:
        if name not in MODULES:
            hint = near_miss(name.rpartition("__")[2], MODULES) or f"; valid: {', '.join(MODULES)}"
            raise modhook.UserError(f"unknown module {name!r} in task.module{hint}.")
    if len(set(names)) < len(names):
        raise modhook.UserError(f"task.module names a module twice: {', '.join(names)}.")


def _difficulties(_: Any, attribute: Any, value: tuple[str, ...]) -> None:
    for name in value:
        if name not in DIFFICULTIES:
            hint = f"{near_miss(name, DIFFICULTIES)}; valid: {', '.join(DIFFICULTIES)}"
            raise modhook.UserError(f"unknown difficulty {name!r} in task.{attribute.name}{hint}.")
    if not value or len(set(value)) < len(value):
        raise modhook.UserError(
            f"task.{attribute.name} must name some of {', '.join(DIFFICULTIES)}, each once, not {', '.join(value) or 'none'}."
        )


@attrs.frozen
class MathematicsOptions:
    """Options of the task `mathematics`."""

    module: str | tuple[str, ...] = attrs.field(default="add_or_sub", converter=_modules, validator=_known)
    """Which questions: any of the official modules, by name (`linear_1d`, `algebra__linear_1d`), or a list of several that one
    network learns together. With several, each also has splits of its own, such as `hard_sort`."""
    source: Literal["official", "folder", "generated"] = "official"
    """`official`: the archive in the cache folder; `folder`: the archive or the extracted folder in `folder`; `generated`: by
    the package mathematics_dataset, once."""
    folder: str | None = None
    """The official archive, or the folder that was extracted from it."""
    splits: tuple[str, ...] = ()
    """Test sets that are measured; empty: all that the modules have, and `medium` only where `masks` names it."""
    train_size: Annotated[int, Ge(1)] = 100_000
    """Generated questions per difficulty, the held-out ones and repeats among them."""
    test_size: Annotated[int, Ge(1)] = 10_000
    """Generated questions of `interpolate` and `extrapolate` each."""
    held_out: Annotated[int, Ge(1)] = 10_000
    """Questions of each difficulty (and module) that are held out of training, to measure on."""
    train: tuple[str, ...] = attrs.field(default=DIFFICULTIES, validator=_difficulties)
    """Difficulties that train the network and the control's mask, and whose held-out questions are the split `iid`. A network
    trained on `["easy"]` with the protocol `baseline` is what the mask of easy questions is compared with."""
    masks: tuple[str, ...] = attrs.field(default=("easy",), validator=_difficulties)
    """Difficulties of the second stage's mask; they also name the stage: `easy`, `easy_medium`."""

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
        valid = valid_splits(self.modules, self.masks)
        for name in self.splits:
            if name not in valid:
                hint = f"{near_miss(name, valid)}; valid splits: {', '.join(valid)}."
                raise modhook.UserError(f"unknown split {name!r} of {' and '.join(self.modules)}{hint}")
        if len(set(self.splits)) < len(self.splits):
            raise modhook.UserError(f"splits names a split twice: {', '.join(self.splits)}.")

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules, one or several."""
        return (self.module,) if isinstance(self.module, str) else self.module


class Mathematics(SequenceTask):
    """One or several modules of the DeepMind mathematics dataset (Saxton et al. 2019), version 1.0.

    Repeated questions of a module are removed, in the order easy, medium, hard, interpolate, extrapolate, then `held_out`
    questions of each difficulty are taken out of training. Splits: `iid`, what was held out of all that the network is trained
    on; `easy`, `medium` and `hard`, what was held out of one; `interpolate`, `extrapolate`, files of their own; of several
    modules together, and as `iid_sort` of one of them. (The paper measures the stage `easy` on held-out easy questions in the
    place of `iid`; here that is the split `easy`, and every stage is measured on every split.)
    """

    Options = MathematicsOptions
    options: MathematicsOptions

    def __init__(self, options: MathematicsOptions) -> None:
        super().__init__(options)
        self._indices: dict[str, Index] = {}
        self._joined: dict[tuple[str, ...], Batch] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        """Those of the options, or all of the modules."""
        return self.options.splits or chosen_splits(self.options.modules, self.options.masks)

    @property
    def stages(self) -> tuple[modhook.Stage, ...]:
        """The control, then the questions of `masks` alone."""
        control, part = _ordered(self.options.train), _ordered(self.options.masks)
        return (
            modhook.Stage("control", f"{_spoken(control)} training questions"),
            modhook.Stage("_".join(part), f"{_spoken(part)} training questions"),
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
        from modhook_tasks.mathematics.index import with_the_same_characters

        o = self.options
        found = {}
        for name in o.modules:
            module, beyond = MODULES[name], {"extrapolate", f"extrapolate_{name}"} & set(self.splits)
            files = {part: path for part, path in module.files.items() if part != "extrapolate" or beyond}
            if o.source == "generated":
                found[name] = data.generated(module, files, (o.train_size, o.test_size), o.held_out)
            elif o.source == "folder":
                assert o.folder is not None  # the options refuse it
                found[name] = data.from_place(Path(o.folder).expanduser(), module, files, o.held_out)
            else:
                found[name] = data.official(module, files, o.held_out)
        self._indices = with_the_same_characters(found)

    def train_set(self, stage: str | None) -> Batch:
        """Return the questions of `train` for base training and the control, else those of `masks`; module after module."""
        control, part = self.stages
        if stage not in (None, control.name, part.name):
            raise modhook.UserError(f"unknown stage {stage!r} of mathematics; it has control and {part.name}.")
        wanted = _ordered(self.options.masks if stage == part.name else self.options.train)
        if wanted not in self._joined:
            self._joined[wanted] = joined([rows for i in self._loaded().values() for rows in i.trained(wanted)])
        return self._joined[wanted]

    def test_set(self, split: str) -> Batch:
        """Return the questions of one split, shortest answers first."""
        if split not in self.splits:
            raise modhook.UserError(f"unknown split {split!r} of mathematics; this study has {', '.join(self.splits)}.")
        names, sets = parts(split, self.options.modules, self.options.train)
        every = [self._loaded()[name].test for name in names]
        return shortest_first(joined([dict(test[found]) for test in every for found in sets if found in test]))

    def decode(self, batch: Batch) -> list[str]:
        """Return each item as `question -> answer`."""
        tokens = self._tokens()
        return decoded(batch, tokens, tokens)

    def _tokens(self) -> tuple[str, ...]:
        return ("<end>", *next(iter(self._loaded().values())).characters)

    def _loaded(self) -> dict[str, Index]:
        if not self._indices:
            self.load()
        return self._indices


def _ordered(difficulties: Sequence[str]) -> tuple[str, ...]:
    return tuple(d for d in DIFFICULTIES if d in difficulties)


def _spoken(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
