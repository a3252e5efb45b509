"""A stock GRU; modhook needs nothing special of it."""

import attrs
from torch import nn

from modhook import Model


@attrs.frozen
class Options:
    hidden: int = 32


class _Net(nn.Module):
    def __init__(self, symbols, classes, hidden):
        super().__init__()
        self.embedding = nn.Embedding(symbols, hidden)
        self.gru = nn.GRU(hidden, hidden, batch_first=True)
        self.readout = nn.Linear(hidden, classes)

    def forward(self, symbols):  # (B, T)
        return self.readout(self.gru(self.embedding(symbols))[0][:, -1])  # (B, classes)


class DemoGRU(Model):
    """Embedding, GRU, readout at the last symbol."""

    Options = Options

    def build(self, shape):
        return _Net(shape["symbols"], shape["classes"], self.options.hidden)
