"""A device that every machine has: it is not the CPU, computes on it, and counts what a real one would wait for.

`pretend` is torch's place for backends of others (PrivateUse1). Its tensors wrap tensors of the CPU, so that values, gradients
and vmap are real, and these are errors, as on a GPU: an operation on tensors of both devices, a number drawn for one device
from another's generator, and numpy. Unlike on a GPU, so is an index of the other device: it would be copied.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import return_and_correct_aliasing

from modhook.network import guard

NAME = "pretend"
_WAITS = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "unique_dim", "_unique2", "unique_consecutive", "bincount"}
"""Operations whose result, or whose size, Python needs at once."""
_HERE = torch.device("cpu")
waits: list[str] = []
"""Where a real device would have been waited for since the latest `counting`: "operation file:line"."""


class OnDevice(Tensor):
    """A tensor of the device: `inner` has its values."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        """Wrap a tensor of the CPU."""
        made: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=torch.device(NAME, 0),
        )
        made.inner = inner
        return made

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        """The same memory, without history; what is set in its place brings its own values."""
        return Tensor.data.__get__(self)  # type: ignore[attr-defined,no-any-return]

    @data.setter
    def data(self, value: OnDevice) -> None:
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.inner = value.inner

    def tolist(self) -> Any:
        """Return its numbers, brought to the CPU."""
        return self.cpu().tolist()

    def as_subclass(self, cls: Any) -> Any:
        """Return it as one of another class, too: torch knows one Python class for each tensor that wraps another."""
        both = _mixed.setdefault(cls, type(cls.__name__, (cls, OnDevice), {}))
        return OnDevice.__new__(both, self.inner)

    def __repr__(self, **_: Any) -> str:
        return f"{NAME}:{self.inner!r}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Compute on the CPU."""
        return _compute(func, args, kwargs or {})


_mixed: dict[Any, Any] = {}


class _Kinds(type(torch.Generator)):  # type: ignore[misc]
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, _Generator)


_Generator = torch.Generator
_theirs: dict[int, Any] = {}
"""Its generators by the place of what they are of: torch hands operations other objects. They are kept, so that no place is used again."""


class Generator(_Generator, metaclass=_Kinds):
    """A generator of random numbers that belongs to the device that it was made for."""

    def __new__(cls, device: Any = "cpu") -> Any:
        """Return torch's own for the CPU."""
        if torch.device(device).type == "cpu":
            return _Generator(device)
        made = _Generator.__new__(cls, "cpu")
        _theirs[made._cdata] = made
        return made

    def __init__(self, device: Any = "cpu") -> None:
        """Nothing is left to do."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The device it draws for."""
        return torch.device(NAME, 0)


def set_up() -> None:
    """Add the device to torch, once per process; it stays."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME)
    library = torch.library.Library("_", "IMPL")
    library.fallback(lambda op, *args, **kwargs: _compute(op, args, kwargs), "PrivateUse1")
    _kept.append(library)
    torch.Generator = Generator  # type: ignore[misc]
    plain = guard._plain
    # On a GPU they are of torch's own class.
    guard._plain = lambda t: plain(t.inner if type(t) is OnDevice else t)


_kept: list[Any] = []


@contextmanager
def counting() -> Iterator[list[str]]:
    """Within it `waits` grows, from nothing."""
    waits.clear()
    _kept.append("counting")
    try:
        yield waits
    finally:
        _kept.remove("counting")


def _compute(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    name = func.name().removeprefix("aten::").partition(".")[0]
    leaves = pytree.tree_leaves((args, kwargs))
    here = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, OnDevice) and x.dim()]
    there = [x for x in leaves if isinstance(x, OnDevice)]
    device = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    goes = device.type == NAME if device is not None else bool(there)
    copies = name in ("copy_", "_to_copy", "_copy_from")
    if here and there and not copies:
        raise RuntimeError(f"{name} mixes devices: tensors of {NAME} and of the cpu.")
    for generator in (x for x in leaves if isinstance(x, _Generator)):
        if (generator._cdata in _theirs) is not goes:
            raise RuntimeError(f"{name} draws for one device from a generator of the other.")
    ours = any(isinstance(x, Tensor) and not isinstance(x, OnDevice) for x in leaves)
    if there and (name in _WAITS or not goes or (copies and ours and not _asynchronous(args, kwargs))):
        _note(name)
    if name in ("index", "index_put_") and any(isinstance(x, OnDevice) and x.dtype == torch.bool for x in leaves[1:]):
        _note(name)
    inner, named = pytree.tree_map(_inside, (tuple(args), dict(kwargs)))
    found = _CELLS.get(name, func)(*inner, **named)
    if not goes:
        return found
    if name == "copy_":
        return args[0]
    wrapped = pytree.tree_map(lambda x: OnDevice(x) if isinstance(x, Tensor) else x, found)
    return return_and_correct_aliasing(func, tuple(args), dict(kwargs), wrapped) if there else wrapped


def _asynchronous(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a copy onto the device was asked not to wait."""
    return bool(kwargs.get("non_blocking") or (len(args) > 2 and args[2] is True))


def _inside(value: Any) -> Any:
    if isinstance(value, OnDevice):
        return value.inner
    return _HERE if isinstance(value, torch.device) else value


def _note(name: str) -> None:
    if "counting" in _kept:
        frames = [f for f in traceback.extract_stack() if "/modhook" in f.filename]
        waits.append(f"{name} {frames[-1].filename.rpartition('/modhook/')[2]}:{frames[-1].lineno}" if frames else name)


def _lstm(x: Tensor, h: Tensor, c: Tensor, bias: Tensor | None = None, other: Tensor | None = None) -> tuple[Tensor, ...]:
    """Return state, cell and gates of a step of an LSTM, as the kernel that torch has for GPUs alone: (B, H), (B, H), (B, 4 H)."""
    gates = x + h if bias is None or other is None else x + h + bias + other
    i, f, g, o = gates.chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    new = f * c + i * g
    return o * new.tanh(), new, torch.cat([i, f, g, o], 1)


def _lstm_back(
    grad_h: Tensor | None, grad_c: Tensor | None, c: Tensor, new: Tensor, gates: Tensor, biased: bool
) -> tuple[Tensor | None, ...]:
    """Return the gradients of its gates before their functions, of the cell before, and of a bias."""
    i, f, g, o = gates.chunk(4, 1)
    outer = torch.zeros_like(new) if grad_h is None else grad_h
    inner = outer * o * (1 - new.tanh() ** 2)
    inner = inner if grad_c is None else inner + grad_c
    own = (inner * g * i * (1 - i), inner * c * f * (1 - f), inner * i * (1 - g**2), outer * new.tanh() * o * (1 - o))
    found = torch.cat(own, 1)
    return found, inner * f, found.sum(0) if biased else None


def _gru(x: Tensor, h: Tensor, hx: Tensor, bias: Tensor | None = None, other: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the state of a step of a GRU, (B, H), and what its gradient needs, (B, 5 H)."""
    x, h = (x if bias is None else x + bias), (h if other is None else h + other)
    (xr, xz, xn), (hr, hz, hn) = x.chunk(3, 1), h.chunk(3, 1)
    r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
    n = (xn + r * hn).tanh()
    return n + z * (hx - n), torch.cat([r, z, n, hx, hn], 1)


def _gru_back(grad: Tensor, kept: Tensor, biased: bool) -> tuple[Tensor | None, ...]:
    """Return the gradients of both inputs, of the state before, and of biases."""
    r, z, n, hx, hn = kept.chunk(5, 1)
    in_n = grad * (1 - z) * (1 - n**2)
    in_r, in_z = in_n * hn * r * (1 - r), grad * (hx - n) * z * (1 - z)
    x, h = torch.cat([in_r, in_z, in_n], 1), torch.cat([in_r, in_z, in_n * r], 1)
    return x, h, grad * z, *((x.sum(0), h.sum(0)) if biased else (None, None))


_CELLS = {
    "_thnn_fused_lstm_cell": _lstm,
    "_thnn_fused_lstm_cell_backward_impl": _lstm_back,
    "_thnn_fused_gru_cell": _gru,
    "_thnn_fused_gru_cell_backward": _gru_back,
}
