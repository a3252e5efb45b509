"""Networks and batches for a device: one of each kind of route and rule."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DTYPE = torch.float64
Batch = tuple[Tensor, Tensor]


def loss(net: Callable[..., Tensor], batch: Batch) -> Tensor:
    """Cross-entropy of three classes."""
    return F.cross_entropy(net(batch[0]), batch[1])


def score(net: Callable[..., Tensor], batch: Batch) -> Tensor:
    """1 for a right answer."""
    return (net(batch[0]).argmax(-1) == batch[1]).double()


class Sequences(nn.Module):
    """Embedding, a recurrent layer, attention, normalisation, dropout."""

    def __init__(self, cells: type[nn.RNNBase]) -> None:
        super().__init__()
        self.embedding, self.cells = nn.Embedding(7, 6), cells(6, 4, batch_first=True)
        self.attention, self.norm = nn.MultiheadAttention(4, 2, batch_first=True), nn.LayerNorm(4)
        self.dropout, self.last = nn.Dropout(0.1), nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, 3)."""
        x = self.cells(self.embedding(tokens))[0]
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.last(self.dropout(self.norm(x)).mean(1))


class Images(nn.Module):
    """Convolutions, batch normalisation, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.last = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 6, 6) -> (B, 3)."""
        x = F.max_pool2d(F.relu(self.norm(self.first(x))), 2)
        return self.last(F.relu(self.second(x)).mean((2, 3)))


class Reads(nn.Module):
    """A part whose shape depends on values: only a loop can run it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4) -> (B, 3)."""
        x = self.first(x)
        return self.last(x) + 0.1 * x[x.abs() > 0.1].sum()


def _vectors() -> Tensor:
    return torch.randn(16, 4, dtype=DTYPE)


def _tokens() -> Tensor:
    return torch.randint(0, 7, (16, 5))


def perceptron() -> nn.Module:
    """Three layers."""
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))


MAKERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "perceptron": (perceptron, _vectors),
    "lstm": (lambda: Sequences(nn.LSTM), _tokens),
    "gru": (lambda: Sequences(nn.GRU), _tokens),
    "images": (Images, lambda: torch.randn(16, 1, 6, 6, dtype=DTYPE)),
    "channels_last": (lambda: Images().to(memory_format=torch.channels_last), lambda: torch.randn(16, 1, 6, 6, dtype=DTYPE)),
    "encoder": (
        lambda: nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), nn.Flatten(), nn.Linear(12, 3)),
        lambda: torch.randn(16, 3, 4, dtype=DTYPE),
    ),
    "reads": (Reads, _vectors),
}  # fmt: skip


def made(name: str) -> tuple[nn.Module, Batch]:
    """Return a network of the zoo and a batch, on the CPU, the same every time."""
    torch.manual_seed(0)
    net, inputs = MAKERS[name]
    return net().to(DTYPE), (inputs(), torch.arange(16) % 3)
