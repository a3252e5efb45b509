"""A copy of a network that shares no weight with it."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

_M = TypeVar("_M", bound=nn.Module)


def twin(model: _M) -> _M:
    """Return a deep copy of a network."""
    return copy.deepcopy(model)
