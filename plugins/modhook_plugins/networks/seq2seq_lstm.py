"""An LSTM encoder-decoder without attention, of stock layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import attrs
import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

import modhook
from modhook_plugins.networks.lstm import initialise


class EncoderDecoder(nn.Module):
    """Reads a token sequence with one LSTM and writes another with a second one that starts from the first one's state.

    The LSTMs are initialised as the network `lstm`'s, with one bias vector that learns; embeddings and readout keep torch's
    default initialisation, as the paper's do. Dropout acts on the embedded tokens and between
    the LSTM layers. The start symbol is one more row of the target embedding; it is never written.
    """

    def __init__(
        self, source_vocabulary: int, target_vocabulary: int, embedding: int, hidden: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0  # torch warns about dropout that has no layer to act after
        self.start = target_vocabulary
        self.source_embedding = nn.Embedding(source_vocabulary, embedding)
        self.target_embedding = nn.Embedding(target_vocabulary + 1, embedding)
        self.encoder = nn.LSTM(embedding, hidden, layers, batch_first=True, dropout=between)
        self.decoder = nn.LSTM(embedding, hidden, layers, batch_first=True, dropout=between)
        self.output = nn.Linear(hidden, target_vocabulary)
        self.dropout = nn.Dropout(dropout)
        for lstm in (self.encoder, self.decoder):
            for layer in range(layers):
                initialise(lstm, layer)

    def forward(self, source: Tensor, source_length: Tensor, target: Tensor, teacher_forcing: bool = True) -> Tensor:
        """Return logits (B, T, V) of the T tokens written for `source` (B, S) with `source_length` (B,) valid tokens.

        With teacher forcing, token t is predicted from the true tokens before it in `target` (B, T); without, from the
        network's own most likely tokens, and `target` gives nothing but T.
        """
        state = self.encode(source, source_length)
        start = torch.full_like(target[:, :1], self.start)  # (B, 1)
        if teacher_forcing:
            written = torch.cat([start, target[:, :-1]], dim=1)  # (B, T)
            return self.decode(written, state)[0]
        token, logits = start, []
        for _ in range(target.shape[1]):
            step, state = self.decode(token, state)
            token = step.argmax(-1)  # (B, 1)
            logits.append(step)
        return torch.cat(logits, dim=1)

    def encode(self, source: Tensor, source_length: Tensor) -> tuple[Tensor, Tensor]:
        """Return the state after each item's own last token: two tensors (layers, B, hidden)."""
        embedded = self.dropout(self.source_embedding(source))  # (B, S, E)
        _, (h, c) = self.encoder(embedded[:, :1])
        for t in range(1, source.shape[1]):
            _, (new_h, new_c) = self.encoder(embedded[:, t : t + 1], (h, c))
            # Token by token, and not packed: an item that has ended keeps its state, and the shapes depend on no data.
            running = (t < source_length).unsqueeze(-1)  # (B, 1)
            h, c = torch.where(running, new_h, h), torch.where(running, new_c, c)
        return h, c

    def decode(self, tokens: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the logits (B, T, V) that follow `tokens` (B, T) read from `state`, and the state after them."""
        read, state = self.decoder(self.dropout(self.target_embedding(tokens)), state)  # (B, T, hidden)
        return self.output(read), state


@attrs.frozen
class Seq2SeqLSTMOptions:
    """Options of the network `seq2seq_lstm`; the defaults are the paper's for SCAN."""

    embedding: Annotated[int, Ge(1)] = 16
    hidden: Annotated[int, Ge(1)] = 200
    layers: Annotated[int, Ge(1)] = 2
    dropout: Annotated[float, Ge(0.0), Lt(1.0)] = 0.5


class Seq2SeqLSTM(modhook.Model):
    """Builds an `EncoderDecoder` for a task whose shape has `source_vocabulary` and `target_vocabulary`."""

    Options = Seq2SeqLSTMOptions
    options: Seq2SeqLSTMOptions

    def build(self, shape: Mapping[str, Any]) -> nn.Module:
        """Return a new network. Raises `UserError` where the task is not sequence to sequence."""
        missing = [key for key in ("source_vocabulary", "target_vocabulary") if key not in shape]
        if missing:
            raise modhook.UserError(
                f"the network 'seq2seq_lstm' needs a sequence task, one whose shape has {' and '.join(missing)}; "
                f"this one's has {', '.join(shape) or 'nothing'}."
            )
        o = self.options
        vocabularies = shape["source_vocabulary"], shape["target_vocabulary"]
        return EncoderDecoder(*vocabularies, o.embedding, o.hidden, o.layers, o.dropout)
