"""Which class of a classifier an answer is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modhook import UserError
from modhook_tasks.behaviours.hub import found_in, transformers
from modhook_tasks.behaviours.rows import Row
from modhook_tasks.behaviours.tokens import WORDS

if TYPE_CHECKING:
    from modhook_tasks.behaviours.task import BehavioursOptions


def numbered(options: BehavioursOptions, rows: Sequence[Row]) -> dict[str, int]:
    """Return {label: its number}: of the options, else of the network's configuration, else those of the file, sorted.

    Raises `UserError` for labels that are named twice, and for a single one.
    """
    names = list(options.labels)
    if not names and options.tokenizer != WORDS:
        names = _configured(options.tokenizer)
    if not names:
        names = sorted({text for row in rows for text in (row.answer, row.contrast) if text is not None})
    if len(set(names)) != len(names):
        raise UserError(f"labels names a class twice: {', '.join(map(repr, names))}.")
    if len(names) < 2:
        raise UserError(f"there is one label only, {names[0]!r}, so that nothing is to be told apart; give labels all of them.")
    return {name: number for number, name in enumerate(names)}


def _configured(name: str) -> list[str]:
    """Return the labels that the configuration beside a tokenizer names, in order; none where it names none."""
    package = transformers("tokenizer", name)
    try:
        config: Any = found_in("configuration", name, package.AutoConfig.from_pretrained)
    except UserError:
        return []
    return [str(config.id2label[i]) for i in sorted(config.id2label)] if config.id2label else []
