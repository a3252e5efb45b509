"""The networks for images: shapes, sizes and initialisation."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from modhook import UserError
from modhook_plugins.networks.cnn import CNN, CNNOptions
from modhook_plugins.networks.resnet import ResNet, ResNetOptions

SHAPE = {"channels": 3, "outputs": 10}


def test_cnn() -> None:
    """The paper's network by its layers, and its number of parameters counted by hand."""
    net = CNN(CNNOptions()).build(SHAPE)
    sizes = [3, 32, 64, 128, 256]
    counted = sum(9 * a * b + b for a, b in itertools.pairwise(sizes)) + 256 * 10 + 10
    assert sum(p.numel() for p in net.parameters()) == counted
    assert [m.p for m in net if isinstance(m, nn.Dropout)] == [0.25, 0.5]
    assert sum(isinstance(m, nn.MaxPool2d) for m in net) == 3
    assert not any(isinstance(m, nn.Dropout) for m in CNN(CNNOptions(dropout=(0.0, 0.0))).build(SHAPE))
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_resnet_110() -> None:
    """110 layers deep: the first convolution, 108 in blocks, the output; 1.7 million weights; deviation sqrt(2 / (k k out))."""
    torch.manual_seed(0)
    net = ResNet(ResNetOptions()).build(SHAPE)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert sum(m.kernel_size == (3, 3) for m in convolutions) == 109
    assert sum(m.kernel_size == (1, 1) for m in convolutions) == 2
    assert all(m.bias is None for m in convolutions)
    assert 1.70e6 < sum(p.numel() for p in net.parameters()) < 1.75e6
    last = convolutions[-1]
    assert float(last.weight.detach().std()) == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.03)
    assert net.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize("network", [CNN(CNNOptions()), ResNet(ResNetOptions())])
def test_a_task_without_images(network: CNN | ResNet) -> None:
    """A task of another kind is one clear sentence."""
    with pytest.raises(UserError, match="needs a task with images"):
        network.build({"inputs": 3, "outputs": 2})
