"""Tries on random inputs whether weights that are taken for those of units are.

A candidate says: these weights take what a unit gives (its gate), and those make it. It is right if, for any set of units whose gates are
zero, the others of their weights make no difference, while without the gates' being zero they do. The network's own code is run, on a copy
with random weights, so that nothing is hidden by weights that are zero: in float64, or in float32 where its code takes no float64
(`torch.nn.functional.grouped_mm`, which mixtures of experts call).
"""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modhook.network.owned import owned
from modhook.network.twin import twin
from modhook.unit.group import Part

_PLACES = 5
_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-5}
"""Types that are tried, the most exact one first, and what two outputs may differ by to be the same, relative to their size."""

Call = tuple[tuple[Any, ...], dict[str, Any]]


class Probe:
    """A copy of a module with random weights, and calls that it can run.

    Args:
        module: the module. width: features of its main input. seen: calls that were seen while the whole network ran.
        sizes: numbers that further arguments may have as their last size, such as that of a head.
    """

    def __init__(self, module: nn.Module, width: int, seen: Sequence[Call] = (), sizes: Sequence[int] = ()) -> None:
        self.calls: list[Call] = []
        self._width = width
        tensors = [*module.parameters(), *module.buffers()]
        if any(t.is_meta for t in tensors):
            return
        for dtype, tolerance in _TOLERANCES.items():
            try:
                self.module: Any = twin(module).cpu().to(dtype).eval().requires_grad_(False)
            except Exception:
                return
            self._tolerance = tolerance
            self._find_calls(module, seen, sizes, dtype)
            if self.calls:
                return

    def _find_calls(self, module: nn.Module, seen: Sequence[Call], sizes: Sequence[int], dtype: torch.dtype) -> None:
        """Draw the copy's weights and keep the calls that it can run in a type."""
        generator = torch.Generator("cpu").manual_seed(0)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            for parameter in self.module.parameters():
                if parameter.is_floating_point():
                    scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.5
                    parameter.copy_(
                        torch.randn(parameter.shape, generator=generator, dtype=torch.float64, device="cpu") * scale
                    )
            for call in itertools.chain(seen, _calls(module, self._width, sizes, generator)):
                call = _in_type(call, dtype)
                if self._output(call) is not None:
                    self.calls.append(call)
                    break
            flat = self.calls and not seen and _without_places(self.calls[0])
            if flat and self._output(flat) is not None:  # what is over places there is over features here
                self.calls.append(flat)

    @property
    def runs(self) -> bool:
        """Whether it can be run at all."""
        return bool(self.calls)

    def sees(self) -> bool:
        """Return whether places see each other at all; True where the module cannot be run."""
        if not self.runs:
            return True
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            return any(self._mixes({}, (), torch.empty(0, device="cpu"), axis) for axis in (1, 0))

    def matters(self, part: Part, count: int) -> bool:
        """Return whether weights of units make any difference to the first output."""
        if not self.runs:
            return False
        own = dict(self.module.named_parameters())
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            whole = self._output(self.calls[0])
            gone = self._under(own, [part], torch.zeros(count, dtype=torch.bool, device="cpu"), self.calls[0], False)
        return whole is not None and gone is not None and not self._equal(gone, whole)

    def attends(self, parts: Sequence[Part], count: int) -> bool:
        """Return whether places see each other through these units alone: they do not where all of their gates are zero."""
        if not self.runs:
            return False
        gates = [p for p in parts if p.gate]
        own = dict(self.module.named_parameters())
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            every, none = (torch.full((count,), kept, device="cpu") for kept in (True, False))
            return any(self._mixes(own, (), every, axis) and not self._mixes(own, gates, none, axis) for axis in (1, 0))

    def _mixes(self, own: Mapping[str, Tensor], parts: Sequence[Part], kept: Tensor, axis: int) -> bool:
        """Return whether another first place along an axis, 1 or 0, changes what others give."""
        places = [
            t for t in _tensors(self.calls[0]) if t.is_floating_point() and t.dim() > 2 and t.shape[-1] == self._width
        ]
        before = self._under(own, parts, kept, self.calls[0], False)
        for place in {id(t): t for t in places}.values():  # queries alone do not mix where keys come from elsewhere
            given = place.clone()
            place.select(axis, 0).add_(torch.linspace(-1, 2, self._width, dtype=place.dtype, device="cpu"))
            after = self._under(own, parts, kept, self.calls[0], False)
            place.copy_(given)
            if before is None or after is None or after[0].shape != before[0].shape or before[0].dim() < 3:
                return False
            rest = [t[0].narrow(axis, 1, t[0].shape[axis] - 1) for t in (after, before)]
            if not self._equal(rest[:1], rest[1:]):
                return True
        return False

    def proves(self, parts: Sequence[Part], count: int, *, every: bool = False, gone: float = 0.0) -> bool:
        """Return whether candidates are units, by the first output or by `every` one; the parts' parameters are named within the module.

        `gone`: what the weights that make a unit are multiplied by where it is gone; its gates are zero.
        """
        if not self.runs or not any(p.gate for p in parts) or all(p.gate for p in parts):
            return False
        return all(self._proves(parts, count, call, every, gone) for call in (self.calls if every else self.calls[:1]))

    def _proves(self, parts: Sequence[Part], count: int, call: Call, every: bool, off: float) -> bool:
        own = dict(self.module.named_parameters())
        gates, others = [p for p in parts if p.gate], [p for p in parts if not p.gate]
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            whole = self._under(own, (), torch.ones(count, dtype=torch.bool, device="cpu"), call, every)
            for kept, many in _sets(count):
                gone = self._under(own, gates, kept, call, every)
                both = self._under(own, [*gates, *others], kept, call, every, off)
                if whole is None or gone is None or both is None or not self._equal(gone, both):
                    return False
                # One of many may be a ReLU that never fires here.
                if many and self._equal(gone, whole):
                    return False
                if many and not all(bool(p.spread(kept).all()) for p in others):  # what several share may all be there
                    alone = self._under(own, others, kept, call, every, off)
                    if alone is None or self._equal(alone, whole):
                        return False
        return True

    def _under(
        self, own: Mapping[str, Tensor], parts: Sequence[Part], kept: Tensor, call: Call, every: bool, off: float = 0.0
    ) -> list[Tensor] | None:
        before: dict[str, Tensor] = {}
        try:
            for part in parts:
                parameter = own[part.parameter]
                before.setdefault(part.parameter, parameter.clone())
                mask = part.spread(kept)
                parameter.mul_(mask if part.gate or not off else torch.where(mask, 1.0, off))
            return self._output(call, every)
        finally:
            for name, value in before.items():
                own[name].copy_(value)

    def _output(self, call: Call, every: bool = False) -> list[Tensor] | None:
        args, kwargs = call
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = list(_tensors(self.module(*owned(args), **owned(kwargs))))
        except Exception:
            return None
        found = [t for t in found if t.is_floating_point()]
        found = found if every else found[:1]  # the first is the output; others may be caches, or attention weights
        return found if found and all(bool(t.isfinite().all()) for t in found) else None

    def _equal(self, one: Sequence[Tensor], two: Sequence[Tensor]) -> bool:
        if [t.shape for t in one] != [t.shape for t in two]:
            return False
        return all(
            bool((a - b).abs().max() <= self._tolerance * (1 + b.abs().max()))
            for a, b in zip(one, two, strict=True)
            if a.numel()
        )


def watched(model: nn.Module, call: Call, modules: Mapping[str, nn.Module]) -> dict[str, list[Call]]:
    """Run the network once and return with which arguments each of these modules was called; {} where it cannot be run."""
    seen: dict[str, list[Call]] = {}
    handles = []
    for path, module in modules.items():

        def hear(_: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
            seen.setdefault(path, []).append((args, kwargs))

        handles.append(module.register_forward_pre_hook(hear, with_kwargs=True))
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model(*owned(call[0]), **owned(call[1]))
    except Exception:
        return seen
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _sets(count: int) -> Iterator[tuple[Tensor, bool]]:
    """Yield sets of units to keep, all but one, halves and none, and whether those that are gone must make a difference."""
    for unit in sorted({0, count // 2, count - 1}):
        kept = torch.ones(count, dtype=torch.bool, device="cpu")
        kept[unit] = False
        yield kept, count <= 2
    if count > 2:
        even = torch.arange(count, device="cpu") % 2 == 0
        low = torch.arange(count, device="cpu") < count // 2  # neighbours may share weights
        yield from ((even, True), (~even, True), (low, True), (~low, True))
    yield torch.zeros(count, dtype=torch.bool, device="cpu"), True


def _in_type(call: Call, dtype: torch.dtype) -> Call:
    """Return a call on the CPU with its floating-point tensors in a type."""
    return _mapped(call[0], dtype), _mapped(call[1], dtype)


def _without_places(call: Call) -> Call:
    """Return a call whose tensors of items x places x features are those of the first places."""

    def first(value: Any) -> Any:
        return value[:, 0] if isinstance(value, Tensor) and value.dim() == 3 else value

    return tuple(map(first, call[0])), {name: first(value) for name, value in call[1].items()}


def _mapped(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return value.to(dtype) if value.is_floating_point() else value
    if type(value) in (tuple, list):
        return type(value)(_mapped(v, dtype) for v in value)
    if type(value) is dict:
        return {k: _mapped(v, dtype) for k, v in value.items()}
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)


def _calls(module: nn.Module, width: int, sizes: Sequence[int], generator: torch.Generator) -> Iterator[Call]:
    """Yield calls that a module may take: its main input (2, places, width), and what its required arguments may be."""

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu")

    try:
        signature = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return
    needed = [
        p
        for p in signature
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    named = {p.name for p in signature}
    x = drawn(2, _PLACES, width)
    yield (x,), {}
    for size in (None, *dict.fromkeys(sizes)):
        kwargs: dict[str, Any] = {}
        for p in needed[1:]:
            kwargs[p.name] = None
            if p.name in ("key", "value", "k", "v", "keys", "values", "memory", "context", "residual", "input_tensor"):
                kwargs[p.name] = drawn(2, _PLACES, width)
        if "position_embeddings" in named and size is not None:
            angle = drawn(1, _PLACES, size)
            kwargs["position_embeddings"] = (angle.cos(), angle.sin())
        first = needed[0].name if needed else None
        if first is not None and needed[0].kind is not inspect.Parameter.POSITIONAL_ONLY:
            yield (), {first: x, **kwargs}
        else:
            yield (x,), kwargs
    yield (drawn(2, width, 4, 4),), {}
