"""Large buffers that are used again in every step: on CPU, memory that is new costs more than the arithmetic on it."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod

import torch
from torch import Tensor

_SMALLEST = 1 << 20  # bytes; below, the allocator itself keeps memory at hand
_PAGE = 1 << 21  # bytes of a large page


class Workspace:
    """The buffers of one stage; `active()` lets `take` find them."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[int, torch.dtype], list[Tensor]] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within it, `take` hands out this workspace's buffers."""
        token = _active.set(self)
        try:
            yield
        finally:
            _active.reset(token)

    def take(self, numel: int, dtype: torch.dtype) -> Tensor:
        """Return a flat buffer (numel,) that nothing else refers to any more."""
        known = self._buffers.setdefault((numel, dtype), [])
        found = next((b for b in known if _references(b) == _ALONE), None)
        if found is None:
            found = _memory(numel, dtype)
            known.append(found)
        return found.detach()  # another tensor on the same memory: the buffer counts as in use as long as it lives


def take(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return an uninitialised tensor, from the active workspace where that pays."""
    workspace = _active.get()
    numel = prod(shape)
    if workspace is None or device.type != "cpu" or numel * dtype.itemsize < _SMALLEST:
        return torch.empty(tuple(shape), dtype=dtype, device=device)
    return workspace.take(numel, dtype).view(tuple(shape))


def _memory(numel: int, dtype: torch.dtype) -> Tensor:
    """Return new memory (numel,), in pages of 2 MB where the system has them: looking up small ones costs a tenth of a step."""
    size = numel * dtype.itemsize
    if size >= 2 * _PAGE and hasattr(mmap, "MADV_HUGEPAGE"):  # Linux
        try:
            pages = mmap.mmap(-1, -(-size // _PAGE) * _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            pages.madvise(mmap.MADV_HUGEPAGE)
            return torch.frombuffer(pages, dtype=dtype, count=numel)
        except (OSError, ValueError):  # a kernel without them, a limit on address space: the allocator says what is missing
            pass
    return torch.empty(numel, dtype=dtype, device="cpu")


def _references(tensor: Tensor) -> int:
    """Return how many tensors and storage objects refer to the tensor's memory."""
    return int(torch._C._storage_Use_Count(tensor.untyped_storage()._cdata))


_active: ContextVar[Workspace | None] = ContextVar("workspace", default=None)
_ALONE = _references(torch.empty(1, device="cpu"))
