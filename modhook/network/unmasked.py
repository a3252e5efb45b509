"""The network without masks, from within what runs it under them: what a score or a loss compares with.

Whoever puts masked weights in a network's place says which weights they stand for (`masking`); `unmasked` puts these back for a
moment. They are known by the names and shapes of the parameters and not by the object, since a route may be checked on a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from modhook.network.scope import parameter_names, substituted

_MASKED: ContextVar[tuple[Mapping[str, Tensor], ...]] = ContextVar("weights before masks", default=())


@contextmanager
def masking(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Within it masked weights stand in the place of these, {parameter name: (*its shape)}, the same memory."""
    token = _MASKED.set((*_MASKED.get(), weights))
    try:
        yield
    finally:
        _MASKED.reset(token)


@contextmanager
def unmasked(net: Any) -> Iterator[bool]:
    """Within it a network that runs under masks has the weights that it has without them, and no gradient is computed.

    For scores and losses that compare both, `loss(net, batch)` of `fit_masks` and `score(net, batch)` of `evaluate` and of tasks: call
    `net` under masks, and again in the block. Fixed masks are taken away, too; weights that are learned with the masks are as they
    are now. The network is the same object in the same mode.

    Yields whether there were masks. Without them (base training, a network that was made by `Masks.materialize`) nothing changes.
    """
    there = dict(net.named_parameters()) if isinstance(net, nn.Module) else {}
    first = parameter_names(net) if there else {}
    found: dict[str, Tensor] = {}
    for weights in _MASKED.get():
        if all(name in first and there[first[name]].shape == weight.shape for name, weight in weights.items()):
            # What was masked already, as by an outer `applied_to`, has its weights from there.
            found = {**{first[name]: weight for name, weight in weights.items()}, **found}
    with torch.no_grad():
        if not found:
            yield False
            return
        with substituted(net, {n: w.detach().to(there[n].device, there[n].dtype) for n, w in found.items()}):
            yield True
