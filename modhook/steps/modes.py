"""The mode in which a frozen network runs while something is learned or measured on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

Mode = Literal["eval", "dropout", "train"]


@contextmanager
def in_mode(model: nn.Module, mode: Mode) -> Iterator[None]:
    """Within it, the network is in a mode; afterwards every submodule is in its own again.

    `eval`: evaluation mode. `dropout`: training mode, but normalisation layers with running statistics stay in evaluation
    mode. `train`: training mode.
    """
    before = [(module, module.training) for module in model.modules()]
    model.train(mode != "eval")
    try:
        if mode == "dropout":
            for module in model.modules():
                if isinstance(module, _NormBase):  # batch and instance normalisation
                    module.training = False
        yield
    finally:
        for module, training in before:
            module.training = training
