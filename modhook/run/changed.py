"""Networks that a control learns masks on: the trained one with its weights shuffled, or one that was never trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from modhook.errors import UserError, listing
from modhook.noise.seeding import derive
from modhook.values.randomness import seeded

_RESETS = ("reset_parameters", "_reset_parameters")
"""How stock modules initialise themselves again; `nn.MultiheadAttention` has the second."""


def shuffle(model: nn.Module, seed: int) -> None:
    """Shuffle the elements of every parameter within the parameter, in place; buffers stay. A tied weight is shuffled once."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            order = np.random.default_rng(derive(seed, "shuffled", name)).permutation(parameter.numel())
            flat = parameter.detach().reshape(-1)
            parameter.copy_(flat[torch.from_numpy(order).to(flat.device)].view(parameter.shape))


def untrain(model: nn.Module, build: Callable[[], nn.Module], seed: int) -> None:
    """Initialise a network again, in place: as `build` makes it anew.

    What comes out as it was (the builder loads weights, or returns a copy of a network) is initialised by its own module.

    Raises `UserError` that names what can be initialised neither way.
    """
    before = {name: tensor.detach().clone() for name, tensor in _tensors(model)}
    model.load_state_dict(build().state_dict())
    # A tensor of one value, such as a bias of zeros, may well have been made so: it does not speak against the builder.
    owners = dict.fromkeys(name.rpartition(".")[0] for name in _unchanged(model, before))
    with seeded(derive(seed, "untrained", "reset")), torch.no_grad():
        for owner in owners:
            module = model.get_submodule(owner)
            for reset in (getattr(module, name) for name in _RESETS if callable(getattr(module, name, None))):
                reset()
                break
    parameters = {name for name, _ in model.named_parameters()}
    if left := [name for name in _unchanged(model, before) if name in parameters]:
        raise UserError(
            f"controls.untrained: {listing(left, 3)} cannot be initialised anew: the network is built with the same values each time, "
            "and their module has no reset_parameters; leave the control out, or let the model draw them from torch's random state."
        )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _unchanged(model: nn.Module, before: dict[str, Tensor]) -> list[str]:
    """Return the tensors that are as before and hold different values."""
    same = [(name, tensor) for name, tensor in _tensors(model) if torch.equal(tensor, before[name])]
    return [name for name, tensor in same if tensor.numel() and bool((tensor != tensor.flatten()[0]).any())]
