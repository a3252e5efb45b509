"""Binary masks over a network's parameters, and their set algebra (paper, section 2).

A `Masks` is an immutable mapping from parameter name to a bool tensor of the parameter's shape; True keeps the weight.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import torch
from torch import Tensor, nn

from modhook.errors import MaskError, UserError, listing, missing
from modhook.masks.applied import applied, materialized
from modhook.masks.checks import check_fit, copies
from modhook.masks.files import load, write
from modhook.masks.fingerprint import differences, fingerprint, other_parameters
from modhook.masks.heads import heads
from modhook.masks.levels import Levels, by
from modhook.masks.names import one_per_parameter, remembered, tied_names
from modhook.masks.off import Off
from modhook.masks.same import same_kind, same_network, same_parameters
from modhook.masks.select import chosen
from modhook.masks.selectors import Selectors
from modhook.masks.show import frame, page
from modhook.network.guard import lent
from modhook.network.threads import using
from modhook.unit.group import Group
from modhook.unit.units import Units
from modhook.unit.weights import groups_of, on_weights, pooled
from modhook.values.arguments import instance, one_of, shown

if TYPE_CHECKING:
    import pandas as pd

_M = TypeVar("_M", bound=nn.Module)
_WHAT = "the masks"
_CPU = torch.device("cpu")


class Masks(Mapping[str, Tensor]):
    """Masks over parameters: `{name: bool tensor of the parameter's shape}`; True keeps the weight.

    What is handed out are copies: writing into `m["weight"]` does not change `m`. A tied weight is one parameter: with `model`,
    its mask is found under every one of its names, and counted once, under the first.

    Masks of units (`fit_masks(units=...)`) hold a tensor per group instead, (n,), True for a unit that is kept: a weight is kept if
    all of its units are. All that is said here of weights holds for units; `weights(model)` are the same as masks of weights.

    Args:
        masks: the tensors; they are copied to CPU bool tensors and never changed.
        units: groups of units whose masks are among them, such as another mask's `units`; masks of other names are of parameters.
        model: the network they belong to. Names and shapes are checked, and a fingerprint of its weights is kept, so that
            `load`, and set operations with another network's masks, can refuse later.

    Raises:
        MaskError: a tensor that is not boolean, or that does not fit `model`; two names of one tied parameter with different masks.
    """

    def __init__(
        self, masks: Mapping[str, Tensor], model: nn.Module | None = None, *, units: Mapping[str, Group] | None = None
    ) -> None:
        self._masks = copies(masks)
        self._tied: dict[str, str] = dict(masks._tied) if isinstance(masks, Masks) else {}
        self._device = _CPU
        self._model: weakref.ref[nn.Module] | None = masks._model if isinstance(masks, Masks) else None
        own = {**(masks._groups if isinstance(masks, Masks) else {}), **({} if units is None else groups_of(units))}
        self._groups: dict[str, Group] = {n: g for n, g in own.items() if n in self._masks}
        self.fingerprint: dict[str, str] | None = None
        if model is not None:
            instance("model", model, nn.Module, "an nn.Module")
            with using(model):
                self._fit(model)
                self._tied = tied_names(model)
                self._masks = one_per_parameter(self._masks, self._tied, _WHAT)
                self.fingerprint = fingerprint(model)
            self._model = remembered(model)

    # -- mapping

    def __getitem__(self, name: str) -> Tensor:
        if not isinstance(name, str) or name not in self:
            raise missing("there is no mask of", name, self._masks)
        return self._masks[self._tied.get(name, name)].to(self._device, copy=True)

    def __contains__(self, name: object) -> bool:
        return name in self._masks or (isinstance(name, str) and self._tied.get(name) in self._masks)

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __repr__(self) -> str:
        return f"Masks({len(self)} tensors, {self.kept()} of {self.size} {self.counted} kept, density {self.density:.4f})"

    def _repr_html_(self) -> str:
        return page(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Masks):
            return NotImplemented
        try:
            one, two = self._beside(other)
        except MaskError:
            return False
        return self._groups.keys() == other._groups.keys() and one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}  # copies, and other processes, do not know the network itself

    def __hash__(self) -> int:
        # Without names: equal masks may know a tied parameter by different ones.
        return hash(frozenset((m.shape, int(m.count_nonzero())) for m in self._masks.values()))

    # -- algebra

    def __invert__(self) -> Masks:
        return self._new({n: ~m for n, m in self._masks.items()})

    def __or__(self, other: Masks) -> Masks:
        return self._pairwise(other, torch.logical_or)

    def __and__(self, other: Masks) -> Masks:
        return self._pairwise(other, torch.logical_and)

    def __sub__(self, other: Masks) -> Masks:
        return self._pairwise(other, lambda a, b: a & ~b)

    def __xor__(self, other: Masks) -> Masks:
        return self._pairwise(other, torch.logical_xor)

    # -- units

    @property
    def units(self) -> Units | None:
        """The units that these masks are about, by group; None for masks of weights alone."""
        return Units(self._groups.values()) if self._groups else None

    @property
    def counted(self) -> str:
        """What these masks count: "weights", "units", or "units and weights"."""
        return "weights" if not self._groups else "units" if len(self._groups) == len(self) else "units and weights"

    def weights(self, model: nn.Module) -> Masks:
        """Return the same as masks of weights: of every parameter that units own weights of, a weight kept if all of its units are.

        Raises `MaskError` for masks that do not fit.
        """
        instance("model", model, nn.Module, "an nn.Module")
        return Masks(self._on(model), model)

    def like(self, masks: Mapping[str, Tensor]) -> Masks:
        """Return other masks over the same network, units included: {name: bool tensor}; of these names, all or some."""
        return self._new(masks)

    def pooled(self, values: Mapping[str, Tensor], how: str = "mean") -> dict[str, Tensor]:
        """Return a number per entry of these masks, {name: tensor of the mask's shape}, of numbers per weight, {parameter: (*shape)}.

        A weight's is its own; a unit's is the "mean" or the "sum" of those of its weights.
        """
        one_of("how", how, ("mean", "sum"))
        return {n: pooled(self._groups[n], values, how) if n in self._groups else values[n].detach() for n in self._masks}

    # -- counts

    @property
    def size(self) -> int:
        """Number of masked weights, or units, kept or not."""
        return sum(m.numel() for m in self._masks.values())

    @overload
    def kept(self, per_tensor: Literal[False] = False) -> int: ...
    @overload
    def kept(self, per_tensor: Literal[True]) -> dict[str, int]: ...
    def kept(self, per_tensor: bool = False) -> int | dict[str, int]:
        """Return the number of kept weights, in total or per tensor."""
        counts = {n: int(m.count_nonzero()) for n, m in self._masks.items()}
        return counts if per_tensor else sum(counts.values())

    @property
    def density(self) -> float:
        """Share of the masked weights that is kept, 0 to 1; NaN for masks over nothing."""
        return self.kept() / self.size if self.size else math.nan

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row per tensor: `parameter`, `module` (whose parameter it is), `kept`, `total`, `density` (NaN where total is 0)."""
        return frame(self)

    def by(self, level: Levels = "layer", *, model: nn.Module | None = None) -> pd.DataFrame:
        """Return `kept`, `total` and `density` for every module of a level, one row each, in the network's order.

        Args:
            level: "layer" (the first numbered module on a path, `encoder.layer.0`; what lies beside lists of these is one: `embeddings`),
                "part" (the path within a numbered layer, `attention.query`), "module" (whose parameter it is), "type" (of that module),
                "parameter"; a depth, 1 for the network's own modules; a function of a parameter's name that returns a label; or several.
            model: the network, where types are asked for; by default the one that the masks were made with, if it is still there.

        Raises `UserError` for another level, or types without a network. `modhook.iou(a, b, by=level)` compares two masks so.
        """
        return by(self, level, self._network(model))

    def heads(self, *, model: nn.Module | None = None) -> pd.DataFrame:
        """Return `kept`, `total` and `density` for every head of every attention: `module`, `head`, one row each.

        A head's weights are its rows of queries, keys and values and its columns of the output; keys and values that heads share
        (grouped queries) count for each of them. `modhook.masks.heads` says which attentions are found.

        Raises `UserError` without a network (see `by`), or without any such attention.
        """
        return heads(self, self._network(model))

    # -- parts

    def select(self, include: Selectors, exclude: Selectors = (), *, model: nn.Module | None = None) -> Masks:
        """Return the masks of some parameters only, of the same network.

        Args:
            include, exclude: patterns, paths of modules, modules, types or functions, as in `modhook.select`; a tied parameter is taken
                if any of its names matches `include` and none matches `exclude`.
            model: the network, where modules, types or functions choose; by default the one that the masks were made with, if it is
                still there.

        Raises:
            PatternError: what chooses no masked parameter, or nothing that is left. UserError: no network to choose in.
        """
        names = {n: (n, *(a for a, first in self._tied.items() if first == n)) for n in self._masks}
        names |= {n: (n, *g.home, *([g.module] if g.module else [])) for n, g in self._groups.items()}
        taken = chosen(names, include, exclude, self._network(model))
        return self._new({n: self._masks[n] for n in taken})

    def to(self, device: str | torch.device) -> Masks:
        """Return the same masks, whose tensors are handed out on `device`; masks are kept, saved and combined on the CPU.

        Raises `UserError` for a device that is not there.
        """
        result = self._new(self._masks)
        try:
            result._device = torch.empty(0, device=device).device
        except (RuntimeError, AssertionError, TypeError, ValueError) as error:
            why = str(error).partition("\n")[0]
            raise UserError(f"masks cannot be moved to device {shown(device)}: {why}") from error
        return result

    # -- files

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: a bool tensor per parameter; as metadata a checksum and the network's fingerprint."""
        instance("path", path, (str, Path), "a path")
        write(Path(path), self._masks, self.fingerprint, self._tied, tuple(self._groups.values()))

    @classmethod
    def load(cls, path: str | Path, model: nn.Module | None = None) -> Masks:
        """Read masks written by `save`.

        Args:
            path: the file.
            model: the network they are meant for; names, shapes and the values of all its parameters are compared with
                the network that the masks were made for.

        Raises:
            MaskError: no such file, not a mask file, a damaged file, or masks of another network (says which tensor differs).
        """
        tensors, known, tied, groups = load(path)
        masks = cls(tensors, units={g.name: g for g in groups})
        masks.fingerprint, masks._tied = known, tied
        return masks if model is None else masks._belonging(model, path)

    # -- use

    @contextlib.contextmanager
    def applied_to(self, model: _M, off: Off = None, *, seed: int = 0) -> Iterator[_M]:
        """Within `with masks.applied_to(model):` the masked weights of `model` are zero, or what `off` says.

        Args:
            model: the network that the masks belong to.
            off: what a weight becomes that is not kept: "zero" or None; "shuffled" or "redrawn" within its tensor, by `seed`; or
                that of a second network, given as it is or as {name: tensor} (see `modhook.masks.off`).
            seed: of what is shuffled or redrawn.

        Afterwards, also after an exception, the model is bit for bit what it was: every parameter and buffer has its very
        own storage and values back, and every submodule its attributes and its mode; what was written or set inside is
        lost, except gradients. Other threads that use the model through this library wait for the end of the block, and are
        refused if it does not come. Raises `MaskError` for masks that do not fit, `WeightsError` for such an `off`.
        """
        instance("model", model, nn.Module, "an nn.Module")
        with using(model, block=True), lent(model, self._names()), self._applied(model, off, seed):
            yield model

    def materialize(self, model: _M, off: Off = None, *, seed: int = 0) -> _M:
        """Return a plain deep copy of `model` whose masked weights are zero, or what `off` says; `model` is not changed.

        Args:
            model, off, seed: as in `applied_to`.

        Raises:
            MaskError: masks that do not fit. WeightsError: an `off` that does not. StackError: a model that cannot be copied.
        """
        instance("model", model, nn.Module, "an nn.Module")
        with using(model):
            return materialized(self._on(model), model, off, seed)

    # -- inside

    def _network(self, model: nn.Module | None) -> nn.Module | None:
        """Return the network that is given, or the one that these masks remember."""
        if model is None:
            return None if self._model is None else self._model()
        instance("model", model, nn.Module, "an nn.Module")
        self._fit(model)
        return model

    @contextlib.contextmanager
    def _applied(self, model: nn.Module, off: Off = None, seed: int = 0) -> Iterator[None]:
        with applied(self._on(model), model, off, seed):
            yield

    def _on(self, model: nn.Module) -> dict[str, Tensor]:
        """Return which weights are kept, by the first names of this network's parameters. Raises `MaskError` as `_of`."""
        own = self._of(model)
        if not own._groups:
            return own._masks
        parameters = dict(model.named_parameters(remove_duplicate=False))
        return on_weights(own._masks, own._groups, parameters)

    def _names(self) -> tuple[str, ...]:
        """Return the parameters that applying these masks replaces."""
        own = {n for g in self._groups.values() for n in g.parameters}
        return tuple(n for n in (*self._masks, *own) if n not in self._groups)

    def _new(self, masks: Mapping[str, Tensor]) -> Masks:
        result = Masks(masks, units=self._groups)
        result.fingerprint, result._tied, result._device = self.fingerprint, self._tied, self._device
        result._model = self._model
        return result

    def _pairwise(self, other: Masks, operation: Callable[[Tensor, Tensor], Tensor]) -> Masks:
        if not isinstance(other, Masks):
            return NotImplemented
        same_network(self, other)
        same_kind(self, other)
        one, two = self._beside(other)
        same_parameters(one, two)
        result = self._new({n: operation(m, two[n]) for n, m in one.items()})
        if result.fingerprint is None:
            result.fingerprint = other.fingerprint
        result._tied = {**other._tied, **self._tied}
        return result

    def _beside(self, other: Masks) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the tensors of both by names that mean the same in both, as far as either knows of tied parameters."""
        firsts = set(self._tied.values())
        tied = {**{n: first for n, first in other._tied.items() if n not in firsts}, **self._tied}
        return one_per_parameter(self._masks, tied, _WHAT), one_per_parameter(other._masks, tied, _WHAT)

    def _of(self, model: nn.Module) -> Masks:
        """Return these masks by the first names of this network's parameters.

        Raises `MaskError` for masks that do not fit, and for those of a network with other parameters, even if they would fit.
        """
        self._fit(model)
        if self.fingerprint is not None and (differs := other_parameters(self.fingerprint, model)):
            raise MaskError(
                f"the masks belong to another network than this {type(model).__name__}: {listing(differs, 3)}; Masks(dict(masks)) is the "
                "same without a network, if they are to be used here all the same."
            )
        tied = tied_names(model)
        if not tied and not self._tied:
            return self
        result = self._new(one_per_parameter(self._masks, tied, _WHAT))
        result._tied = tied
        return result

    def _belonging(self, model: nn.Module, path: str | Path) -> Masks:
        """Return masks read from a file as those of a network. Raises `MaskError` if they were made for another one."""
        self._fit(model, where=f" in {path}")
        if self.fingerprint is not None and (differs := differences(self.fingerprint, fingerprint(model))):
            raise MaskError(
                f"the masks in {path} were made for another network: {listing(differs, 5)}; "
                "load them with the network that they were learned on."
            )
        own = self._of(model)
        own._model = remembered(model)
        return own

    def _fit(self, model: nn.Module, where: str = "") -> None:
        check_fit(self._masks, self._groups, model, where)
