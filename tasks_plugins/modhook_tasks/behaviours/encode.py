"""Items as tensors: what the network reads, at which positions it is asked, and which class it is to give there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from modhook_tasks.behaviours.rows import Row, wrong
from modhook_tasks.behaviours.tokens import Mismatch, Tokens, continued, filled, whole

Kind = Literal["continuation", "mask", "label"]
Side = Literal["right", "left"]
NONE = -100
"""The target of positions that do not count."""


@attrs.frozen
class Pass:
    """One text as the network reads it. The logits at `where[j]` are to be largest at class `target[j]`."""

    ids: tuple[int, ...]
    where: tuple[int, ...]
    target: tuple[int, ...]


@attrs.frozen
class Encoded:
    """An item: its answer, its wrong answer, and both after the corrupted prompt."""

    answer: Pass
    contrast: Pass | None
    corrupted: tuple[Pass, Pass | None] | None


class Encoder:
    """Makes passes of texts.

    Args:
        kind: "continuation": answers follow their prompts, and all their tokens but the last are read, too; "mask": they stand in the
            place of one mask, which becomes as many masks as the answer has tokens; "label": they are classes of the whole text.
        labels: the numbers of the classes.
    """

    def __init__(self, kind: Kind, tokens: Tokens, labels: Mapping[str, int]) -> None:
        self.kind, self.tokens, self.labels = kind, tokens, labels

    def encoded(self, path: Path, row: Row) -> Encoded:
        """Return one item. Raises `UserError` that names file and line."""

        def one(prompt: str, answer: str | None, what: str) -> Pass | None:
            try:
                return None if answer is None else self._pass(prompt, answer)
            except Mismatch as error:
                raise wrong(path, row.line, f"{what}{error}") from None

        def both(prompt: str, note: str) -> tuple[Pass, Pass | None]:
            right, other = one(prompt, row.answer, note), one(prompt, row.contrast, f"{note}as a contrast, ")
            assert right is not None
            if other is not None and (right.ids, right.target) == (other.ids, other.target):
                what = f"contrast {row.contrast!r} has the same tokens as the answer {row.answer!r}; give a wrong answer"
                raise wrong(path, row.line, what)
            return right, other

        answer, contrast = both(row.prompt, "")
        after = None if row.corrupted is None else both(row.corrupted, "after the corrupted prompt: ")
        return Encoded(answer, contrast, after)

    def _pass(self, prompt: str, answer: str) -> Pass:
        if self.kind == "continuation":
            before, answers = continued(self.tokens, prompt, answer)
            last = len(before) - 1
            return Pass((*before, *answers[:-1]), tuple(range(last, last + len(answers))), answers)
        if self.kind == "mask":
            left, count, right, answers = filled(self.tokens, prompt, answer)
            assert self.tokens.mask is not None
            places = tuple(range(len(left), len(left) + count))
            return Pass((*left, *(self.tokens.mask,) * count, *right), places, answers)
        if answer not in self.labels:
            raise Mismatch(f"the answer {answer!r} is none of the labels {', '.join(map(repr, self.labels))}")
        return Pass(whole(self.tokens, prompt), (0,), (self.labels[answer],))


def text_pass(tokens: Tokens, text: str) -> Pass:
    """Return a text in which every token but the first is the answer to all before it. Raises `Mismatch`."""
    framed = tokens.framed(text)
    ids = (*framed.before, *framed.tokens)
    if len(ids) < 2:
        raise Mismatch("a text of one token has nothing to predict")
    return Pass(ids[:-1], tuple(range(len(ids) - 1)), ids[1:])


def shared(items: Sequence[Encoded]) -> bool:
    """Whether one pass per item is enough: every wrong answer is asked for where the right one is, as with one token each."""

    def same(one: Pass, other: Pass | None) -> bool:
        return other is None or (one.ids, one.where) == (other.ids, other.where)

    after = [item.corrupted for item in items if item.corrupted is not None]
    return all(same(item.answer, item.contrast) for item in items) and all(same(*pair) for pair in after)


def tensors(
    items: Sequence[Encoded], functions: Sequence[int], *, single: bool, corrupted: bool, pad: int, side: Side
) -> dict[str, Tensor]:
    """Return items as a data set.

    N items, S passes per item (1 if `single`, else the answer's and the contrast's), T tokens, A positions:

        ids, mask (N, S, T): tokens, and where there are any. where (N, S, A): positions that are asked.
        target (N, 2, A): classes of the answer and of the contrast, -100 where there is none; with one pass, both are asked in it.
        function (N,): number of the item's function.
        corrupted_ids, corrupted_mask, corrupted_where: the same after the corrupted prompt, if `corrupted`.
    """
    pairs = [(item.answer, item.contrast) for item in items]
    data = _block(pairs, "", single, pad, side)
    width = max(len(p.target) for pair in pairs for p in pair if p is not None)
    targets = [[_filled(p.target if p else (), width, NONE) for p in pair] for pair in pairs]
    data["target"] = torch.tensor(targets, dtype=torch.int64, device="cpu")
    data["function"] = torch.tensor(list(functions), dtype=torch.int64, device="cpu")
    if corrupted:
        data |= _block([item.corrupted or (item.answer, item.contrast) for item in items], "corrupted_", single, pad, side)
    return data


def text_tensors(passes: Sequence[Pass], pad: int, side: Side) -> dict[str, Tensor]:
    """Return texts as a data set, `text_ids`, `text_mask`, `text_where` (N, 1, T) and `text_target` (N, T)."""
    data = _block([(one, None) for one in passes], "text_", True, pad, side)
    width = data["text_where"].shape[-1]
    data["text_target"] = torch.tensor([_filled(one.target, width, NONE) for one in passes], dtype=torch.int64, device="cpu")
    return data


def trimmed(data: Mapping[str, Any], prefix: str, side: Side) -> dict[str, Any]:
    """Return a batch's `ids`, `mask` and `where` without the columns that are padding in every item."""
    ids, mask, where = (data[f"{prefix}{name}"] for name in ("ids", "mask", "where"))
    length = int(mask.sum(-1).max())
    if side == "right":
        return {f"{prefix}ids": ids[..., :length], f"{prefix}mask": mask[..., :length], f"{prefix}where": where}
    cut = ids.shape[-1] - length
    return {f"{prefix}ids": ids[..., cut:], f"{prefix}mask": mask[..., cut:], f"{prefix}where": (where - cut).clamp(min=0)}


def _block(pairs: Sequence[tuple[Pass, Pass | None]], prefix: str, single: bool, pad: int, side: Side) -> dict[str, Tensor]:
    rows = [(one,) if single else (one, one if other is None else other) for one, other in pairs]
    length = max(len(p.ids) for row in rows for p in row)
    width = max(len(p.where) for row in rows for p in row)

    def placed(values: Sequence[int], filler: int) -> list[int]:
        rest = [filler] * (length - len(values))
        return [*values, *rest] if side == "right" else [*rest, *values]

    def moved(one: Pass) -> list[int]:
        shift = 0 if side == "right" else length - len(one.ids)
        return _filled([place + shift for place in one.where], width, one.where[0] + shift)

    return {
        f"{prefix}ids": torch.tensor([[placed(p.ids, pad) for p in row] for row in rows], dtype=torch.int64, device="cpu"),
        f"{prefix}mask": torch.tensor([[placed([1] * len(p.ids), 0) for p in row] for row in rows], dtype=torch.bool, device="cpu"),
        f"{prefix}where": torch.tensor([[moved(p) for p in row] for row in rows], dtype=torch.int64, device="cpu"),
    }


def _filled(values: Sequence[int], width: int, filler: int) -> list[int]:
    return [*values, *[filler] * (width - len(values))]
