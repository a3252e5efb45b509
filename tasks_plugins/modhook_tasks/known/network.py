"""The network `known`: the finished network of the task `known`, with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from modhook import Model, UserError
from modhook_tasks.known.catalogue import build


class KnownNetwork(Model):
    """The same network for every seed of a study; what is random in it depends on `task.seed`."""

    def build(self, shape: Mapping[str, Any]) -> nn.Module:
        """Return the network of a task that names one (`known`, `known_seed`)."""
        if not {"known", "known_seed"} <= set(shape):
            raise UserError(f"the network 'known' needs the task 'known'; this task has {', '.join(shape)}.")
        with torch.device("cpu"):  # its weights come with it, also where only shapes are asked for
            return build(shape["known"], shape["known_seed"]).model.requires_grad_(True)
