"""A small tokenizer with a vocabulary of pieces, and small networks called as those of transformers are; float64, no package needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

PIECES = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "the", " the", " cat", " cats", " dog", " dogs", " run", " runs", " sit", " sits"]
PIECES += [" near", " a", " b", " c", " d", " ;", "ning", "s", "a", "b", "c", "d", " ", "!"]


class Toy:
    """Takes the longest piece that fits, as merged pieces do: " cat" and "s" are one token where they meet.

    `frame` puts a token before every text, and with "both" one behind it, too.
    """

    pad_token_id, bos_token_id, eos_token_id, unk_token_id, mask_token_id, mask_token = 0, 1, 2, 3, 4, "<mask>"

    def __init__(self, frame: str = "before") -> None:
        self.frame = frame

    def __len__(self) -> int:
        return len(PIECES)

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """Return the tokens of a text."""
        found, at, pieces = [], 0, sorted(PIECES[4:], key=len, reverse=True)
        while at < len(text):
            piece = next((p for p in pieces if text.startswith(p, at)), None)
            found.append(3 if piece is None else PIECES.index(piece))
            at += 1 if piece is None else len(piece)
        before, after = ([1], [2] if self.frame == "both" else []) if add_special_tokens and self.frame else ([], [])
        return {"input_ids": [*before, *found, *after]}

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""
        return "".join(PIECES[token] for token in tokens)


class Attends(nn.Module):
    """One layer of attention over tokens and positions; `causal` looks back only, `classes` pools instead of answering everywhere."""

    def __init__(self, size: int = len(PIECES), causal: bool = True, classes: int = 0, width: int = 8) -> None:
        super().__init__()
        self.causal, self.classes = causal, classes
        self.tokens, self.positions = nn.Embedding(size, width), nn.Embedding(16, width)
        self.attend, self.out = nn.Linear(width, 3 * width), nn.Linear(width, classes or size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None) -> Any:
        """Return an object with `logits`: (B, T, V), or (B, C) with classes."""
        length = input_ids.shape[1]
        seen = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        places = torch.arange(length).expand_as(input_ids) if position_ids is None else position_ids
        x = self.tokens(input_ids) + self.positions(places)
        query, key, value = self.attend(x).chunk(3, -1)
        allowed = seen[:, None, :].bool()
        if self.causal:
            allowed = allowed & torch.ones(length, length, dtype=torch.bool).tril()
        weights = (query @ key.transpose(1, 2) / math.sqrt(x.shape[-1])).masked_fill(~allowed, -1e30).softmax(-1)
        y = (x + weights @ value).tanh()
        if self.classes:
            y = (y * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)
        return SimpleNamespace(logits=self.out(y))


def made(**options: Any) -> Attends:
    """Return the network in float64, with weights that make differences of some size."""
    torch.manual_seed(3)
    net = Attends(**options).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)
    return net
