"""Finds weights that a model keeps outside its parameters: in lists, dicts and objects that nn.Module does not look into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
from torch import Tensor, nn

from modhook.errors import StackError
from modhook.network.slots import Slots, slots_of
from modhook.stacked.closures import reached, reaches
from modhook.stacked.left import leaves


@attrs.frozen
class Place:
    """Where a tensor was found: in which submodule, and in which of its attributes."""

    module: str
    attribute: str
    path: str
    inside: str = ""

    @property
    def owner(self) -> str:
        """Return the submodule in words."""
        return f"submodule {self.module!r}" if self.module else "the model"


def elsewhere(model: nn.Module) -> Iterator[tuple[Place, Tensor]]:
    """Yield tensors that can be trained and stand in attributes of the model's modules, not where modules register them."""
    own = {id(module) for module in model.modules()}
    for prefix, module in model.named_modules():
        for attribute, value in vars(module).items():
            # `_flat_weights` and its like are torch's own, and are kept up to date.
            if not attribute.startswith("_"):
                for path, inside, tensor in _tensors(value, attribute, own, set()):
                    yield Place(prefix, attribute, path, inside), tensor


def _tensors(value: Any, path: str, own: set[int], seen: set[int], depth: int = 4) -> Iterator[tuple[str, str, Tensor]]:
    if id(value) in seen or id(value) in own or depth == 0:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        if isinstance(value, nn.Parameter) or (value.requires_grad and value.is_leaf):
            yield path, "", value
    elif isinstance(value, nn.Module):
        for name, parameter in value.named_parameters():
            yield f"{path}.{name}", type(value).__name__, parameter
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _tensors(item, f"{path}[{key!r}]", own, seen, depth - 1)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _tensors(item, f"{path}[{i}]", own, seen, depth - 1)
    elif (hasattr(value, "__dict__") or slots_of(type(value))) and not isinstance(value, type) and not callable(value):
        for key, item in Slots(value).items():
            yield from _tensors(item, f"{path}.{key}", own, seen, depth - 1)


def unregistered(model: nn.Module) -> list[tuple[Place, Tensor]]:
    """Return the trainable tensors that the model keeps and that are none of its parameters."""
    own = {id(parameter) for parameter in model.parameters()}
    return [(place, tensor) for place, tensor in elsewhere(model) if id(tensor) not in own]


def refuse_if_used(
    outputs: list[Tensor], kept: list[tuple[Place, Tensor]], own: set[int], model: nn.Module, *, others: bool
) -> None:
    """Raise `StackError` if the outputs depend on one of these tensors: its masks would be missing without a word.

    `own` are the ids of the parameters of the copy that ran, and `model` is what it is a copy of. `others`: parameters of other
    networks may be used, as a loss may well do.
    """
    found = {id(tensor): place for place, tensor in kept}
    for used in leaves(outputs):
        place = found.get(id(used))
        # Plain tensors that require gradients are made by models themselves, for the sake of checkpointing.
        if place is None and isinstance(used, nn.Parameter) and id(used) not in own:
            refuse_reach(model, used, others=others)
            if not others:
                raise StackError(
                    f"the model uses a parameter of shape {tuple(used.shape)} that none of its modules holds: it would get no "
                    "mask. Assign it to an attribute of a module, or detach it"
                )
        if place is not None:
            what = f"the weights of the {place.inside} in" if place.inside else "a weight from"
            instead = "an nn.ModuleList" if place.inside else "an nn.ParameterList, or assign it to an attribute"
            raise StackError(
                f"{place.owner} uses {what} {place.path!r}, where PyTorch does not register it as a parameter: it "
                f"would get no mask. Keep it in {instead}"
            )


def refuse_reach(model: nn.Module, used: Tensor | None = None, *, others: bool = False) -> None:
    """Raise `StackError` if a function in the network reaches this parameter, or any part of the network, through a variable.

    `others`: parameters that are none of the network's may be reached.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    own = {id(module) for module in model.modules()} | set(names)
    reach = next((r for r in reaches(model) if id(r.value) in own), None) if used is None else reached(model, used)
    if reach is None:
        return
    if used is not None and id(used) not in names:
        if not others:
            raise StackError(
                f"{reach}, and in it a parameter of shape {tuple(used.shape)} that no module of the network holds: it would "
                "get no mask. Make it an attribute of the module that the function gets as its first argument, or detach it"
            )
        return
    part = "a part of the network" if used is None else f"{names[id(used)]!r}"
    raise StackError(
        f"{reach}, and in it {part}, which stays the network's own where other weights stand in its place: let the function "
        "take what it needs from the module that it gets as its first argument, or make it a method of a module that holds both"
    )
