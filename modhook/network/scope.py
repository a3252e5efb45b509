"""Puts tensors in the places of a model's parameters and buffers, and takes everything back.

The model is the user's own object, not a copy: closures, hooks and bound methods that refer to it see the new tensors.
Afterwards it is itself again, also after an exception: the same parameter objects, buffers, flags and attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor, nn

from modhook.network.held import containers
from modhook.network.kinds import State, same_items
from modhook.network.remade import Recipe, Remaker, Shelf
from modhook.network.slots import Slots


def parameter_names(model: nn.Module) -> dict[str, str]:
    """Return {every name of every parameter: the first name of the same tensor}; tied weights have several names."""
    first: dict[int, str] = {}
    names: dict[str, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[name] = first.setdefault(id(parameter), name)
    return names


class Kept:
    """A model as it is: its modules' attributes, what is in objects that modules keep and in their containers, and what was drawn.

    Attributes:
        modules: all of them, each once.
        parameters: (first name, parameter), each once.
        places: the dicts, lists and the like, of modules and of what they keep.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = list(model.modules())
        self.parameters = list(model.named_parameters())
        self._attributes = [dict(module.__dict__) for module in self.modules]
        seen = {id(module) for module in self.modules}
        self._found = [copied for kept in self._attributes for copied in containers(kept.values(), seen)]
        self.places = [*(module.__dict__ for module in self.modules), *(container for container, _ in self._found)]

    def changed(self) -> bool:
        """Return whether anything was set, put into a container or drawn since; values that are written into tensors are not seen."""
        if not all(same_items(module.__dict__, kept) for module, kept in zip(self.modules, self._attributes, strict=True)):
            return True
        return any((container or content) and not _unchanged(container, content) for container, content in self._found)

    def put_back(self) -> None:
        """Undo what was set or drawn since; this may be done again and again."""
        for module, kept in zip(self.modules, self._attributes, strict=True):
            if not same_items(module.__dict__, kept):
                module.__dict__.clear()
                module.__dict__.update(kept)
        for container, content in self._found:
            if container or content:
                _refill(container, content)


@contextmanager
def restored(model: nn.Module) -> Iterator[list[Any]]:
    """Undo, on leaving, what was set in any module, in objects that modules keep, in their containers, and what was drawn.

    Yields the dicts, lists and the like, of modules and of what they keep.
    """
    kept = Kept(model)
    try:
        yield kept.places
    finally:
        kept.put_back()


@contextmanager
def substituted(
    model: nn.Module,
    parameters: Mapping[str, Tensor | Recipe],
    others: Sequence[tuple[Any, Any]] = (),
    remaker: Remaker | None = None,
    kept: Kept | None = None,
) -> Iterator[None]:
    """Run the model with these tensors: `parameters` by first name, at every place where that parameter stands.

    Parameters that are not named are replaced by themselves, detached, so that no gradient is computed for them.
    `others` are pairs of a tensor or numpy array that the model holds, wherever it holds it, and the one to put there.
    Where there are recipes, `remaker` makes their tensors. `kept`: the model as it is now, for who does this several times.
    """
    kept = Kept(model) if kept is None else kept
    try:
        stand_ins: dict[int, Tensor | Recipe] = {}
        for name, parameter in kept.parameters:
            new = parameters.get(name)
            stand_ins[id(parameter)] = parameter.detach() if new is None else new
        replaced = {id(own): new for own, new in others}
        stand_ins |= replaced
        for module in kept.modules:
            slots: dict[str, Any] = module._parameters
            for key, parameter in slots.items():
                if parameter is not None:
                    slots[key] = stand_ins[id(parameter)]
            if remaker is not None and any(isinstance(new, Recipe) for new in slots.values()):
                module.__dict__["_parameters"] = Shelf(slots, remaker.get)
        if others:
            _replace(kept.places, replaced)
        refresh(model)
        yield
    finally:
        kept.put_back()


def refresh(model: nn.Module) -> None:
    """Let recurrent layers, which keep a list of their weights, see the tensors that are in place now."""
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            names = module._flat_weights_names
            module.__dict__["_flat_weights"] = [getattr(module, name, None) for name in names]


def _replace(places: list[Any], new: dict[int, Any]) -> None:
    """Put tensors and arrays where others stand, by their ids."""
    for place in places:
        if isinstance(place, set):
            continue
        items = list(place.items()) if isinstance(place, dict | Slots | State) else list(enumerate(place))
        for key, value in items:
            stand_in = _stand_in(value, new)
            if stand_in is value:
                continue
            if isinstance(place, State):
                place.set(key, stand_in)
            else:
                place[key] = stand_in


def _stand_in(value: Any, new: dict[int, Any]) -> Any:
    """Return what stands for a value, or itself; a tuple of tensors is made anew."""
    if isinstance(value, Tensor | np.ndarray):
        return new.get(id(value), value)
    if type(value) is tuple:
        items = [_stand_in(item, new) for item in value]
        if any(a is not b for a, b in zip(items, value, strict=True)):
            return tuple(items)
    return value


def _unchanged(container: Any, content: Any) -> bool:
    if isinstance(container, State):
        return container.same(content)
    return same_items(container, content)


def _refill(container: Any, content: Any) -> None:
    """Give a container its old content back, in the old order, if it has changed."""
    if isinstance(container, State):
        container.put_back(content)
        return
    if same_items(container, content):
        return
    container.clear()
    if isinstance(container, (dict, set, Slots)):
        container.update(content)
    else:
        container.extend(content)
