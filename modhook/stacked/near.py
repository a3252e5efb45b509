"""Weights near a network's own, on which routes are compared: the same in every process, and made again where they were written."""

from __future__ import annotations

from abc import abstractmethod
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


class Numbers:
    """K slightly different sets of weights near a model's own, of parameters by first name, made when they are asked for."""

    def __init__(self, model: nn.Module, names: Sequence[str], samples: int) -> None:
        own = dict(model.named_parameters())
        self.own = {name: own[name].detach() for name in names}
        self.shapes = {name: (samples, *value.shape) for name, value in self.own.items()}
        generator = torch.Generator().manual_seed(0)
        small = {n: prod(s) // samples for n, s in self.shapes.items() if prod(s) < _LARGE}
        self._noise = {n: _drawn((samples, size), generator, self.own[n]) for n, size in small.items()}
        self._bank: dict[tuple[torch.dtype, torch.device], Tensor] = {}
        for name, value in self.own.items():
            if name not in small and (kind := (value.dtype, value.device)) not in self._bank:
                self._bank[kind] = _drawn((_BANK,), torch.Generator().manual_seed(1), value)

    def sample(self, name: str, k: int, out: Tensor | None = None) -> Tensor:
        """Return sample k of a parameter, (*shape), in a tensor that is given or a new one."""
        own = self.own[name]
        made = torch.empty(own.shape, dtype=own.dtype, device=own.device) if out is None else out
        flat = made.view(-1)
        for at, piece in self._pieces(name, k):
            flat[at : at + PIECE] = piece
        return made

    def same(self, name: str, k: int, tensor: Tensor) -> bool:
        """Return whether a tensor (*shape) still is sample k of a parameter, bit for bit."""
        if tensor.shape != self.own[name].shape or tensor.dtype != self.own[name].dtype:
            return False
        flat = tensor.detach().reshape(-1)
        return all(torch.equal(flat[at : at + PIECE], piece) for at, piece in self._pieces(name, k))

    def _pieces(self, name: str, k: int) -> Iterator[tuple[int, Tensor]]:
        """Yield the numbers of sample k of a parameter, piece by piece, with the place of the first."""
        own = self.own[name].reshape(-1)
        bank = None if name in self._noise else self._bank[own.dtype, own.device]
        for at in range(0, own.numel(), PIECE):
            piece = own[at : at + PIECE]
            noise = self._noise[name][k, at : at + PIECE] if bank is None else _cut(bank, at + k * _APART, len(piece))
            yield at, torch.addcmul(piece, 0.1 * piece + 0.02, noise)


class Near(Mapping[str, Tensor]):
    """Weights near a model's own, {name: (K, *shape)}, by first name. A copy of the network may stand on their memory."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers, self.own = numbers, numbers.own

    def __iter__(self) -> Iterator[str]:
        return iter(self.own)

    def __len__(self) -> int:
        return len(self.own)

    def __contains__(self, name: object) -> bool:
        return name in self.own

    @abstractmethod
    def same(self, name: str, k: int, tensor: Tensor) -> bool:
        """Return whether a tensor (*shape) still is sample k of a parameter, bit for bit."""

    def restore(self) -> None:
        """Undo what was written into the values."""


class Together(Near):
    """All samples at once, kept."""

    def __init__(self, numbers: Numbers) -> None:
        super().__init__(numbers)
        own = numbers.own
        self._values = {n: torch.empty(s, dtype=own[n].dtype, device=own[n].device) for n, s in numbers.shapes.items()}
        self.restore()

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name]

    def same(self, name: str, k: int, tensor: Tensor) -> bool:
        """Return whether a tensor (*shape) still is sample k of a parameter, bit for bit."""
        return self.numbers.same(name, k, tensor)

    def restore(self) -> None:
        """Make all values again, in place."""
        for name, value in self._values.items():
            for k, row in enumerate(value):
                self.numbers.sample(name, k, row)


class Alone(Near):
    """One sample, {name: (1, *shape)}, made anew whenever it is asked for."""

    def __init__(self, numbers: Numbers, k: int) -> None:
        super().__init__(numbers)
        self.k = k

    def __getitem__(self, name: str) -> Tensor:
        return self.numbers.sample(name, self.k).unsqueeze(0)

    def same(self, name: str, k: int, tensor: Tensor) -> bool:
        """Return whether a tensor (*shape) still is the sample of a parameter, bit for bit."""
        return self.numbers.same(name, self.k, tensor)


def _drawn(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Return numbers between -0.5 and 0.5."""
    return torch.rand(shape, generator=generator, device="cpu").to(like.device, like.dtype) - 0.5


def _cut(bank: Tensor, start: int, size: int) -> Tensor:
    """Return `size` numbers of the bank from a place on; behind its end it begins again."""
    start %= _BANK
    found = bank[start : start + size]
    return found if len(found) == size else torch.cat([found, bank[: size - len(found)]])
