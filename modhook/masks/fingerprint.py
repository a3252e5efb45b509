"""How masks know their network again: a hash of every parameter, and a checksum of what a file holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def fingerprint(model: nn.Module) -> dict[str, str]:
    """Return `{parameter name: "dtype[shape] hash"}`; the hash is over the values, so two equal networks agree."""
    return {name: _tensor_print(p) for name, p in model.named_parameters(remove_duplicate=False)}


def differences(known: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """Return in words how two fingerprints differ, a text per parameter."""
    found = [f"{n} is missing here" for n in known if n not in here] + [
        f"{n} is new here" for n in here if n not in known
    ]
    for name in known:
        if name in here and known[name] != here[name]:
            then, now = known[name].split()[0], here[name].split()[0]
            found.append(f"{name} has other values" if then == now else f"{name} was {then} and is {now}")
    return found


def other_parameters(known: Mapping[str, str], model: nn.Module) -> list[str]:
    """Return in words how a network's parameters differ from those of a fingerprint in name or shape; their values play no part."""
    here = {n: f"[{','.join(map(str, p.shape))}]" for n, p in model.named_parameters(remove_duplicate=False)}
    then = {n: value.split()[0].partition("[")[1:] for n, value in known.items()}
    shapes = {n: "".join(parts) for n, parts in then.items()}
    found = [f"{n} is missing here" for n in shapes if n not in here] + [f"{n} is new here" for n in here if n not in shapes]
    return found + [f"{n} was {s} and is {here[n]}" for n, s in shapes.items() if n in here and here[n] != s]


def checksum(masks: Mapping[str, Tensor], known: str) -> str:
    """Return the SHA-256 of a mask file's content: names, kinds, shapes and bytes of its tensors, and the fingerprint."""
    digest = hashlib.sha256(known.encode())
    for name in sorted(masks):
        tensor = masks[name].contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def checked_fingerprint(value: Any) -> dict[str, str] | None:
    """Return a fingerprint read from a file. Raises `ValueError` for anything else."""
    if value is None:
        return None
    if isinstance(value, dict) and all(isinstance(v, str) and v.count(" ") == 1 for v in value.values()):
        return value
    raise ValueError("not a fingerprint")


def checked_names(value: Any) -> dict[str, str]:
    """Return names of tied parameters read from a file. Raises `ValueError` for anything else."""
    if isinstance(value, dict) and all(isinstance(v, str) for v in value.values()):
        return value
    raise ValueError("no names")


def _tensor_print(tensor: Tensor) -> str:
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    digest = hashlib.blake2b(flat.view(torch.uint8).numpy().tobytes(), digest_size=12).hexdigest()
    return f"{str(tensor.dtype).removeprefix('torch.')}[{','.join(map(str, tensor.shape))}] {digest}"
