"""Fully connected networks (reference, section 4): stock linear layers with ReLU, torch's default initialisation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import attrs
from annotated_types import Ge, MinLen
from torch import nn

from modhook import Model, UserError


@attrs.frozen
class FNNOptions:
    """Options of the fully connected network."""

    hidden: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (400, 400, 200)
    """Widths of the hidden layers; the paper's: 400-400-200, 800x4, 2000x4, 4000x4; transfer: 800-800-64."""
    init: Literal["default", "xavier"] = "default"
    """`default`: torch's; `xavier`: Xavier-normal, gain sqrt 2 (1 in the last layer), biases 0 (transfer)."""


class FNN(Model):
    """`inputs -> hidden... -> outputs`; layers are called layer1, layer2, ..., output."""

    Options = FNNOptions
    options: FNNOptions

    def build(self, shape: Mapping[str, Any]) -> nn.Module:
        """Return the network for a shape with `inputs` and `outputs`."""
        if not {"inputs", "outputs"} <= set(shape):
            raise UserError(
                f"the network 'fnn' needs a task with vector inputs and outputs; this task has {', '.join(shape)}."
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        width = shape["inputs"]
        for i, size in enumerate(self.options.hidden, 1):
            layers[f"layer{i}"] = nn.Linear(width, size)
            layers[f"relu{i}"] = nn.ReLU()
            width = size
        layers["output"] = nn.Linear(width, shape["outputs"])
        if self.options.init == "xavier":
            for name, layer in layers.items():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_normal_(layer.weight, gain=1.0 if name == "output" else 2**0.5)
                    nn.init.zeros_(layer.bias)
        return nn.Sequential(layers)
