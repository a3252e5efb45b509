"""What tasks from one token sequence to another share: padding, teacher forcing, loss and score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

import modhook

if TYPE_CHECKING:
    from modhook.plugin.interfaces import Batch, Net

END = 0
"""Token that ends every sequence, in every vocabulary. It also fills the padding, which nothing reads."""


def pad(tokens: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any], width: int) -> np.ndarray[Any, Any]:
    """Cut `tokens`, (sum of lengths,), into rows and fill each up with `END`: (N, width), of the same dtype."""
    padded = np.full((len(lengths), width), END, dtype=tokens.dtype)
    padded[np.arange(width) < lengths[:, None]] = tokens
    return padded


def decoded(batch: Batch, source_tokens: Sequence[str], target_tokens: Sequence[str], between: str = "") -> list[str]:
    """Return each item as `source -> target`, without end marks and padding."""

    def text(tokens: Tensor, length: Tensor, names: Sequence[str]) -> str:
        return between.join(names[i] for i in tokens[: int(length) - 1].tolist())

    rows = zip(*(batch[key] for key in ("source", "source_length", "target", "target_length")), strict=True)
    return [f"{text(s, n, source_tokens)} -> {text(t, m, target_tokens)}" for s, n, t, m in rows]


def one_or_several(value: str | Sequence[str]) -> str | tuple[str, ...]:
    """Return a name as it is, a list of one as that one, and a longer list as a tuple: one thing has one spelling."""
    if isinstance(value, str):
        return value
    return value[0] if len(value) == 1 else tuple(value)


def joined(parts: Sequence[Batch]) -> Batch:
    """Return the items of all parts, one part after the other; narrower ones are padded to the widest."""
    if len(parts) == 1:
        return parts[0]

    def column(key: str) -> Tensor:
        tensors = [part[key] for part in parts]
        if tensors[0].dim() == 2:
            width = max(tensor.shape[1] for tensor in tensors)
            tensors = [torch.nn.functional.pad(tensor, (0, width - tensor.shape[1]), value=END) for tensor in tensors]
        return torch.cat(tensors)

    return {key: column(key) for key in parts[0]}


def shortest_first(data: Batch) -> Batch:
    """Return the items by the length of their targets: a batch of short answers is decoded in few steps."""
    order = data["target_length"].argsort(stable=True)
    return {key: tensor[order] for key, tensor in data.items()}


class SequenceTask(modhook.Task):
    """A task whose batch holds `source` (B, S), `source_length` (B,), `target` (B, T), `target_length` (B,).

    End marks are included and counted. After `prepare` they are int64 and no wider than the longest item, and the flag
    `teacher_forcing` is there. The network is called as `net(source, source_length, target, teacher_forcing=bool)` and
    returns logits (B, T, V); without teacher forcing it may use no more of `target` than its length T.
    """

    teacher_forcing: float = 1.0
    """Share of the training batches in which the network sees the true previous token and not its own."""

    def prepare(self, batch: Batch, rng: np.random.Generator, training: bool) -> Batch:
        """Cut the padding down to the batch's longest item and, in training, flip the batch's teacher-forcing coin."""
        longest_source, longest_target = int(batch["source_length"].max()), int(batch["target_length"].max())
        forced = bool(rng.random() < self.teacher_forcing) if training else False
        return {
            "source": batch["source"][:, :longest_source].long(),
            "source_length": batch["source_length"].long(),
            "target": batch["target"][:, :longest_target].long(),
            "target_length": batch["target_length"].long(),
            "teacher_forcing": forced,
        }

    def nonsense(self, data: Batch, stage: str, seed: int) -> Batch:
        """Return the data with every token of the stage's answers replaced by another one; end marks and lengths stay."""
        present = self.train_set(stage)["target"].unique().numpy()
        known = present[present != END]
        if len(known) < 2:
            raise modhook.UserError(f"the answers of stage {stage!r} hold one token only, which cannot change places.")
        order = np.random.default_rng([seed, *stage.encode()]).permutation(len(known))
        table = np.arange(int(max(known[-1], data["target"].max())) + 1, dtype=known.dtype)
        table[known[order]] = known[np.roll(order, 1)]
        return {**data, "target": torch.from_numpy(table)[data["target"].long()]}

    def loss(self, net: Net, batch: Batch) -> Tensor:
        """Return the cross-entropy summed over the valid tokens, end marks included, divided by the number of items."""
        target = batch["target"]  # (B, T)
        logits = net(batch["source"], batch["source_length"], target, teacher_forcing=batch["teacher_forcing"])
        # Not F.cross_entropy: its `ignore_index` would need a rewritten target, and a gather runs under vmap as it is.
        likelihood = logits.log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)  # (B, T)
        loss: Tensor = -(likelihood * _valid(batch)).sum() / target.shape[0]
        return loss

    def score(self, net: Net, batch: Batch) -> dict[str, Tensor]:
        """Return 1 for each item whose greedy output is right in every token up to and with the end mark, else 0."""
        logits = net(batch["source"], batch["source_length"], batch["target"], teacher_forcing=False)  # (B, T, V)
        right = (logits.argmax(-1) == batch["target"]) | ~_valid(batch)
        return {"accuracy": right.all(-1).to(logits.dtype)}


def _valid(batch: Batch) -> Tensor:
    """Return which positions of `target` are no padding, (B, T)."""
    positions = torch.arange(batch["target"].shape[-1], device=batch["target"].device)
    valid: Tensor = positions < batch["target_length"].unsqueeze(-1)
    return valid
