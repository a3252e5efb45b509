"""Hidden units of `nn.LSTM`, `nn.GRU` and `nn.RNN`.

A hidden unit owns its rows in every gate of `weight_ih` and `weight_hh`, its biases there, its column of `weight_hh` and its columns
in what takes it. With its rows zero, a unit that starts from zero stays there: all of its pre-activations are 0, the candidate is
tanh(0) or relu(0), and gates only mix that with the state before. So its rows alone decide whether it is there, unless it is given
a state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from torch import nn

from modhook.unit.group import Group, Part, rows
from modhook.unit.source import Source, Tag

GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


@attrs.define(eq=False)
class Recurrent:
    """One recurrent layer with all of its levels and directions.

    Attributes:
        sources: the hidden units of each level and direction, in torch's order.
        called: whether its call was seen. stated: with a state to start from.
        what: "call": what a call returns; "states": h, or (h, c); "h".
    """

    path: str
    module: nn.RNNBase
    sources: list[Source]
    called: bool = False
    stated: bool = False
    what: str = "call"
    of: Recurrent | None = None

    def picked(self, key: Any) -> Any:
        """Return what an index takes out of what a call returns: a tag, or a further part; None for what holds no units."""
        ways = 2 if self.module.bidirectional else 1
        if self.what == "call" and key == 0:
            projected = getattr(self.module, "proj_size", 0)
            return None if projected else Tag(tuple(self.sources[-ways:]), -1)
        if self.what == "call" and key in (1, -1):
            kind = "states" if isinstance(self.module, nn.LSTM) else "h"
            return attrs.evolve(self, what=kind)
        if self.what == "states":
            return attrs.evolve(self, what="h") if key in (0, 1) and not getattr(self.module, "proj_size", 0) else None
        if self.what == "h" and isinstance(key, int) and -len(self.sources) <= key < len(self.sources):
            return Tag((self.sources[key],), -1)
        return None

    def groups(self, names: Mapping[str, Sequence[str]]) -> tuple[list[Group], dict[str, str]]:
        """Return the units, and why others are none."""
        groups, lost = [], {}
        for source in self.sources:
            tied = next(
                (names.get(p.parameter, ()) for p in source.parts if len(names.get(p.parameter, ())) != 1), None
            )
            if tied is not None:
                lost[source.module] = (
                    f"own weights of {tied[0]!r}, which is tied to {tied[1]!r}" if tied else "own tied weights"
                )
                continue
            if self.stated and source.lost and not getattr(self.module, "proj_size", 0):
                lost[source.module] = f"{source.lost}, and start from a state that is given"
                continue
            alone = self.called and not self.stated
            note = "" if alone else "gone where it starts from zeros"
            if source.lost:
                note = f"its outputs are zero where it is gone; they {source.lost}"
            # Its rows decide; what takes it follows from them.
            inner = [attrs.evolve(p, gate=alone and p.gate) for p in source.parts[: self.own]]
            outer = [attrs.evolve(p, gate=False) for p in source.parts[self.own :]]
            source.parts = [*inner, *outer]
            groups.append(source.group(note))
        return groups, lost

    def lose(self, why: str) -> None:
        """Note that what a call returns, or its states, become what is not known; projected ones hold no units."""
        for source in () if getattr(self.module, "proj_size", 0) else self.sources:
            source.lose(why)

    @property
    def own(self) -> int:
        """How many parts are the layer's own input side, at the head of every source's."""
        return 2 + 2 * bool(self.module.bias)


def recurrent_layers(model: nn.Module) -> dict[str, Recurrent]:
    """Return every recurrent layer of a network by its path."""
    return {
        path: _layer(path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.RNNBase) and module.mode in GATES
    }


def _layer(path: str, module: nn.RNNBase) -> Recurrent:
    hidden, gates, before = module.hidden_size, GATES[module.mode], f"{path}." if path else ""
    projected = getattr(module, "proj_size", 0)
    ways = 2 if module.bidirectional else 1
    sources = []
    for level in range(module.num_layers):
        for way in range(ways):
            end = f"_l{level}{'_reverse' if way else ''}"
            source = Source(hidden, "neuron", f"{before}{end[1:]}", firm=True)
            names = ["weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if module.bias else ())]
            for name in names:
                dims = 1 if name.startswith("bias") else 2
                source.parts.append(Part(f"{before}{name}{end}", rows(hidden, 0, dims, times=gates), gate=True))
            if projected:
                source.parts.append(Part(f"{before}weight_hr{end}", rows(hidden, 1, 2)))
            else:
                source.parts.append(Part(f"{before}weight_hh{end}", rows(hidden, 1, 2)))
                if level + 1 < module.num_layers:
                    for other in ("", "_reverse")[:ways]:
                        owner = rows(hidden, 1, 2, start=way * hidden, total=ways * hidden)
                        source.parts.append(Part(f"{before}weight_ih_l{level + 1}{other}", owner))
            source.home.append(f"{before}weight_ih{end}")
            sources.append(source)
    return Recurrent(path, module, sources)
