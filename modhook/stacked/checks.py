"""Checks of what the user hands to a stacked call; every message names the parameter or argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from modhook.errors import StackError, listing, near_miss
from modhook.network.remade import Recipes
from modhook.network.scope import parameter_names
from modhook.stacked.trees import Leaf


def refuse(model: nn.Module) -> None:
    """Raise `StackError` for models whose weights cannot be replaced at all, saying which and what to do."""
    for name, module in model.named_modules():
        where = f"submodule {name!r}" if name else "the model"
        if isinstance(module, torch.jit.ScriptModule):
            raise StackError(f"{where} is a ScriptModule, whose weights are compiled in: give the original nn.Module")
        if ".quantized" in type(module).__module__:
            raise StackError(f"{where} is quantised ({type(module).__name__}): give the network before quantisation")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise StackError(f"{name!r} is not initialised yet (a lazy module): run the model once on an example first")
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise StackError(f"{name!r} is on the meta device and has no values: load the network's weights first")
        if parameter.is_inference():
            raise StackError(
                f"{name!r} was made under torch.inference_mode(), so that nothing can be learned through it: make the network outside of "
                "it, and load its state_dict()"
            )


def first_names(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Return {name: first name of the same tensor}. Raises `StackError` for names that are no parameters."""
    known = parameter_names(model)
    found = {}
    for name in names:
        if name not in known:
            hint = near_miss(name, known)
            raise StackError(f"the model has no parameter {name!r}{hint}; its parameters are {listing(known)}")
        found[name] = known[name]
    return found


def stacked_parameters(
    model: nn.Module, params: Mapping[str, Tensor | Recipes]
) -> tuple[dict[str, Tensor | Recipes], int | None]:
    """Return the parameter sets by first name and K; K is None where no parameter is given. Raises `StackError`."""
    own = dict(model.named_parameters())
    found: dict[str, Tensor | Recipes] = {}
    samples: int | None = None
    given = ""
    for name, first in first_names(model, params).items():
        value = params[name]
        if not isinstance(value, Tensor | Recipes):
            raise StackError(f"parameter {name!r} must be a tensor (K, ...), not {type(value).__name__}")
        if not own[first].is_floating_point():
            raise StackError(
                f"parameter {name!r} is of {own[first].dtype}: only real weights can be stacked; leave it out, and all "
                "samples use the model's own"
            )
        shape = tuple(own[first].shape)
        if tuple(value.shape[1:]) != shape or value.dim() == 0:
            raise StackError(
                f"parameter {name!r} must have shape ({', '.join(map(str, ('K', *shape)))}), but has {tuple(value.shape)}"
            )
        if samples is None:
            samples, given = value.shape[0], name
        elif value.shape[0] != samples:
            raise StackError(f"parameter {name!r} has {value.shape[0]} samples, but {given!r} has {samples}")
        if found.get(first, value) is not value:
            raise StackError(f"parameter {name!r} is tied to {first!r} and was given another value: give one of them")
        found[first] = value
    if samples == 0:
        raise StackError(f"parameter {given!r} has no samples: its leading size is 0")
    return found, samples


def leading_sizes(leaves: Sequence[Leaf], samples: int, given: str = "the parameters") -> None:
    """Check that every tensor argument that is not shared has the leading size K. Raises `StackError`."""
    for leaf in leaves:
        if leaf.shared:
            continue
        if leaf.tensor.dim() == 0 or leaf.tensor.shape[0] != samples:
            raise StackError(
                f"the tensor at {leaf.path} has shape {tuple(leaf.tensor.shape)}, but {given} have {samples} samples: "
                f"give it a leading size of {samples}, or wrap it in modhook.shared"
            )
