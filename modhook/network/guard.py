"""Notices what a forward pass writes into the tensors of a network, and puts the old values back.

Three things are looked at: the version that torch counts for in-place writes, the memory that a tensor stands for, and the
values themselves, since writes through `.data`, numpy and some of torch's own kernels count no version. Numpy arrays that a
module keeps are looked at as the bytes in their memory.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from modhook.network.held import held
from modhook.network.scope import parameter_names, restored

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Guard:
    """The values of all tensors that a network holds, as they are now.

    Args:
        model: the network.
        without: parameters, by any of their names, whose values are not kept because others stand in their places; they are
            kept all the same where a module holds them in a list or object too.
        numbers: how many numbers are compared by every `written()`, smallest tensors first, and as many again of the others,
            one piece after the other; None: all.
    """

    def __init__(self, model: nn.Module, without: Collection[str] = (), numbers: int | None = None) -> None:
        everything = held(model)
        first = parameter_names(model)
        spared = {first.get(name, name) for name in without} - everything.kept
        self.tensors = everything.tensors
        self._aliases = {name: tensor.data for name, tensor in self.tensors.items()}
        self._flags = {name: tensor.requires_grad for name, tensor in self.tensors.items()}
        self._values: dict[str, Tensor] = {}
        with torch.no_grad():
            for name, alias in self._aliases.items():
                if name not in spared and not alias.is_meta:
                    self._values[name] = alias.clone()
        often, total = [], 0
        for name in sorted(self._values, key=lambda name: self._values[name].numel()):
            total += self._values[name].numel()
            if numbers is not None and total > numbers:
                break
            often.append(name)
        self._together = [_Together(self, names) for names in _alike(self, often)]
        self._alone = sorted(set(often) - {name for group in self._together for name in group.names})
        rest = [name for name in self._values if name not in often]
        self._pieces = itertools.cycle(list(_pieces(self, rest, numbers or 1)))
        self._memory: dict[int, set[str]] | None = None
        self.begin()

    def begin(self) -> None:
        """Look at versions and memory from here on."""
        self._before = [(_version(tensor), _pointer(tensor)) for tensor in self.tensors.values()]

    def written(self, *, thorough: bool = False) -> frozenset[str]:
        """Return the names of the tensors that were written since `begin()`; thorough: compare the values of all of them."""
        found = {
            name
            for (name, tensor), before in zip(self.tensors.items(), self._before, strict=True)
            if before != (_version(tensor), _pointer(tensor))
        }
        if thorough:
            return frozenset(found | self.differing(self._values))
        pieces = list(itertools.islice(self._pieces, 1))
        # On a GPU they are asked first and answered together: each answer would wait for all that it has to do.
        known, alone = self._asked(self._alone)
        each = [*((name, _same(now, before)) for name, now, before in pieces), *alone.items()]
        answers = [bool(answer) for answer in _told([*(group.same() for group in self._together), *(same for _, same in each)])]
        for group, same in zip(self._together, answers, strict=False):
            if not same:
                found |= self.differing(group.names)
        found |= {name for (name, _), same in zip(each, answers[len(self._together) :], strict=True) if not same}
        return frozenset(found | known)

    def differing(self, names: Collection[str]) -> set[str]:
        """Return which of these tensors have other values than at the start; those on a GPU are asked first and answered together."""
        found, asked = self._asked(names)
        return found | {name for name, same in zip(asked, _told(list(asked.values())), strict=True) if not bool(same)}

    def _asked(self, names: Collection[str]) -> tuple[set[str], dict[str, bool | Tensor]]:
        """Return which of these tensors have other values, and of those on a GPU whether each has the same, for which nobody has waited."""
        found, asked = set(), {}
        for name in names:
            if name not in self._values:
                continue
            now, before = self.tensors[name].data, self._values[name]
            alike = now.shape == before.shape and now.dtype == before.dtype and _plain(now) and _plain(before)
            if alike and now.device.type != "cpu" and now.device == before.device:
                asked[name] = _same(_bits(now), _bits(before))
            elif not same_bits(self.tensors[name], before):
                found.add(name)
        return found, asked

    @property
    def recoverable(self) -> frozenset[str]:
        """The tensors whose values are kept."""
        return frozenset(self._values)

    def memory(self) -> dict[int, set[str]]:
        """Return {place of memory: names of the tensors in it}."""
        if self._memory is None:
            self._memory = {}
            for name, tensor in self.tensors.items():
                self._memory.setdefault(memory_of(tensor), set()).add(name)
            self._memory.pop(-1, None)
        return self._memory

    def put_back(self) -> None:
        """Give every tensor its memory, its values and its `requires_grad` back."""
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                alias = self._aliases[name]
                if _pointer(tensor) != _pointer(alias) or tensor.shape != alias.shape:
                    tensor.data = alias
            for name in self.differing(self._values):
                _overwrite(self._aliases[name], self._values[name])
            for name, tensor in self.tensors.items():
                if tensor.requires_grad is not self._flags[name] and tensor.is_leaf:
                    tensor.requires_grad_(self._flags[name])
        self.begin()


@contextmanager
def lent(model: nn.Module, without: Collection[str] = ()) -> Iterator[None]:
    """Undo, on leaving, everything that was written or set in a network: values, tensors, buffers, attributes, flags."""
    guard = Guard(model, without)
    try:
        with restored(model):
            yield
    finally:
        guard.put_back()


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors hold the same bits; NaN equals itself, and 0.0 is not -0.0."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.layout is not torch.strided or one.is_quantized or type(one.data) is not type(other.data):
        return _same_otherwise(one, other)
    try:
        return torch.equal(_bits(one.data), _bits(other.data))
    except RuntimeError:
        return _same_otherwise(one, other)


def memory_of(tensor: Tensor) -> int:
    """Return the place of a tensor's memory, behind vmap; -1 if it has none of its own."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    try:
        return tensor.untyped_storage().data_ptr() or -1
    except (RuntimeError, NotImplementedError):
        return -1


def copies(tensors: Collection[Tensor]) -> list[Tensor]:
    """Return a copy of each tensor; those that share memory share it in the copies too."""
    memories: dict[int, torch.UntypedStorage] = {}
    new = []
    for tensor in tensors:
        own = tensor.detach()
        try:
            storage = own.untyped_storage()
            whole = storage.nbytes() == own.numel() * own.element_size()
            if whole and _pointer(own) not in memories and storage.data_ptr() not in memories:
                copy = own.clone()
                if copy.stride() == own.stride():
                    memories[storage.data_ptr()] = copy.untyped_storage()
                    new.append(copy)
                    continue
            memory = memories.setdefault(storage.data_ptr(), storage.clone())
            made = torch.empty(0, dtype=own.dtype, device=own.device)
            new.append(made.set_(memory, own.storage_offset(), own.shape, own.stride()))
        except (RuntimeError, NotImplementedError):  # a tensor without memory of its own: sparse, a subclass
            new.append(own.clone())
    return new


class _Together:
    """Small tensors of one device and width, compared in two calls instead of two each."""

    def __init__(self, guard: Guard, names: list[str]) -> None:
        self.names = names
        self._parts = [_bits(guard._aliases[name]).view(-1) for name in names]
        self._whole = torch.cat([_bits(guard._values[name]).view(-1) for name in names])

    def same(self) -> bool | Tensor:
        return _same(torch.cat(self._parts), self._whole)


def _same(now: Tensor, before: Tensor) -> bool | Tensor:
    """Return whether two tensors of one shape are equal; on a GPU as a tensor (), for which nobody has waited."""
    return torch.equal(now, before) if now.device.type == "cpu" else (now == before).all()


def _told(answers: Sequence[bool | Tensor]) -> Sequence[Any]:
    """Return answers as Python's, after one wait for those of one device."""
    there = [answer for answer in answers if isinstance(answer, Tensor)]
    if len(there) < len(answers) or len({answer.device for answer in there}) > 1:
        return answers
    return torch.stack(there).tolist() if there else ()


def _alike(guard: Guard, names: list[str]) -> Iterator[list[str]]:
    """Yield the names of contiguous, plain tensors, by device and width."""

    def kind(name: str) -> tuple[str, int]:
        return str(guard._values[name].device), guard._values[name].element_size()

    plain = [n for n in names if _plain(guard._aliases[n]) and guard._aliases[n].is_contiguous()]
    plain = [n for n in plain if guard._values[n].is_contiguous()]
    for _, group in itertools.groupby(sorted(plain, key=kind), key=kind):
        yield list(group)


def _pieces(guard: Guard, names: list[str], size: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield large tensors in pieces: name, the piece now, and as it was."""
    for name in names:
        now, before = guard._aliases[name], guard._values[name]
        if _plain(now) and now.is_contiguous() and before.is_contiguous():
            pairs = zip(_bits(now).view(-1).split(size), _bits(before).view(-1).split(size), strict=True)
            yield from ((name, one, other) for one, other in pairs)


def _plain(tensor: Tensor) -> bool:
    strided = tensor.layout is torch.strided and not tensor.is_quantized
    return strided and type(tensor) is Tensor and tensor.element_size() in _INTEGERS and not tensor.is_conj()


def _bits(tensor: Tensor) -> Tensor:
    """Return the tensor as whole numbers of its width."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if tensor.element_size() not in _INTEGERS or tensor.dtype is torch.bool:
        return tensor
    return tensor.view(_INTEGERS[tensor.element_size()])


def _same_otherwise(one: Tensor, other: Tensor) -> bool:
    with contextlib.suppress(Exception):
        return bool(torch.equal(one.detach().to_dense(), other.detach().to_dense()))
    return True  # its version and its memory are all that can be looked at


def _overwrite(tensor: Tensor, value: Tensor) -> None:
    """Write values into memory, where it can be written: a number that is shown at many places is written once."""
    if tensor.layout is torch.strided:
        for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
            if stride == 0 and size > 1:
                tensor, value = tensor.narrow(dim, 0, 1), value.narrow(dim, 0, 1)
    tensor.copy_(value)


def _version(tensor: Tensor) -> int:
    try:
        return tensor._version
    except RuntimeError:  # made under torch.inference_mode
        return 0


def _pointer(tensor: Tensor) -> Any:
    try:
        return tensor.data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse, or a subclass that wraps others
        return 0
