"""A Transformer encoder-decoder of stock layers, for sequence to sequence tasks (reference, section 4).

Post-norm, no final norm on either stack, sinusoidal positions, no biases in the attention projections, embeddings N(0, 1)
that are not scaled. It differs from the paper's network in three things (docs/differences.md): stock attention keeps query, key
and value projections in one matrix, so they are one tensor of a mask and not two; stock layer normalisation divides by the
deviation with n, not n - 1; and where the embeddings are not tied, the start symbol has a row of its own, which the paper's
shares with the end mark (embeddings are never masked in its studies).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, cast

import attrs
import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn
from torch.nn import functional as F

import modhook


class TransformerEncoderDecoder(nn.Module):
    """Reads a token sequence (B, S) and writes another (B, T).

    The start symbol is one more row of the target embedding; tied, it is the end mark, which is token 0.
    """

    def __init__(self, source_vocabulary: int, target_vocabulary: int, options: TransformerOptions) -> None:
        super().__init__()
        o, self.start, self.dim = options, 0 if options.tied else target_vocabulary, options.dim
        self.target_embedding = nn.Embedding(target_vocabulary + (not o.tied), o.dim)
        self.source_embedding = self.target_embedding if o.tied else nn.Embedding(source_vocabulary, o.dim)
        sizes: dict[str, Any] = {"dim_feedforward": o.dim * o.feedforward, "dropout": o.dropout, "batch_first": True}
        encoder = [nn.TransformerEncoderLayer(o.dim, o.heads, **sizes) for _ in range(o.encoder_layers)]
        decoder = [nn.TransformerDecoderLayer(o.dim, o.heads, **sizes) for _ in range(o.decoder_layers)]
        self.encoder, self.decoder = nn.ModuleList(encoder), nn.ModuleList(decoder)
        self.output = None if o.tied else nn.Linear(o.dim, target_vocabulary)
        if self.output is not None:
            nn.init.xavier_uniform_(self.output.weight)
        self.dropout = nn.Dropout(o.dropout)
        for layer in (*encoder, *decoder):
            _initialise(layer, o)

    def forward(self, source: Tensor, source_length: Tensor, target: Tensor, teacher_forcing: bool = True) -> Tensor:
        """Return logits (B, T, V) of the T tokens written for `source` (B, S) with `source_length` (B,) valid tokens.

        With teacher forcing, token t is predicted from the true tokens before it in `target` (B, T); without, from the
        network's own most likely tokens, and `target` gives nothing but T.
        """
        padding = torch.arange(source.shape[1], device=source.device) >= source_length.unsqueeze(-1)  # (B, S)
        memory = self.embed(self.source_embedding, source)  # (B, S, d)
        for layer in self.encoder:
            memory = layer(memory, src_key_padding_mask=padding)
        start = torch.full_like(target[:, :1], self.start)  # (B, 1)
        if not teacher_forcing:
            return self._greedy(memory, padding, start, target.shape[1])
        read = self.embed(self.target_embedding, torch.cat([start, target[:, :-1]], dim=1))  # (B, T, d)
        steps = target.shape[1]
        future = torch.ones(steps, steps, dtype=torch.bool, device=target.device).triu(1)  # (T, T)
        for layer in self.decoder:
            read = layer(read, memory, tgt_mask=future, memory_key_padding_mask=padding)
        return self.readout(read)

    def embed(self, embedding: nn.Module, tokens: Tensor, first: int = 0) -> Tensor:
        """Return embedded tokens (B, T, d) at positions `first`, `first + 1`, ..."""
        embedded: Tensor = self.dropout(embedding(tokens) + positions(first, tokens.shape[1], self.dim, tokens.device))
        return embedded

    def readout(self, read: Tensor) -> Tensor:
        """Return logits (..., V); tied, they are products with the embeddings, scaled by sqrt(1 / d)."""
        if self.output is None:
            scale: float = self.dim**-0.5
            return F.linear(read, self.target_embedding.weight) * scale
        logits: Tensor = self.output(read)
        return logits

    def _greedy(self, memory: Tensor, padding: Tensor, token: Tensor, steps: int) -> Tensor:
        """Write token by token: only the newest position is computed, the keys and values of all others are kept."""
        layers = cast(list[nn.TransformerDecoderLayer], list(self.decoder))
        written: list[list[tuple[Tensor, Tensor]]] = [[] for _ in layers]
        crossed = [_keys_values(layer.multihead_attn, memory) for layer in layers]
        seen = ~padding[:, None, None]  # (B, 1, 1, S)
        logits = []
        for t in range(steps):
            x = self.embed(self.target_embedding, token, t)  # (B, 1, d)
            for layer, so_far, cross in zip(layers, written, crossed, strict=True):
                so_far.append(_keys_values(layer.self_attn, x))
                # (B, heads, t + 1, d / heads)
                keys, values = (torch.cat(each, 2) for each in zip(*so_far, strict=True))
                x = layer.norm1(x + layer.dropout1(_attend(layer.self_attn, x, keys, values)))
                x = layer.norm2(x + layer.dropout2(_attend(layer.multihead_attn, x, *cross, seen)))
                x = layer.norm3(x + layer.dropout3(layer.linear2(layer.dropout(F.relu(layer.linear1(x))))))
            step = self.readout(x)  # (B, 1, V)
            token = step.argmax(-1)  # (B, 1)
            logits.append(step)
        return torch.cat(logits, dim=1)


def _keys_values(attention: nn.MultiheadAttention, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return what stock attention makes of its keys and values (B, T, d): (B, heads, T, d / heads) each."""
    _, keys, values = attention.in_proj_weight.chunk(3)
    return _by_head(attention, F.linear(x, keys)), _by_head(attention, F.linear(x, values))


def _attend(
    attention: nn.MultiheadAttention, x: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None = None
) -> Tensor:
    """Return stock attention's output for queries (B, T, d), where its keys and values are there already."""
    query = _by_head(attention, F.linear(x, attention.in_proj_weight.chunk(3)[0]))
    dropout = attention.dropout if attention.training else 0.0
    found = F.scaled_dot_product_attention(query, keys, values, attn_mask=seen, dropout_p=dropout)
    out: Tensor = attention.out_proj(found.transpose(1, 2).flatten(2))
    return out


def _by_head(attention: nn.MultiheadAttention, x: Tensor) -> Tensor:
    heads: Tensor = x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)  # (B, heads, T, d / heads)
    return heads


def positions(first: int, count: int, dim: int, device: torch.device) -> Tensor:
    """Return sinusoidal positions (count, dim): sine and cosine alternate, wavelengths from 2 pi to 20,000 pi."""
    place = torch.arange(first, first + count, device=device, dtype=torch.get_default_dtype()).unsqueeze(1)
    rates = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10_000.0) / dim))  # (dim / 2,)
    return torch.stack([(place * rates).sin(), (place * rates).cos()], -1).flatten(-2)[:, :dim]  # (count, dim)


def _initialise(layer: Any, o: TransformerOptions) -> None:
    """Take the biases out of the attention; Xavier-uniform for every matrix, query, key and value each for itself."""
    for name in ("self_attn", "multihead_attn"):
        if hasattr(layer, name):
            attention = nn.MultiheadAttention(o.dim, o.heads, o.dropout, bias=False, batch_first=True)
            for matrix in (*attention.in_proj_weight.data.chunk(3), attention.out_proj.weight.data):
                nn.init.xavier_uniform_(matrix)
            setattr(layer, name, attention)
    nn.init.xavier_uniform_(layer.linear1.weight, gain=2**0.5)
    nn.init.xavier_uniform_(layer.linear2.weight)


@attrs.frozen
class TransformerOptions:
    """Options of the network `seq2seq_transformer`; the defaults are the paper's for SCAN."""

    dim: Annotated[int, Ge(2)] = 100
    heads: Annotated[int, Ge(1)] = 4
    encoder_layers: Annotated[int, Ge(1)] = 3
    decoder_layers: Annotated[int, Ge(1)] = 3
    feedforward: Annotated[int, Ge(1)] = 2
    """Width of the feed-forward layers in multiples of `dim`."""
    dropout: Annotated[float, Ge(0.0), Lt(1.0)] = 0.1
    tied: bool = False
    """One embedding for source, target and output, which has no bias (mathematics); the vocabularies must be equal."""


class Seq2SeqTransformer(modhook.Model):
    """Builds the network for a task whose shape has `source_vocabulary` and `target_vocabulary`."""

    Options = TransformerOptions
    options: TransformerOptions

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__(options)
        if options.dim % options.heads or options.dim % 2:
            raise modhook.UserError(f"dim must be even and divisible by heads = {options.heads}, not {options.dim}.")

    def build(self, shape: Mapping[str, Any]) -> nn.Module:
        """Return a new network. Raises `UserError` where the task does not fit."""
        missing = [key for key in ("source_vocabulary", "target_vocabulary") if key not in shape]
        if missing:
            raise modhook.UserError(
                f"the network 'seq2seq_transformer' needs a sequence task, one whose shape has {' and '.join(missing)}; "
                f"this one's has {', '.join(shape) or 'nothing'}."
            )
        source, target = shape["source_vocabulary"], shape["target_vocabulary"]
        if self.options.tied and source != target:
            raise modhook.UserError(
                f"model.tied shares one embedding, but the task's vocabularies have {source} and {target} tokens; "
                "leave tied out."
            )
        return TransformerEncoderDecoder(source, target, self.options)
