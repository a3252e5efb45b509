"""Stock convolutions; every cell has the same weights."""

from typing import Annotated

import attrs
from annotated_types import Ge
from torch import nn

from modhook import Model


@attrs.frozen
class Options:
    """What a study may set under `[model]`."""

    hidden: Annotated[int, Ge(1)] = 24


class RingConv(Model):
    """Three neighbours, then each cell by itself, twice."""

    Options = Options

    def build(self, shape):
        """Return a new network: (N, channels, cells) to (N, classes, cells)."""
        hidden = self.options.hidden
        return nn.Sequential(
            nn.Conv1d(shape["channels"], hidden, 3, padding=1, padding_mode="circular"),
            nn.ReLU(),
            nn.Conv1d(hidden, hidden, 1),
            nn.ReLU(),
            nn.Conv1d(hidden, shape["classes"], 1),
        )
