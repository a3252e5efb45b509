"""The table by which `auto` picks among the routes that the canary admits; never by the clock, so that runs repeat.

Measured on two CPU cores (docs/executor.md has the figures and says how); the first row that fits counts. To change the
choice, change the table.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from torch import nn
from torch.nn.modules.conv import _ConvNd


@attrs.frozen
class Facts:
    """What the table may ask: the device type, K, and the number of weights, in convolutions, attention layers and in all."""

    device: str
    samples: int
    convolutions: int
    attention: int
    weights: int


@attrs.frozen
class Row:
    """One row: when it fits, in words and as a test, and whether it prefers the loop."""

    when: str
    fits: Callable[[Facts], bool]
    loop: bool


TABLE = (
    Row("one mask sample", lambda f: f.samples == 1, loop=True),
    Row(
        "on CPU, convolutions hold at least half of the weights, and 100,000",
        lambda f: f.device == "cpu" and f.convolutions >= max(100_000, f.weights / 2),
        loop=True,
    ),
    Row(
        "on CPU, attention layers (nn.MultiheadAttention) hold at least a quarter of the weights, and 100,000",
        lambda f: f.device == "cpu" and f.attention >= max(100_000, f.weights / 4),
        loop=True,
    ),
    Row("everything else", lambda f: True, loop=False),
)


def facts(model: nn.Module, samples: int) -> Facts:
    """Return what the table may ask about this model under K parameter sets."""
    parameters = {id(p): p for p in model.parameters()}
    total = sum(p.numel() for p in parameters.values())
    device = next((p.device.type for p in parameters.values()), "cpu")
    return Facts(device, samples, _inside(model, _ConvNd), _inside(model, nn.MultiheadAttention), total)


def _inside(model: nn.Module, kind: type[nn.Module]) -> int:
    """Return the number of weights in modules of a kind, each counted once."""
    found = {id(p): p.numel() for m in model.modules() if isinstance(m, kind) for p in m.parameters()}
    return sum(found.values())


def choose(model: nn.Module, samples: int) -> tuple[bool, str]:
    """Return whether to loop although a vectorised route is admitted, and the row of the table that says so."""
    known = facts(model, samples)
    row = next(row for row in TABLE if row.fits(known))
    return row.loop, f"{'loop' if row.loop else 'vectorised'} by the table of routes: {row.when}"
