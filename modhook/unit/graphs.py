"""Records what a network's own code does, as a graph of torch.fx: of the whole, or of the largest parts that can be recorded."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from typing import Any

from torch import fx, nn

from modhook.unit.layers import linear_axis


class _Tracer(fx.Tracer):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        # Looked for now: while it records, torch.fx listens to every call of a module.
        self._linear = {id(m) for m in module.modules() if linear_axis(m) is not None}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return super().is_leaf_module(m, module_qualified_name) or id(m) in self._linear


def recorded(model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module, fx.Graph]]:
    """Yield the largest modules that can be traced, with their paths and graphs; layers of torch.nn are none."""
    stock = type(model).__module__.startswith("torch.nn") and not isinstance(
        model, nn.Sequential | nn.ModuleList | nn.ModuleDict
    )
    if linear_axis(model) is not None or (stock and not list(model.children())):
        return
    own = None if stock or isinstance(model, nn.ModuleList | nn.ModuleDict) else _graph(model)
    if own is not None:
        yield path, model, own
        return
    if stock:
        return
    for name, child in model.named_children():
        yield from recorded(child, f"{path}.{name}" if path else name)


def _graph(module: nn.Module) -> fx.Graph | None:
    """Return what a module's forward does, recorded with its defaults for arguments that are no tensors; None where it cannot be."""
    for concrete in (_defaults(module), None):
        with warnings.catch_warnings(), contextlib.suppress(Exception):  # whatever a stranger's code stumbles over
            warnings.simplefilter("ignore")
            return _Tracer(module).trace(module, concrete)
    return None


def _defaults(module: nn.Module) -> dict[str, Any] | None:
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):
        return None
    plain = (bool, int, float, str, type(None))
    return {
        n: p.default
        for n, p in signature.parameters.items()
        if p.default is not p.empty and isinstance(p.default, plain)
    } or None
