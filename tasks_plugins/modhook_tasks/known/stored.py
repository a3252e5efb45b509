"""The truth found by brute force, kept in files: for `seed=0` of every network, as the places of the chosen weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from modhook_tasks.known.bruteforce import masked_names
from modhook_tasks.known.compiled import FILES
from modhook_tasks.known.structure import Chosen

PARTS = ("necessary", "minimal")


def path(name: str) -> Path:
    """Return where the truth about a network is kept."""
    return FILES / "truth" / f"{name}.safetensors"


def save(name: str, found: tuple[Chosen, Chosen]) -> None:
    """Write `bruteforce.find`'s result: int32 places in the flattened parameter, only where there are any."""
    places = {}
    for part, chosen in zip(PARTS, found, strict=True):
        for function, masks in chosen.items():
            places[f"{part}/{function}"] = torch.empty(
                0,
                dtype=torch.int32,
                device="cpu",
            )  # the function is there, needing nothing or not
            for parameter, mask in masks.items():
                if mask.any():
                    places[f"{part}/{function}/{parameter}"] = mask.flatten().nonzero().flatten().int()
    path(name).parent.mkdir(exist_ok=True)
    save_file(places, path(name))


def load(name: str, model: nn.Module) -> tuple[Chosen, Chosen]:
    """Read what `save` wrote, as masks over a network's parameters."""
    found: tuple[Chosen, Chosen] = ({}, {})
    empty = {n: torch.zeros(model.get_parameter(n).shape, dtype=torch.bool, device="cpu") for n in masked_names(model)}
    with safe_open(str(path(name)), framework="pt") as file:
        for key in sorted(file.keys()):  # a function before its parameters
            part, function, *parameter = key.split("/")
            chosen = found[PARTS.index(part)]
            if not parameter:
                chosen[function] = {n: mask.clone() for n, mask in empty.items()}
            else:
                chosen[function][parameter[0]].view(-1)[file.get_tensor(key).long()] = True
    return found
