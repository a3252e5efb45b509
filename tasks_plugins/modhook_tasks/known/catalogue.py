"""Every network with a known answer, by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modhook import UserError
from modhook_tasks.known import bruteforce, compiled, stored, superposed, welded
from modhook_tasks.known.nothing import CONTROLS, control
from modhook_tasks.known.structure import Chosen, Function, Known, Truth


def networks(controls: bool = False) -> tuple[str, ...]:
    """Return the names that `build` knows.

    Compiled programs (`hist`, `frac_prevs+hist`, `frac_prevs+hist-small_noise`, `-large_noise`, `-hidden`), welded parts
    (`welded_lstm`), superposed features (`superposed_5_2`). With `controls`, the networks in which there is nothing to find as well:
    every name with `/untrained`, `/shuffled` or `/permuted`.
    """
    names = (*compiled.networks(), *welded.networks(), *superposed.networks())
    return (*names, *(f"{name}/{kind}" for name in names for kind in CONTROLS)) if controls else names


def build(name: str, seed: int = 0) -> Known:
    """Build a network with a known answer.

    Args:
        name: one of `networks(controls=True)`.
        seed: of what is random in it: noise and basis of compiled networks, the order of hidden units of welded ones, the controls.
            The truth of seed 0 is shipped; that of others is found when it is first asked for (seconds to minutes).

    Returns:
        A `Known`: a new, frozen network, its functions with data, and the truth about its weights.

    Raises:
        UserError: a name that is not there.
    """
    base, _, kind = name.partition("/")
    if name not in networks(controls=True):
        raise UserError(
            f"there is no known network {name!r}; there are {', '.join(networks())}, each also with "
            f"{', '.join('/' + c for c in CONTROLS)}."
        )
    model, functions, owner, parts = _made(base, seed)
    if kind:
        functions = control(model, functions, kind, seed)
        return Known(name, seed, model, functions, Truth(None, lambda: None), parts)
    return Known(name, seed, model, functions, Truth(owner, lambda: _truth(name, seed, model, functions, owner)), parts)


def _made(name: str, seed: int) -> tuple[nn.Module, dict[str, Function], dict[str, Tensor] | None, dict[str, float]]:
    if name in welded.networks():
        return welded.build(name, seed)
    if name in superposed.networks():
        model, functions, owner = superposed.build(name)
        return model, functions, owner, superposed.alone(model, functions, owner)
    made = compiled.build(name, seed)
    return *made, dict.fromkeys(made[1], 1.0)


def _truth(
    name: str, seed: int, model: nn.Module, functions: dict[str, Function], owner: dict[str, Tensor] | None
) -> tuple[Chosen, Chosen] | None:
    """Return necessary weights and small masks: from the file, or by trying; None where only functions can be judged."""
    if owner is None:
        return None
    if name in compiled.networks() and "+" in name and "-" not in name:
        return _of_the_parts(name, model, owner)
    fixed = name in superposed.networks() or (name in compiled.networks() and "+" not in name)  # nothing random in them
    if (seed == 0 or fixed) and stored.path(name).exists():
        return stored.load(name, model)
    return bruteforce.find(model, functions, owner)


def _of_the_parts(name: str, model: nn.Module, owner: dict[str, Tensor]) -> tuple[Chosen, Chosen]:
    """Return the truth about two programs side by side: nothing connects them, so it is that about each alone, at its new place."""
    found: tuple[Chosen, Chosen] = ({}, {})
    for number, function in enumerate(name.split("+"), 1):
        alone = build(function)
        for chosen, known in zip(found, (alone.truth.necessary, alone.truth.minimal), strict=True):
            assert known is not None
            chosen[function] = {
                n: torch.zeros(owner[n].shape, dtype=torch.bool, device="cpu") for n in bruteforce.masked_names(model)
            }
            for parameter, mask in known[function].items():
                # A part's weights keep their order in the joined tensor.
                own = alone.model.get_parameter(parameter) != 0
                chosen[function][parameter][owner[parameter] == number] = mask[own]
    return found
