"""A plain encoder of the kind that Tracr compiles to: embeddings, attention, MLPs with ReLU, a residual stream, no layer norm.

Tracr (Lindner et al. 2023, "Tracr: Compiled Transformers as a Laboratory for Interpretability") writes its compiled weights into
such a network. Its biases are all zero, so there are none here; its unembedding is a constant that picks outputs from the residual
stream, so it is a buffer here and not masked.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn


@attrs.frozen
class Sizes:
    """Sizes of a `Transformer`."""

    tokens: int
    """Size of the vocabulary."""
    positions: int
    """Longest input, the first token (BOS) included, T."""
    width: int
    """Of the residual stream, d."""
    layers: int
    heads: int
    head: int
    """Size of one head's queries, keys and values, h."""
    hidden: int
    """Units of each MLP, m."""
    outputs: int
    """Outputs per position, O."""


class Attention(nn.Module):
    """Multi-head attention over all positions (not causal), scaled by the root of the head's size."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads, self.head = sizes.heads, sizes.head
        inner = sizes.heads * sizes.head
        self.query = nn.Linear(sizes.width, inner, bias=False)
        self.key = nn.Linear(sizes.width, inner, bias=False)
        self.value = nn.Linear(sizes.width, inner, bias=False)
        self.output = nn.Linear(inner, sizes.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the heads write, (B, T, d), for a residual stream (B, T, d)."""
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, self.head)).transpose(-2, -3)
            for layer in (self.query, self.key, self.value)
        )  # (B, H, T, h) each
        weights = (query @ key.transpose(-1, -2) / self.head**0.5).softmax(-1)  # (B, H, T, T)
        written: Tensor = self.output((weights @ value).transpose(-2, -3).flatten(-2))
        return written


class Block(nn.Module):
    """Attention, then an MLP with ReLU, each added to the residual stream."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.attention = Attention(sizes)
        self.up = nn.Linear(sizes.width, sizes.hidden, bias=False)
        self.down = nn.Linear(sizes.hidden, sizes.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual stream after the block, (B, T, d)."""
        x = x + self.attention(x)
        written: Tensor = self.down(torch.relu(self.up(x)))
        return x + written


class Transformer(nn.Module):
    """Tokens (B, T) to outputs (B, T - 1, O): of every position but the first, which holds BOS."""

    unembedding: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.embedding = nn.Embedding(sizes.tokens, sizes.width)
        self.position = nn.Embedding(sizes.positions, sizes.width)
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.layers))
        self.register_buffer("unembedding", torch.zeros(sizes.outputs, sizes.width, device="cpu"))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the outputs, (B, T - 1, O), for tokens (B, T)."""
        x = self.embedding(tokens) + self.position(torch.arange(tokens.shape[-1], device=tokens.device))  # (B, T, d)
        for block in self.blocks:
            x = block(x)
        out: Tensor = x[..., 1:, :] @ self.unembedding.T
        return out
