"""Welded networks: two small networks trained apart on two functions of the same inputs, joined in one with a gate on the input.

The last two inputs say which function is asked. They push the other part's last hidden units below zero, so that the joined network
answers as the part alone does. Hidden units are shuffled, so that nothing but the weights tells the parts from each other.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from modhook_tasks.known.compiled import FILES
from modhook_tasks.known.joining import Axis, Layout, Space, join, shared, shuffled
from modhook_tasks.known.questions import KINDS, SIDE, items
from modhook_tasks.known.structure import Function, halves
from modhook_tasks.known.transformer import Block, Sizes

GATES = 2
SHUT = -100.0
"""The gate's weight on the hidden units of the part that is not asked; they never come near 100 otherwise."""
INPUTS = {"fnn": "vectors", "lstm": "sequences", "transformer": "sequences", "cnn": "images"}
WIDTH = {"fnn": 16, "lstm": 8, "transformer": 8, "cnn": 0}
HIDDEN, CHANNELS = 16, 6
"""Of one part: width of the body (first layer, LSTM, residual stream and head), last hidden units, channels."""


class LSTMBody(nn.Module):
    """Embedding, LSTM, its last output."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, width) for tokens (B, T) as floats."""
        last: Tensor = self.lstm(self.embedding(inputs.long()))[0][:, -1]
        return last


class TransformerBody(nn.Module):
    """Embeddings, one block, the last position."""

    def __init__(self, tokens: int, positions: int, head: int, heads: int) -> None:
        super().__init__()
        width = head * heads
        self.embedding = nn.Embedding(tokens, width)
        self.position = nn.Embedding(positions, width)
        self.block = Block(Sizes(tokens, positions, width, 1, heads, head, hidden=2 * width, outputs=0))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, width) for tokens (B, T) as floats."""
        x: Tensor = self.embedding(inputs.long()) + self.position(torch.arange(inputs.shape[1], device=inputs.device))
        out: Tensor = self.block(x)[:, -1]
        return out


class Welded(nn.Module):
    """Inputs (B, n + 2) to classes (B, C): a body, hidden units that the gate can shut, a readout without bias."""

    def __init__(self, body: nn.Module, width: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.body = body
        self.features = nn.Linear(width, hidden)
        self.gate = nn.Linear(GATES, hidden, bias=False)
        self.readout = nn.Linear(hidden, classes, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits (B, C)."""
        hidden = self.features(self.body(inputs[:, :-GATES])) + self.gate(inputs[:, -GATES:])  # (B, hidden)
        logits: Tensor = self.readout(torch.relu(hidden))
        return logits


def networks() -> tuple[str, ...]:
    """Return the names of all welded networks."""
    return tuple(f"welded_{kind}" for kind in INPUTS)


def empty(kind: str, parts: int) -> Welded:
    """Return a new network of one kind with the units of so many parts; its gate is open (zero)."""
    inputs = KINDS[INPUTS[kind]]
    width = WIDTH[kind] * parts
    body: nn.Module
    if kind == "fnn":
        body = nn.Sequential(nn.Linear(inputs.inputs, width), nn.ReLU())
    elif kind == "lstm":
        body = LSTMBody(4, width)
    elif kind == "transformer":
        body = TransformerBody(4, inputs.inputs, WIDTH[kind], parts)
    else:
        channels = CHANNELS * parts
        body = nn.Sequential(
            nn.Unflatten(1, (1, SIDE, SIDE)),
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        width = channels * (SIDE // 4) ** 2
    model = Welded(body, width, HIDDEN * parts, inputs.classes)
    nn.init.zeros_(model.gate.weight)
    return model


@cache
def recorded() -> dict[str, Any]:
    """Return {kind: {function: held-out accuracy of the part alone}}."""
    found: dict[str, Any] = json.loads((FILES / "parts.json").read_text(encoding="utf-8"))
    return found


def build(name: str, seed: int) -> tuple[Welded, dict[str, Function], dict[str, Tensor], dict[str, float]]:
    """Return network, functions, owner of each weight (the gate's: nobody's), accuracy of the parts. The seed shuffles units."""
    kind = name.removeprefix("welded_")
    functions = questions(kind)
    parts = [load_file(FILES / f"part_{kind}_{question}.safetensors") for question in functions]
    spaces = _spaces(kind, len(parts), torch.Generator().manual_seed(seed))
    model = empty(kind, len(parts))
    joined, owner = join(model.state_dict(), parts, {**COMMON, **LAYOUTS[kind]}, spaces)
    for number in range(GATES):
        other = torch.cat([p for part, p in enumerate(spaces["hidden"].places) if part != number])
        joined["gate.weight"][other, number] = SHUT
    model.load_state_dict(joined)
    model.eval().requires_grad_(False)
    return model, functions, owner, dict(recorded()[kind])


def questions(kind: str) -> dict[str, Function]:
    """Return the two functions of a kind of network."""
    inputs = INPUTS[kind]
    found = {}
    for number, (name, question) in enumerate(KINDS[inputs].questions.items(), 1):
        train, test = halves(items(inputs, name))
        found[name] = Function(name, question.doc, number, "classes", train, test)
    return found


_HIDDEN, _WIDTH = Axis("hidden"), Axis("width")
COMMON: Layout = {
    "features.weight": (_HIDDEN, _WIDTH),
    "features.bias": (_HIDDEN,),
    "readout.weight": (Axis("classes"), _HIDDEN),
}
_GATED = Axis("width", outer=4)  # input, forget, cell and output gates, one block each
LAYOUTS: dict[str, dict[str, tuple[Axis, ...]]] = {
    "fnn": {"body.0.weight": (_WIDTH,), "body.0.bias": (_WIDTH,)},
    "lstm": {
        "body.embedding.weight": (Axis("tokens"), Axis("embedded")),
        "body.lstm.weight_ih_l0": (_GATED, Axis("embedded")),
        "body.lstm.weight_hh_l0": (_GATED, _WIDTH),
        "body.lstm.bias_ih_l0": (_GATED,),
        "body.lstm.bias_hh_l0": (_GATED,),
    },
    "transformer": {
        "body.embedding.weight": (Axis("tokens"), _WIDTH),
        "body.position.weight": (Axis("positions"), _WIDTH),
        **{f"body.block.attention.{n}.weight": (Axis("inner"), _WIDTH) for n in ("query", "key", "value")},
        "body.block.attention.output.weight": (_WIDTH, Axis("inner")),
        "body.block.up.weight": (Axis("units"), _WIDTH),
        "body.block.down.weight": (_WIDTH, Axis("units")),
    },
    "cnn": {
        "body.1.weight": (Axis("first"),),
        "body.1.bias": (Axis("first"),),
        "body.4.weight": (Axis("second"), Axis("first")),
        "body.4.bias": (Axis("second"),),
        "features.weight": (_HIDDEN, Axis("second", inner=(SIDE // 4) ** 2)),
    },
}


def _spaces(kind: str, parts: int, generator: torch.Generator) -> dict[str, Space]:
    def mixed(size: int) -> Space:
        return shuffled([size] * parts, generator)

    width = WIDTH[kind]
    heads = mixed(1)  # a head's own units stay in it
    inner = tuple(place * width + torch.randperm(width, generator=generator, device="cpu") for place in heads.places)
    inputs = KINDS[INPUTS[kind]]
    return {
        "classes": shared(inputs.classes, parts),
        "tokens": shared(4, parts),
        "positions": shared(inputs.inputs, parts),
        "width": mixed(width),
        "embedded": mixed(width),
        "hidden": mixed(HIDDEN),
        "units": mixed(2 * width),
        "inner": Space(width * parts, inner),
        "first": mixed(CHANNELS),
        "second": mixed(CHANNELS),
    }
