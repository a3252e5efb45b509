"""What two cubes of like studies have in common: the layout of their variables, and the versions that computed them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SEED = "seed"
WEIGHT_FILES = {"loaded": "train.weights", "off": "masks.off"}
"""Attribute with the digests of files of weights -> the setting that names these files."""
BY_NAME = {"code": "code of {!r}", **{attribute: f"weights in {{!r}} ({setting})" for attribute, setting in WEIGHT_FILES.items()}}
"""Attributes {name: digests} that are compared name by name, and what a name stands for."""


def shape_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of a node, the number of seeds aside."""
    told = {k: v for k, v in node.items() if k != "consolidated_metadata"}
    if seeds_first(node):
        told["shape"] = node["shape"][1:]
    return told


def seeds_first(node: Mapping[str, Any]) -> bool:
    """Return whether a node is an array whose first dimension is the seeds."""
    dims: list[Any] | None = node.get("dimension_names")
    return dims is not None and dims[:1] == [SEED]


def versions_of(attributes: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the versions that the roots of several cubes name; one that differs is a text with all of them: `2.12.0, 2.13.0`."""
    told = [a.get("versions", {}) for a in attributes]
    names = dict.fromkeys(n for versions in told for n in versions)
    return {n: ", ".join(dict.fromkeys(t for v in told if n in v for t in v[n].split(", "))) for n in names}


def exchanged(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return what the roots of two cubes name both, with other digests: `code of 'mine:T'`, `weights in 'w.pt' (masks.off)`."""
    found = []
    for attribute, text in BY_NAME.items():
        mine, its = one.get(attribute, {}), other.get(attribute, {})
        changed = [name for name in sorted(mine.keys() & its.keys()) if mine[name] != its[name]]
        found += [text.format(name if attribute == "code" else name.rpartition(", ")[0]) for name in changed]
    return found
