"""The networks that the benchmarks time, with random data: stock layers, in the sizes of the paper (reference sizes)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Net = Callable[..., Any]


@attrs.frozen
class Case:
    """A network, how to make a batch of any size for it, its loss, and the batch size of the table."""

    name: str
    make: Callable[[], nn.Module]
    batch: Callable[[int], tuple[Tensor, ...]]
    loss: Callable[[Net, Any], Tensor]
    size: int
    target: float
    """The ratio to a plain step that a mask step must stay under."""


def fnn(inputs: int, hidden: list[int], outputs: int) -> nn.Module:
    """Return linear layers with ReLU between them."""
    sizes = [inputs, *hidden]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))


class Lstm(nn.Module):
    """Two LSTM layers and a readout of the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(80, 256, 2, batch_first=True)
        self.readout = nn.Linear(256, 40)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 40) for x (B, T, 80)."""
        return self.readout(self.lstm(x)[0][:, -1])


def cnn() -> nn.Module:
    """Return the paper's CIFAR-10 network, without dropout."""
    layers: list[nn.Module] = []
    sizes = [3, 32, 64, 128, 256]
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), *([nn.MaxPool2d(2)] if i < 3 else [])]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


class Block(nn.Module):
    """A basic residual block."""

    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(a, b, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(b)
        self.conv2 = nn.Conv2d(b, b, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(b)
        self.skip = (
            nn.Identity() if a == b else nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, b, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.skip(x))


def resnet110() -> nn.Module:
    """Return ResNet-110 for 32x32 images: 3 x 18 basic blocks of 16, 32 and 64 channels."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    before = 16
    for channels in (16, 32, 64):
        for i in range(18):
            layers.append(Block(before, channels, 2 if i == 0 and channels > 16 else 1))
            before = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class Transformer(nn.Module):
    """The paper's SCAN Transformer out of stock layers: d 100, 4 heads, 3 + 3 layers, feed-forward 200, no dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(14, 100), nn.Embedding(8, 100)
        self.body = nn.Transformer(100, 4, 3, 3, 200, dropout=0.0, batch_first=True)
        self.out = nn.Linear(100, 8)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Return (B, T, 8) for source (B, S) and target (B, T)."""
        steps = target.shape[1]
        later = torch.ones(steps, steps, dtype=torch.bool, device=target.device).triu(1)  # (T, T)
        return self.out(self.body(self.source(source), self.target(target), tgt_mask=later))


def _digits(net: Net, batch: Any) -> Tensor:
    out = net(batch[0])
    return F.cross_entropy(out.reshape(-1, 10), batch[1].reshape(-1))


def _classes(net: Net, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch[0]), batch[1])


def _tokens(net: Net, batch: Any) -> Tensor:
    out = net(batch[0], batch[1])  # (B, T, 8)
    return F.cross_entropy(out.reshape(-1, 8), batch[2].reshape(-1))


def _fnn_case(name: str, width: int, depth: int, size: int, target: float) -> Case:
    def batch(n: int) -> tuple[Tensor, ...]:
        return torch.rand(n, 42), torch.randint(0, 10, (n, 2))

    return Case(name, lambda: fnn(42, [width] * depth, 20), batch, _digits, size, target)


def _images(n: int) -> tuple[Tensor, ...]:
    return torch.rand(n, 3, 32, 32), torch.randint(0, 10, (n,))


def _sequences(n: int) -> tuple[Tensor, ...]:
    return torch.randint(0, 14, (n, 10)), torch.randint(0, 8, (n, 20)), torch.randint(0, 8, (n, 20))


CASES = {
    case.name: case
    for case in (
        _fnn_case("fnn-2000x4", 2000, 4, 128, 2.0),
        _fnn_case("fnn-800x4", 800, 4, 128, 2.0),
        Case("lstm-2x256", Lstm, lambda n: (torch.rand(n, 6, 80), torch.randint(0, 10, (n, 4))), _digits, 128, 1.35),
        Case("cnn", cnn, _images, _classes, 128, 1.2),
        Case("resnet-110", resnet110, _images, _classes, 32, 1.5),
        Case("transformer", Transformer, _sequences, _tokens, 256, 1.35),
    )
}
