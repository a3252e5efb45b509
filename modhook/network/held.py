"""Every tensor that a network holds: parameters, buffers, and what its modules keep in attributes, lists, dicts and objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from modhook.network.kinds import ATOMS, EXACT, State, contents, memory_in
from modhook.network.slots import Slots

_PLAIN = frozenset([*ATOMS, Tensor, nn.Parameter])
_SLOTS = ("_parameters", "_buffers", "_modules")
_DEPTH = 4


@attrs.frozen(eq=False)
class Held:
    """What a network holds.

    `tensors` has every tensor once: parameters and buffers by their first name, what modules keep otherwise by its path
    (`encoder.history[0]`), and the memory of every numpy array that modules keep, as bytes. `arrays` has these arrays by the
    same paths. `kept` names the parameters and buffers that stand in such a place too.
    """

    tensors: dict[str, Tensor]
    kept: frozenset[str]
    arrays: dict[str, np.ndarray[Any, Any]]


def held(model: nn.Module) -> Held:
    """Return every tensor that the network holds; equal copies of a network give equal names."""
    registered = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    tensors = {name: tensor for name, tensor in registered.items() if not is_lazy(tensor)}
    names = {id(tensor): name for name, tensor in tensors.items()}
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    kept: set[str] = set()
    seen = {id(module) for module in model.modules()}
    for prefix, module in model.named_modules():
        for key, value in vars(module).items():
            # Recurrent layers keep a list of their own weights, which is kept up to date.
            if key in _SLOTS or key == "_flat_weights" or isinstance(value, ATOMS):
                continue
            for path, found in _inside(value, f"{prefix}.{key}" if prefix else key, seen, _DEPTH):
                if id(found) in names:
                    kept.add(names[id(found)])
                elif isinstance(found, np.ndarray):
                    if (memory := memory_in(found)) is not None:
                        names[id(found)] = path
                        arrays[path], tensors[path] = found, memory
                elif not is_lazy(found):
                    names[id(found)] = path
                    tensors[path] = found
    return Held(tensors, frozenset(kept), arrays)


def containers(values: Any, seen: set[int], depth: int = 3) -> Iterator[tuple[Any, Any]]:
    """Yield every container, the attributes of every plain object and every `State` among and inside `values`, with a copy.

    Each once; `seen` has the ids of what is left out.
    """
    for value in values:
        # This runs for every sample of every step, mostly over the empty dicts of hooks: the common cases first.
        kind = type(value)
        if kind in _PLAIN or id(value) in seen:
            continue
        if kind in EXACT:
            seen.add(id(value))
            if not value:
                yield value, ()
                continue
            mapping = isinstance(value, dict)
            yield value, dict(value) if mapping else list(value)
            if depth:
                yield from containers(value.values() if mapping else value, seen, depth - 1)
        elif isinstance(value, tuple):
            if depth and not _PLAIN.issuperset(map(type, value)):
                yield from containers(value, seen, depth - 1)
        else:
            for content in contents(value):
                seen.add(id(value))
                yield content, content.take() if isinstance(content, State) else dict(content)
                if depth:
                    yield from containers([item for _, item in content.items()], seen, depth - 1)


def _inside(value: Any, path: str, seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    """Yield the tensors and numpy arrays in a value with their paths, those of modules in lists and objects too."""
    if isinstance(value, Tensor):
        yield path, value
        return
    if id(value) in seen or not depth:
        return
    if isinstance(value, np.ndarray):
        yield path, value
    if isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from _inside(item, f"{path}[{i}]", seen, depth - 1)
        return
    if isinstance(value, nn.Module):
        depth += 2  # its parameters stand in `_parameters`, its submodules in `_modules`
    for content in contents(value):
        seen.add(id(value))
        attributes = content is not value and not isinstance(content, State)
        for key, item in _items(content):
            yield from _inside(item, f"{path}.{key}" if attributes else f"{path}[{key!r}]", seen, depth - 1)


def _items(content: Any) -> Any:
    """Return the items of a container or `State` with their keys or numbers."""
    if isinstance(content, dict | Slots | State):
        return list(content.items())
    return list(enumerate(content))
