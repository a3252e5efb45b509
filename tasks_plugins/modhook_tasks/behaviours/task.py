"""The task `behaviours`: what a language model answers, each function of a file of prompts and answers a stage and a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import attrs
import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from modhook import Stage, Task, UserError, objectives, study_path, unmasked
from modhook.errors import listing, near_miss
from modhook_tasks.behaviours.encode import (
    NONE,
    Encoded,
    Encoder,
    Kind,
    shared,
    tensors,
    text_pass,
    text_tensors,
    trimmed,
)
from modhook_tasks.behaviours.hub import checked_folder
from modhook_tasks.behaviours.labels import numbered
from modhook_tasks.behaviours.rows import Row, divided, read_rows, read_text, wrong
from modhook_tasks.behaviours.scores import Reader, divergence, fingerprint, log_probability, margin
from modhook_tasks.behaviours.tokens import WORDS, Mismatch, Tokens, tokens_of

Data = dict[str, Tensor]
WHOLE = "all"
"""The split of all functions together, where there is a control."""


@attrs.frozen
class BehavioursOptions:
    """Options of the task `behaviours`. Names of files and folders are relative to the study file."""

    file: str
    """JSONL or CSV: `prompt`, `answer`, and where wanted `contrast`, `corrupted`, `function`, `split`."""
    tokenizer: str
    """A local folder, a name on the Hugging Face hub, or `words`: every word between spaces that the files hold is a token."""
    kind: Kind = "continuation"
    """Where answers are: after the prompt, in the place of its mask (encoders), or as a label of the whole prompt (classifiers)."""
    objective: Literal["cross_entropy", "logit_difference", "kl"] = "cross_entropy"
    """What masks are learned by, at the answers' positions."""
    functions: tuple[str, ...] = ()
    """Functions of the file to look for; none given: all of them."""
    text: str | None = None
    """A file of texts, one per line, for base training by the next token; without it base training learns all functions' answers."""
    labels: tuple[str, ...] = ()
    """With `kind = "label"`: names of the classes, in order; none given: those of the tokenizer's folder, else the file's, sorted."""
    control: bool = False
    """Whether there is a first stage on all functions together, with a split of its own, `all`."""
    held_out: Annotated[float, Gt(0.0), Lt(1.0)] = 0.2
    """Share of the lines that test a function whose lines name no split."""
    padding: Literal["right", "left"] = "right"
    """The side on which shorter texts are filled up."""
    length: Annotated[int, Ge(2)] | None = None
    """The most tokens of a line; none given: as long as they are."""


class Behaviours(Task):
    """One stage and one split, held-out lines, per function."""

    Options = BehavioursOptions
    options: BehavioursOptions
    metrics = ("accuracy", "faithfulness", "kl", "logit_difference")
    numbers = ("kl", "logit_difference")
    independent = True

    def __init__(self, options: BehavioursOptions) -> None:
        super().__init__(options)
        self.control = options.control
        if not options.tokenizer.strip():
            raise UserError(f"tokenizer is empty; name a folder, a name on the Hugging Face hub, or {WORDS!r}.")
        if options.text is not None and options.kind != "continuation":
            raise UserError(f"text trains a network by the next token, but kind is {options.kind!r}; leave text out.")
        if options.padding == "left" and options.kind != "continuation":
            raise UserError(f'padding = "left" is for answers that continue prompts, but kind is {options.kind!r}; leave it out.')
        if options.labels and options.kind != "label":
            raise UserError(f'labels are for kind = "label", but kind is {options.kind!r}; leave labels out.')
        self.path = study_path(options.file)
        self._rows = self._chosen(divided(self.path, read_rows(self.path), options.held_out))
        self._texts = [] if options.text is None else self._read_texts(options.text)
        if options.objective == "logit_difference":
            for row in (row for parts in self._rows.values() for row in parts["train"] if row.contrast is None):
                raise wrong(self.path, row.line, 'contrast is missing, which objective = "logit_difference" needs')
        if options.tokenizer != WORDS:
            checked_folder("tokenizer", options.tokenizer)
        self._data: dict[str, Data] = {}
        self._reference: tuple[Any, Tensor, dict[int, float]] | None = None

    # -- the file

    def _chosen(self, found: dict[str, dict[str, list[Row]]]) -> dict[str, dict[str, list[Row]]]:
        wanted = self.options.functions or tuple(found)
        for name in wanted:
            if name not in found:
                hint = near_miss(name, found) or f"; it has {listing(map(repr, found))}"
                raise UserError(f"functions names {name!r}, but {self.path} has no such function{hint}.")
        if len(set(wanted)) != len(wanted):
            raise UserError(f"functions names a function twice: {', '.join(wanted)}.")
        return {name: found[name] for name in wanted}

    def _read_texts(self, name: str) -> list[tuple[int, str]]:
        path = study_path(name)
        lines = [(n, line) for n, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
        if not lines:
            raise UserError(f"{path} holds no text; write one per line.")
        return lines

    @property
    def splits(self) -> tuple[str, ...]:
        """The functions: their held-out lines; with a control, all of them together first."""
        return (*((WHOLE,) if self.control else ()), *self._rows)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One per function, and the control where it is asked for."""
        first = (Stage("control", "all functions together"),) if self.control else ()
        return (*first, *(Stage(name, self._doc(name)) for name in self._rows))

    def _doc(self, name: str) -> str:
        row = self._rows[name]["train"][0]
        than = "" if row.contrast is None else f", and not {row.contrast.strip()!r}"
        return f"prompts such as {row.prompt!r}, to be answered by {row.answer.strip()!r}{than}"

    # -- the data

    def load(self) -> None:
        """Read the tokenizer and encode every line. Raises `UserError` that names the line."""
        rows = [(name, split, row) for name, parts in self._rows.items() for split, there in parts.items() for row in there]
        rows.sort(key=lambda found: found[2].line)  # the first mistake of the file is told
        texts = [text for _, text in self._texts]
        for _, _, row in rows:
            texts += [row.prompt, row.corrupted or ""]
            texts += [] if self.options.kind == "label" else [row.answer, row.contrast or ""]
        self.tokens: Tokens = tokens_of(self.options.tokenizer, texts)
        self.labels = numbered(self.options, [row for _, _, row in rows]) if self.options.kind == "label" else {}
        encoder = Encoder(self.options.kind, self.tokens, self.labels)
        items = [encoder.encoded(self.path, row) for _, _, row in rows]
        self._check_lengths(items, [row for _, _, row in rows])
        numbers = [list(self._rows).index(name) for name, _, _ in rows]
        corrupted = any(item.corrupted is not None for item in items)
        pad, side = self.tokens.pad, self.options.padding
        every = tensors(items, numbers, single=shared(items), corrupted=corrupted, pad=pad, side=side)
        for name in self._rows:
            for split in ("train", "test"):
                index = torch.tensor([i for i, (n, s, _) in enumerate(rows) if (n, s) == (name, split)], device="cpu")
                self._data[f"{split} {name}"] = {key: tensor[index] for key, tensor in every.items()}
        self.positions = int(every["mask"].shape[-1])
        if corrupted:
            self.positions = max(self.positions, int(every["corrupted_mask"].shape[-1]))
        if self._texts:
            self._data["text"] = self._encoded_texts()
            self.positions = max(self.positions, int(self._data["text"]["text_mask"].shape[-1]))
        classes = len(self.labels) if self.options.kind == "label" else self._largest(every) + 1
        self.reader = Reader(str(self.path), self.options.kind, classes, side)

    def _largest(self, every: Data) -> int:
        found = [int(every["target"].max())]
        return max([*found, *([int(self._data["text"]["text_target"].max())] if self._texts else [])])

    def _encoded_texts(self) -> Data:
        assert self.options.text is not None
        path, passes = study_path(self.options.text), []
        for line, text in self._texts:
            try:
                passes.append(text_pass(self.tokens, text))
            except Mismatch as error:
                raise wrong(path, line, str(error)) from None
            if self.options.length is not None and len(passes[-1].ids) > self.options.length:
                raise wrong(path, line, f"it has more than the {self.options.length} tokens of task.length")
        return text_tensors(passes, self.tokens.pad, self.options.padding)

    def _check_lengths(self, items: Sequence[Encoded], rows: Sequence[Row]) -> None:
        most = self.options.length
        for item, row in zip(items, rows, strict=True):
            passes = [item.answer, item.contrast, *(item.corrupted or ())]
            if most is not None and (longest := max(len(p.ids) for p in passes if p is not None)) > most:
                raise wrong(self.path, row.line, f"it has {longest} tokens, more than the {most} of task.length")

    def shape(self) -> Mapping[str, Any]:
        """Return what a network must read and tell apart: tokens, positions, and the head that `kind` asks for."""
        self._loaded()
        return {
            "vocabulary": self.tokens.size,
            "positions": self.positions,
            "head": self.options.kind,
            "labels": len(self.labels),
            "padding": self.tokens.pad,
        }

    def train_set(self, stage: str | None) -> Data:
        """Return a function's lines to learn from, those of all functions, or the texts of base training."""
        data = self._loaded()
        if stage is None and self._texts:
            return data["text"]
        return self._part("train", None if stage in (None, "control") else stage)

    def test_set(self, split: str) -> Data:
        """Return a function's held-out lines, or all of them."""
        return self._part("test", None if split == WHOLE else split)

    def _part(self, split: str, function: str | None) -> Data:
        data = self._loaded()
        if function is not None:
            return data[f"{split} {function}"]
        parts = [data[f"{split} {name}"] for name in self._rows]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def _loaded(self) -> dict[str, Data]:
        if not self._data:
            self.load()
        return self._data

    def prepare(self, batch: Data, rng: np.random.Generator, training: bool) -> Data:
        """Cut off what is padding in every item; in training, what a loss does not need is left out."""
        side = self.options.padding
        if "text_ids" in batch:
            found = {**batch, **trimmed(batch, "text_", side)}
            width = found["text_ids"].shape[-1]
            return {**found, "text_where": found["text_where"][..., :width], "text_target": batch["text_target"][:, :width]}
        kept = {n: t for n, t in batch.items() if not (training and n.startswith("corrupted_"))}
        found = {**kept, **trimmed(kept, "", side)}
        return found if "corrupted_ids" not in found else {**found, **trimmed(kept, "corrupted_", side)}

    def nonsense(self, data: Data, stage: str, seed: int) -> Data:
        """Return the data with every token of the function's answers replaced by another one, in one cycle; texts stay."""
        if "target" not in data:
            return data
        known = self._true_targets(stage)
        if len(known) < 2:
            raise UserError(f"the answers of stage {stage!r} hold one token only, which cannot change places.")
        order = np.random.default_rng([seed, *stage.encode()]).permutation(len(known))
        table = torch.arange(int(max(known[-1], int(data["target"].max()))) + 1, device="cpu")
        table[torch.from_numpy(known[order])] = torch.from_numpy(known[np.roll(order, 1)])
        target = data["target"]
        moved = torch.where(target == NONE, NONE, table[target.clamp(min=0)])
        found = {**data, "target": moved}
        if self.options.kind == "continuation":  # the answer's first tokens are read as well
            for prefix in ("", "corrupted_"):
                if f"{prefix}ids" in data:
                    found[f"{prefix}ids"] = _reread(data[f"{prefix}ids"], data[f"{prefix}where"], moved)
        return found

    def _true_targets(self, stage: str) -> np.ndarray[Any, Any]:
        found = Behaviours.train_set(self, stage)["target"].unique().numpy()
        known: np.ndarray[Any, Any] = found[found != NONE]
        return known

    # -- the network

    def loss(self, net: Any, batch: Data) -> Tensor:
        """Return the objective at the answers' positions, or in base training the cross-entropy of the next tokens."""
        if "text_ids" in batch:
            return self._cross_entropy(net, batch, lambda b: b["text_target"], self._text_logits)
        if self.options.objective == "kl":
            return objectives.kl(outputs=self._answer_logits, where=lambda b: b["target"][:, 0] != NONE)(net, batch)
        if self.options.objective == "logit_difference":
            first, second = _column(0), _column(1)
            return objectives.logit_difference(first, second, outputs=self._log_probabilities)(net, batch)
        return self._cross_entropy(net, batch, lambda b: b["target"][:, 0], self._answer_logits)

    def _cross_entropy(self, net: Any, batch: Data, labels: Callable[[Data], Tensor], outputs: Callable[[Any, Data], Tensor]) -> Tensor:
        return objectives.cross_entropy(outputs, labels, ignore_index=NONE)(net, batch)

    def _text_logits(self, net: Any, batch: Data) -> Tensor:
        return self.reader.logits(net, batch["text_ids"][:, 0], batch["text_mask"][:, 0], batch["text_where"][:, 0])

    def _answer_logits(self, net: Any, batch: Data) -> Tensor:
        """Return the logits at the answer's positions, (B, A, C)."""
        return self.reader.logits(net, batch["ids"][:, 0], batch["mask"][:, 0], batch["where"][:, 0])

    def _both(self, net: Any, batch: Data, prefix: str = "") -> tuple[Tensor, Tensor]:
        """Return the logits at the positions of the answer and of the contrast, (B, A, C) each."""
        ids, mask, where = (batch[f"{prefix}{name}"] for name in ("ids", "mask", "where"))  # (B, S, ...)
        found = self.reader.logits(net, ids.flatten(0, 1), mask.flatten(0, 1), where.flatten(0, 1))
        logits = found.unflatten(0, ids.shape[:2])  # (B, S, A, C)
        return logits[:, 0], logits[:, -1]

    def _log_probabilities(self, net: Any, batch: Data) -> Tensor:
        """Return log p(answer) and log p(contrast), summed over all their tokens: (B, 2)."""
        answer, contrast = self._both(net, batch)
        target = batch["target"]
        return torch.stack([log_probability(answer, target[:, 0]), log_probability(contrast, target[:, 1])], 1)

    def _difference(self, both: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        """Return by how much the answer beats the contrast, or where there is none every other token: (B,)."""
        answer, contrast = both
        contrasted = (target[:, 1] != NONE).any(-1)
        wins = log_probability(answer, target[:, 0]) - log_probability(contrast, target[:, 1])
        return torch.where(contrasted, wins, margin(answer, target[:, 0]))

    def score(self, net: Any, batch: Data) -> dict[str, Tensor]:
        """Return the four scores of every item, (B,); see docs/behaviours.md for their formulas."""
        if "text_ids" in batch:
            return self._text_scores(net, batch)
        target, both = batch["target"], self._both(net, batch)
        difference = self._difference(both, target)
        with unmasked(net) as masked:
            whole = self._both(net, batch) if masked else both
            floor = self._floor(net, batch)
            divergences = divergence(whole[0], both[0], target[:, 0])
            means = self._means(net, batch)
        scale = torch.tensor([means[f] for f in batch["function"].tolist()], dtype=torch.float64, device=difference.device)
        share = (difference.double() - floor.double()) / scale
        return {
            "accuracy": (difference > 0).double(),
            "faithfulness": torch.where(scale == 0, torch.nan, share),
            "kl": divergences,
            "logit_difference": difference,
        }

    def _floor(self, net: Any, batch: Data) -> Tensor:
        """Return the difference after the corrupted prompt, (B,); 0 without one."""
        if "corrupted_ids" not in batch:
            return torch.zeros(len(batch["function"]), device=batch["function"].device)
        found = self._difference(self._both(net, batch, "corrupted_"), batch["target"])
        has = torch.tensor([self._has_corrupted(f) for f in batch["function"].tolist()], device=found.device)
        return torch.where(has, found, 0)

    def _has_corrupted(self, function: int) -> bool:
        return list(self._rows.values())[function]["train"][0].corrupted is not None

    def _means(self, net: Any, batch: Data) -> dict[int, float]:
        """Return {function: mean over its held-out items of difference - floor}, of the network as it is now, without masks."""
        now = fingerprint(net)
        known = self._reference
        means = known[2] if known is not None and known[0] is type(self) and torch.equal(known[1], now) else {}
        size, device = max(len(batch["function"]), 1), batch["function"].device
        for number in sorted(set(batch["function"].tolist()) - set(means)):
            data = self.test_set(list(self._rows)[number])
            total, count = 0.0, len(data["function"])
            for start in range(0, count, size):
                part = {n: t[start : start + size].to(device) for n, t in data.items()}
                part = self.prepare(part, np.random.default_rng(0), False)
                gained = self._difference(self._both(net, part), part["target"]).double() - self._floor(net, part).double()
                total += float(gained.sum())
            means[number] = total / count
        self._reference = (type(self), now, means)
        return means

    def _text_scores(self, net: Any, batch: Data) -> dict[str, Tensor]:
        """Return the share of a text's tokens that greedy choice gives; the other scores are about answers."""
        target = batch["text_target"]
        counts = target != NONE
        right = (self._text_logits(net, batch).argmax(-1) == target) & counts
        share = right.sum(-1).double() / counts.sum(-1)
        return {"accuracy": share, **{name: torch.full_like(share, torch.nan) for name in self.metrics[1:]}}

    def decode(self, batch: Data) -> list[str]:
        """Return each item as `prompt -> answer`."""
        found = []
        if "text_ids" in batch:
            return [self.tokens.text(i[m].tolist()) for i, m in zip(batch["text_ids"][:, 0], batch["text_mask"][:, 0], strict=True)]
        names = list(self.labels)
        for ids, mask, target in zip(batch["ids"][:, 0], batch["mask"][:, 0], batch["target"][:, 0], strict=True):
            answer = [int(t) for t in target if t != NONE]
            read = ids[mask].tolist()
            prompt = read[: len(read) - len(answer) + 1] if self.options.kind == "continuation" else read
            said = names[answer[0]] if self.options.kind == "label" else self.tokens.text(answer)
            found.append(f"{self.tokens.text(prompt)} -> {said}")
        return found


def _column(number: int) -> Callable[[Data], Tensor]:
    """Return a place in a batch that says of every item: this class."""
    return lambda batch: torch.full_like(batch["function"], number)


def _reread(ids: Tensor, where: Tensor, target: Tensor) -> Tensor:
    """Return what is read with the answers' new first tokens: the token after `where[j]` is `target[j]`, but for the last."""
    ids = ids.clone()  # (N, S, T)
    for one in range(ids.shape[1]):
        for j in range(target.shape[-1] - 1):
            counts = target[:, one, j + 1] != NONE  # there is a further token, so this one is read
            rows = counts.nonzero()[:, 0]
            ids[rows, one, where[rows, one, j + 1]] = target[rows, one, j]
    return ids
