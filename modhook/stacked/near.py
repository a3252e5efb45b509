"""Weights near a network's own, on which routes are compared: the same in every process, and made again where they were written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn

_BANK = 1_000_003
"""Numbers that all large tensors share; a prime, so that no row of one repeats another."""
_APART = 333_667
_LARGE = 1 << 17
PIECE = 1 << 17
"""Numbers that are worked on together, while they are in a processor's cache."""


class Near(Mapping[str, Tensor]):
    """K slightly different sets of weights near a model's own: {name: (K, *shape)}, by first name.

    A copy of the network may stand on their memory: `same` and `restore` see and undo what it writes.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], samples: int) -> None:
        own = dict(model.named_parameters())
        self._own = {name: own[name].detach() for name in names}
        generator = torch.Generator().manual_seed(0)
        shapes = {name: (samples, *value.shape) for name, value in self._own.items()}
        self._noise = {n: _drawn((samples, prod(s[1:])), generator, self._own[n]) for n, s in shapes.items() if prod(s) < _LARGE}
        self._bank: dict[tuple[torch.dtype, torch.device], Tensor] = {}
        for value in self._own.values():
            kind = (value.dtype, value.device)
            if kind not in self._bank and len(self._noise) < len(self._own):
                self._bank[kind] = _drawn((_BANK,), torch.Generator().manual_seed(1), value)
        self._values = {n: torch.empty(s, dtype=self._own[n].dtype, device=self._own[n].device) for n, s in shapes.items()}
        self.restore()

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def same(self, name: str, k: int, tensor: Tensor) -> bool:
        """Return whether a tensor (*shape) still is sample k of a parameter, bit for bit."""
        if tensor.shape != self._own[name].shape or tensor.dtype != self._own[name].dtype:
            return False
        flat = tensor.detach().reshape(-1)
        return all(torch.equal(flat[at : at + PIECE], piece) for at, piece in self._pieces(name, k))

    def restore(self) -> None:
        """Make all values again, in place."""
        for name, value in self._values.items():
            for k, row in enumerate(value):
                flat = row.view(-1)
                for at, piece in self._pieces(name, k):
                    flat[at : at + PIECE] = piece

    def _pieces(self, name: str, k: int) -> Iterator[tuple[int, Tensor]]:
        """Yield the numbers of sample k of a parameter, piece by piece, with the place of the first."""
        own = self._own[name].reshape(-1)
        bank = None if name in self._noise else self._bank[own.dtype, own.device]
        for at in range(0, own.numel(), PIECE):
            piece = own[at : at + PIECE]
            noise = self._noise[name][k, at : at + PIECE] if bank is None else _cut(bank, at + k * _APART, len(piece))
            yield at, torch.addcmul(piece, 0.1 * piece + 0.02, noise)


def _drawn(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Return numbers between -0.5 and 0.5."""
    return torch.rand(shape, generator=generator, device="cpu").to(like.device, like.dtype) - 0.5


def _cut(bank: Tensor, start: int, size: int) -> Tensor:
    """Return `size` numbers of the bank from a place on; behind its end it begins again."""
    start %= _BANK
    found = bank[start : start + size]
    return found if len(found) == size else torch.cat([found, bank[: size - len(found)]])
