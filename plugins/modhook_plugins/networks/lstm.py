"""An LSTM with a linear readout, of stock layers, with the paper's initialisation (reference, section 4).

The readout keeps torch's default initialisation, as the paper's does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import attrs
import torch
from annotated_types import Ge
from torch import Tensor, nn

from modhook import Model, UserError


class LSTMReadout(nn.Module):
    """Stock LSTM layers and a linear readout.

    A sequence (B, T, inputs) gives the output of every step (B, T, outputs). A vector (B, inputs) is shown `steps` times and
    gives the output of the last step (B, outputs).
    """

    def __init__(self, inputs: int, outputs: int, hidden: int, layers: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden, outputs)
        for layer in range(layers):
            initialise(self.lstm, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of a sequence, or the last output of a repeated vector."""
        if x.dim() == 2:
            out: Tensor = self.output(self.lstm(x.unsqueeze(1).expand(-1, self.steps, -1))[0][:, -1])  # (B, O)
        else:
            out = self.output(self.lstm(x)[0])  # (B, T, O)
        return out


def initialise(lstm: nn.LSTM, layer: int) -> None:
    """Initialise the gates i, f, g, o of one layer as the paper does; there is one bias vector: the second stays 0 and does not learn."""
    parameters = dict(lstm.named_parameters())
    bias, second = parameters[f"bias_ih_l{layer}"], parameters[f"bias_hh_l{layer}"]
    hidden, tanh = lstm.hidden_size, nn.init.calculate_gain("tanh")
    with torch.no_grad():
        for kind in ("ih", "hh"):
            for gate, matrix in enumerate(parameters[f"weight_{kind}_l{layer}"].chunk(4)):  # (hidden, fan in) each
                gain = tanh if gate == 2 else nn.init.calculate_gain("sigmoid")
                if gate == 2 and kind == "hh":
                    nn.init.orthogonal_(matrix, gain=tanh / 2**0.5)
                else:
                    nn.init.xavier_normal_(matrix, gain=gain / 2**0.5)
        bias.zero_()
        bias[hidden : 2 * hidden] = 1.0  # forget gate
        second.zero_()
    second.requires_grad_(False)


@attrs.frozen
class LSTMOptions:
    """Options of the network `lstm`; the defaults are the paper's."""

    hidden: Annotated[int, Ge(1)] = 256
    layers: Annotated[int, Ge(1)] = 2
    steps: Annotated[int, Ge(1)] = 3
    """How often a task's vector input is shown; the output is read at the last time."""


class LSTM(Model):
    """Builds an `LSTMReadout` for a task whose shape has `inputs` and `outputs`."""

    Options = LSTMOptions
    options: LSTMOptions

    def build(self, shape: Mapping[str, Any]) -> nn.Module:
        """Return the network. Raises `UserError` where the task has no vector inputs."""
        if not {"inputs", "outputs"} <= set(shape):
            raise UserError(
                f"the network 'lstm' needs a task with vector inputs and outputs; this task has {', '.join(shape)}."
            )
        o = self.options
        return LSTMReadout(shape["inputs"], shape["outputs"], o.hidden, o.layers, o.steps)
