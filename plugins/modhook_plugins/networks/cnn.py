"""The convolutional network of the CIFAR-10 studies (reference, section 4): stock layers, torch's default initialisation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Annotated, Any

import attrs
from annotated_types import Ge, Lt, MinLen
from torch import nn

from modhook import Model, UserError


@attrs.frozen
class CNNOptions:
    """Options of the network `cnn`; the defaults are the paper's."""

    channels: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(2)] = (32, 64, 128, 256)
    """Output channels of the convolutions, 3x3 with padding 1; all but the last are followed by max-pooling."""
    dropout: tuple[Annotated[float, Ge(0), Lt(1)], Annotated[float, Ge(0), Lt(1)]] = (0.25, 0.5)
    """After the last but one convolution, and after the last; 0 leaves the layer out."""


class CNN(Model):
    """conv1, conv2, ...; then the mean over all positions, and `output`."""

    Options = CNNOptions
    options: CNNOptions

    def build(self, shape: Mapping[str, Any]) -> nn.Module:
        """Return the network for a shape with `channels` and `outputs`: (B, channels, H, W) to (B, outputs)."""
        if not {"channels", "outputs"} <= set(shape):
            raise UserError(f"the network 'cnn' needs a task with images; this task has {', '.join(shape)}.")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        before, last = shape["channels"], len(self.options.channels)
        early, late = self.options.dropout
        for i, width in enumerate(self.options.channels, 1):
            layers[f"conv{i}"] = nn.Conv2d(before, width, 3, padding=1)
            if i == last - 1 and early:
                layers["dropout_early"] = nn.Dropout(early)
            layers[f"relu{i}"] = nn.ReLU()
            if i < last:
                layers[f"pool{i}"] = nn.MaxPool2d(2)
            before = width
        if late:
            layers["dropout_late"] = nn.Dropout(late)
        layers["mean"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["output"] = nn.Linear(before, shape["outputs"])
        return nn.Sequential(layers)
