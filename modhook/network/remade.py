"""Tensors that are made where a network reads them, and made again in its backward pass, so that never all of them are there at once.

A `Recipe` stands in a module's table of parameters. Reading it makes the tensor, as a part of the autograd graph; where the graph would
save it for the way back it keeps the recipe, and the tensor is made again when its turn comes. What is alive is not made twice, and
the latest ones are kept at hand, up to a small share of all.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

Again = Callable[["Recipe"], Tensor]
"""Gives the tensor of a recipe: the one at hand, or a new one."""
_SHARE = 16
"""One byte of so many that all recipes make is kept at hand, and the largest tensor at least."""


@attrs.frozen(eq=False)
class Recipe:
    """How to make a tensor; the same numbers each time.

    Attributes:
        make: makes it, differentiable in what it is made of; is given what makes the tensors of other recipes.
        like: a tensor of its shape, type and device.
    """

    make: Callable[[Again], Tensor]
    like: Tensor

    @property
    def size(self) -> int:
        """Bytes of the tensor."""
        return self.like.numel() * self.like.element_size()


class Recipes:
    """One parameter under K parameter sets, a recipe for each: stands where a tensor (K, *shape) would."""

    def __init__(self, each: Sequence[Recipe]) -> None:
        self.each = tuple(each)
        like = self.each[0].like
        self.shape, self.dtype, self.device = (len(self.each), *like.shape), like.dtype, like.device

    def dim(self) -> int:
        """Return the number of dimensions, that of the parameter sets included."""
        return len(self.shape)


class Remaker:
    """Makes the tensors of one pass through a network, and again on the way back.

    Attributes:
        wrote: the recipes whose tensors something wrote into.
    """

    def __init__(self, recipes: Sequence[Recipe]) -> None:
        sizes = [recipe.size for recipe in recipes]
        self.wrote: set[Recipe] = set()
        self._room = max([*sizes, sum(sizes) // _SHARE, 0])
        self._alive: dict[Recipe, tuple[weakref.ref[Tensor], int]] = {}
        self._sources: dict[int, tuple[StorageWeakRef, Recipe, _Geometry]] = {}
        self._kept: OrderedDict[Recipe, Tensor] = OrderedDict()

    def get(self, recipe: Recipe) -> Tensor:
        """Return the tensor as a part of the graph: the one that is alive, or a new one."""
        known = self._alive.get(recipe)
        tensor = None if known is None else known[0]()
        if tensor is None:
            with _plainly(recipe.like), torch.enable_grad():
                tensor = recipe.make(self.get)
            self._alive[recipe] = weakref.ref(tensor), tensor._version
            storage = tensor.untyped_storage()
            # While it is referred to, even weakly, no other storage gets its place.
            self._sources[storage._cdata] = StorageWeakRef(storage), recipe, _geometry(tensor)
        self._look(recipe, tensor)
        self._keep(recipe, tensor)
        return tensor

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within it the network runs forward."""
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack):
                yield
        finally:
            for recipe, tensor in self._kept.items():
                self._look(recipe, tensor)
            # With its history a tensor would hold the graph, which holds this object.
            self._kept = OrderedDict((recipe, tensor.detach()) for recipe, tensor in self._kept.items())
            self._alive, self._sources = {}, {}

    # -- inside

    def _again(self, recipe: Recipe) -> Tensor:
        tensor = self._kept.get(recipe)
        if tensor is None:
            with _plainly(recipe.like), torch.no_grad():
                tensor = recipe.make(self._again).detach()
        self._keep(recipe, tensor)
        return tensor

    def _pack(self, saved: Tensor) -> Any:
        known = self._sources.get(_storage(saved))
        if known is None or saved.dtype != known[1].like.dtype or saved.is_conj() or saved.is_neg():
            return saved
        return known[1], known[2], _geometry(saved)

    def _unpack(self, packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        recipe, whole, part = packed
        tensor = self._again(recipe)
        if _geometry(tensor) != whole:  # made in another layout
            _, stride, offset = whole
            last = offset + sum((n - 1) * s for n, s in zip(tensor.shape, stride, strict=True)) + 1
            tensor = tensor.new_empty(last).as_strided(*whole).copy_(tensor)
        return tensor.as_strided(*part)

    def _keep(self, recipe: Recipe, tensor: Tensor) -> None:
        self._kept[recipe] = tensor
        self._kept.move_to_end(recipe)
        total = sum(r.size for r in self._kept)
        while total > self._room:
            gone, there = self._kept.popitem(last=False)
            self._look(gone, there)
            total -= gone.size

    def _look(self, recipe: Recipe, tensor: Tensor) -> None:
        known = self._alive.get(recipe)
        if known is not None and tensor._version != known[1]:
            self.wrote.add(recipe)


class Shelf(dict[str, Any]):
    """A module's table of parameters in which recipes stand: reading one gives its tensor."""

    def __init__(self, content: Mapping[str, Any], get: Again) -> None:
        super().__init__(content)
        self._get = get

    def __getitem__(self, name: str) -> Any:
        return self._made(super().__getitem__(name))

    def get(self, name: str, default: Any = None) -> Any:
        """Return the tensor of that name."""
        return self._made(super().get(name, default))

    def items(self) -> Any:
        """Yield names and tensors, one after the other."""
        return ((name, self[name]) for name in list(self))

    def values(self) -> Any:
        """Yield the tensors, one after the other."""
        return (self[name] for name in list(self))

    def pop(self, name: str, *default: Any) -> Any:
        """Take out the tensor of that name."""
        return self._made(super().pop(name, *default))

    def copy(self) -> Any:
        """Return a plain table of the tensors."""
        return dict(self.items())

    def _made(self, value: Any) -> Any:
        return self._get(value) if isinstance(value, Recipe) else value


_Geometry = tuple[torch.Size, tuple[int, ...], int]


def _storage(tensor: Tensor) -> int:
    """Return the place of a tensor's storage; 0 for one that has none: sparse, or a subclass that wraps others."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError):
        return 0


def _geometry(tensor: Tensor) -> _Geometry:
    return tensor.shape, tensor.stride(), int(tensor.storage_offset())


@contextmanager
def _plainly(like: Tensor) -> Iterator[None]:
    """Within it tensors are made as outside of the network: no mode that it set has a say."""
    kind = like.device.type
    cast = torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
    with torch.inference_mode(False), torch._C.DisableTorchFunction(), cast:
        yield
