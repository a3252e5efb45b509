"""Residual networks for small images (reference, section 4; He et al. 2016): ResNet-110 by default, of stock layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import attrs
from annotated_types import Ge, MinLen
from torch import Tensor, nn

from modhook import Model, UserError


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm beside a shortcut; 1x1 convolution and batch norm where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        same = stride == 1 and inputs == outputs
        fitting = (nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if same else nn.Sequential(*fitting)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        inner = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        out: Tensor = self.relu(inner + self.shortcut(x))
        return out


class ResidualNetwork(nn.Module):
    """A convolution, groups of blocks of which each but the first halves the image, the mean over all positions, `output`."""

    def __init__(self, channels: int, outputs: int, blocks: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        groups, before = [], widths[0]
        for g, width in enumerate(widths):
            steps = [BasicBlock(before if b == 0 else width, width, 2 if g and b == 0 else 1) for b in range(blocks)]
            groups.append(nn.Sequential(*steps))
            before = width
        self.groups = nn.Sequential(*groups)
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.output = nn.Linear(before, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2 / fan_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, channels, H, W) to logits (B, outputs)."""
        out: Tensor = self.output(self.mean(self.groups(self.relu(self.norm(self.conv(x))))))
        return out


@attrs.frozen
class ResNetOptions:
    """Options of the network `resnet`; the defaults are ResNet-110."""

    blocks: Annotated[int, Ge(1)] = 18
    """Blocks per group: the depth is 6 x blocks + 2."""
    widths: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (16, 32, 64)
    """Channels of the groups."""


class ResNet(Model):
    """Builds the network for a task whose shape has `channels` and `outputs`."""

    Options = ResNetOptions
    options: ResNetOptions

    def build(self, shape: Mapping[str, Any]) -> nn.Module:
        """Return a new network. Raises `UserError` where the task does not fit."""
        if not {"channels", "outputs"} <= set(shape):
            raise UserError(f"the network 'resnet' needs a task with images; this task has {', '.join(shape)}.")
        return ResidualNetwork(shape["channels"], shape["outputs"], self.options.blocks, self.options.widths)
