"""Masks in a safetensors file: a bool tensor per parameter or group of units; as metadata a checksum and what they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from modhook.errors import MaskError
from modhook.masks.fingerprint import checked_fingerprint, checked_names, checksum
from modhook.network.files import write_whole
from modhook.unit.group import Group, read, written

FORMAT = "modhook-masks-2"  # 1, never released, had no checksum
WITH_UNITS = "modhook-masks-3"  # what reads only 2 must not take units for weights


def write(
    path: Path,
    masks: Mapping[str, Tensor],
    fingerprint: Mapping[str, str] | None,
    tied: Mapping[str, str],
    groups: Sequence[Group],
) -> None:
    """Write a file, whole or not at all. Raises `MaskError`."""
    from safetensors.torch import save

    told = {
        "fingerprint": json.dumps(fingerprint),
        **({"tied": json.dumps(tied)} if tied else {}),
        **({"units": written(groups)} if groups else {}),
    }
    found = checksum(masks, "".join(told.values()))
    metadata = {"format": WITH_UNITS if groups else FORMAT, "sha256": found, **told}
    data = save({n: m.contiguous() for n, m in masks.items()}, metadata)
    try:
        write_whole(path, data)
    except OSError as error:
        raise MaskError(f"masks cannot be written to {path}: {error.strerror or error}.") from error


def load(
    path: str | Path,
) -> tuple[dict[str, Tensor], dict[str, str] | None, dict[str, str], tuple[Group, ...]]:
    """Return the masks, the fingerprint of their network, its tied names and its units. Raises `MaskError`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise MaskError(f"{path} cannot be read as masks: {error}; give a file written by Masks.save.") from error
    if metadata.get("format") not in (FORMAT, WITH_UNITS):
        raise MaskError(f"{path} is a safetensors file but holds no modhook masks; give a file written by Masks.save.")
    told = "".join(metadata.get(key, "") for key in ("fingerprint", "tied", "units"))
    if metadata.get("sha256") != checksum(tensors, told):
        raise MaskError(
            f"{path} is damaged: its masks do not match their checksum; take another copy, or learn them again."
        )
    try:
        known = checked_fingerprint(json.loads(metadata["fingerprint"]))
        tied = checked_names(json.loads(metadata.get("tied", "{}")))
        groups = read(metadata.get("units", "[]"))
    except (KeyError, ValueError) as error:
        raise MaskError(f"{path} is damaged: the fingerprint of its network cannot be read.") from error
    return tensors, known, tied, groups
