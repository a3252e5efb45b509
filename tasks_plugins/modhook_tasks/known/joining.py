"""Two networks in one: the parts' weights laid into larger tensors, each unit at its place.

A tensor's axis belongs to a *space* of units (residual stream, hidden units, heads). In the joined network a space holds the units of
all parts, at places that `side_by_side` or `shuffled` give; a shared space (inputs, classes) is the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor


@attrs.frozen
class Axis:
    """An axis of a tensor: the units of `space`, repeated as a whole `outer` times, each with `inner` entries in a row."""

    space: str
    outer: int = 1
    inner: int = 1


Layout = Mapping[str, tuple[Axis, ...]]
"""{tensor name: its leading axes}; further axes are taken whole."""


@attrs.frozen
class Space:
    """The units of all parts in one joined space of `size` units: `places[part]` (n,) holds where each part's units go."""

    size: int
    places: tuple[Tensor, ...]


def shared(size: int, parts: int) -> Space:
    """Return a space that is the same in every part."""
    return Space(size, (torch.arange(size, device="cpu"),) * parts)


def side_by_side(sizes: Sequence[int]) -> Space:
    """Return a space with the parts' units one part after the other."""
    return Space(sum(sizes), tuple(torch.arange(sum(sizes), device="cpu").split(list(sizes))))


def shuffled(sizes: Sequence[int], generator: torch.Generator) -> Space:
    """Return a space with the parts' units at random places."""
    return Space(sum(sizes), tuple(torch.randperm(sum(sizes), generator=generator, device="cpu").split(list(sizes))))


def join(
    empty: Mapping[str, Tensor], parts: Sequence[Mapping[str, Tensor]], layout: Layout, spaces: Mapping[str, Space]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the joined tensors, and who owns each entry: 0 for nobody, 1 for the first part.

    `empty` gives names and shapes. An entry that is zero in its part belongs to nobody; a tensor that a part lacks (it has fewer
    layers) stays zero there. Tensors without a layout stay zero.
    """
    joined = {name: torch.zeros_like(tensor) for name, tensor in empty.items()}
    owner = {name: torch.zeros(tensor.shape, dtype=torch.long, device="cpu") for name, tensor in empty.items()}
    for number, part in enumerate(parts):
        for name, tensor in part.items():
            if name not in layout:
                continue
            places = [_places(spaces[axis.space], number, axis) for axis in layout[name]]
            places += [torch.arange(size, device="cpu") for size in tensor.shape[len(places) :]]
            where = torch.meshgrid(*places, indexing="ij")
            joined[name][where] = tensor
            owner[name][where] = (tensor != 0).long() * (number + 1)
    return joined, owner


def _places(space: Space, part: int, axis: Axis) -> Tensor:
    """Return where a part's entries of an axis go: (outer * n * inner,)."""
    outer = torch.arange(axis.outer, device="cpu").view(-1, 1, 1) * space.size
    units = space.places[part].view(1, -1, 1)
    return ((outer + units) * axis.inner + torch.arange(axis.inner, device="cpu").view(1, 1, -1)).flatten()
