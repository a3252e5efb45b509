"""How much masks have in common: of two, of every two of many, and what chance alone would give."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, overload

import attrs
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from modhook.errors import MaskError, UserError, listing
from modhook.masks import chance
from modhook.masks.levels import Levels, compared
from modhook.masks.masks import Masks
from modhook.masks.names import one_per_parameter
from modhook.masks.same import same_kind, same_network, same_parameters
from modhook.values.arguments import instance, one_of, shown

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from torch import nn

Array = NDArray[np.float64]
ON = ("same", "common")


@overload
def iou(a: Masks, b: Masks, *, on: str = "same") -> float: ...
@overload
def iou(a: Masks, b: Masks, *, on: str = "same", by: Levels, model: nn.Module | None = None) -> pd.DataFrame: ...
def iou(
    a: Masks, b: Masks, *, on: str = "same", by: Levels | None = None, model: nn.Module | None = None
) -> float | pd.DataFrame:
    """Return |A and B| / |A or B| over all weights; NaN if both keep nothing.

    Args:
        a, b: two masks of one network.
        on: "same": both must cover the same parameters; "common": parameters that only one of them covers are left out.
        by: a level of `Masks.by`: a table instead, one row per module, with `intersection`, `union`, `iou`, and `iou_chance`, the exact
            expectation for random masks that keep as many weights of each tensor (`modhook.chance`).
        model: the network, where types of modules are asked for (see `Masks.by`).

    Raises:
        MaskError: different parameters (or none in common), or masks of two networks. UserError: another level.
    """
    a, b = _both(a, b, on)
    if by is not None:
        return compared(a, b, by, a._network(model) or b._network(model))
    return _ratio((a & b).kept(), (a | b).kept())


def iomin(a: Masks, b: Masks, *, on: str = "same") -> float:
    """Return |A and B| / min(|A|, |B|), the paper's subsetness; NaN if either keeps nothing. Arguments and errors as in `iou`."""
    a, b = _both(a, b, on)
    return _ratio((a & b).kept(), min(a.kept(), b.kept()))


def overlaps(masks: Mapping[str, Masks], *, on: str = "same") -> xr.Dataset:
    """Return the overlap of every two of several functions' masks, beside what chance would give.

    Chance is the exact expectation for independent, uniformly random masks that keep as many weights of each tensor as these
    do (`modhook.chance`); `iomin_chance` is that of the intersection, over the smaller size. A mask is not independent of
    itself: there chance is NaN.

    Args:
        masks: {function: masks} of one network.
        on: as in `iou`; "common" leaves out parameters that not all of them cover.

    Returns:
        Dataset over `function` and `other`: `intersection` (weights that both keep), `iou`, `iomin`, `iou_chance`,
        `iomin_chance`; the same per `parameter` as `parameter_intersection`, ...; `kept` (function), `parameter_kept`
        (function, parameter) and `size` (parameter). Ratios whose denominator is 0 are NaN.

    Raises:
        MaskError, UserError: no masks, different parameters, masks of two networks.
    """
    import xarray as xr

    group = aligned(masks, on)
    size, kept = group.size, group.kept
    count, tensors = kept.shape
    pairs, there = list(itertools.combinations(range(count), 2)), np.flatnonzero(size)
    both = np.zeros((count, count, tensors))  # (F, F, P)
    for p, name in enumerate(group.parameters):
        flat = np.stack([m[name].reshape(-1).numpy() for m in group.masks])  # (F, N_p)
        for i, j in pairs:
            both[i, j, p] = both[j, i, p] = int((flat[i] & flat[j]).sum())
    both[np.arange(count), np.arange(count)] = kept
    iou_chance, whole_chance = np.full(both.shape, np.nan), np.full((count, count), np.nan)
    for i, j in pairs:
        sizes = [(int(size[p]), int(kept[i, p]), int(kept[j, p])) for p in there]
        laws = [chance.shared(*s) for s in sizes]
        each = [law.iou(a, b) for law, (_, a, b) in zip(laws, sizes, strict=True)]
        iou_chance[i, j, there] = iou_chance[j, i, there] = each
        if laws:
            found = chance.total(laws).iou(int(kept[i].sum()), int(kept[j].sum()))
            whole_chance[i, j] = whole_chance[j, i] = found
    expected = kept[:, None] * kept[None] / np.maximum(size, 1)  # (F, F, P): the mean of a hypergeometric number
    expected[np.arange(count), np.arange(count)] = np.nan
    dims_each = ("function", "other", "parameter")
    values: dict[str, Any] = {}
    for before, dims, k, common, mean, by_chance in (
        ("", dims_each[:2], kept.sum(-1), both.sum(-1), expected.sum(-1), whole_chance),
        ("parameter_", dims_each, kept, both, expected, iou_chance),
    ):
        left, right = k[:, None], k[None]
        values |= {
            f"{before}intersection": (dims, common.astype(np.int64)),
            f"{before}iou": (dims, ratio(common, left + right - common)),
            f"{before}iomin": (dims, ratio(common, np.minimum(left, right))),
            f"{before}iou_chance": (dims, by_chance),
            f"{before}iomin_chance": (dims, ratio(mean, np.minimum(left, right))),
        }
    values |= group.counts()
    return xr.Dataset(values, coords={"other": list(group.functions), **group.coordinates()})


@attrs.frozen
class Aligned:
    """Masks of several functions over the same parameters, in one order.

    Attributes:
        functions: their names, F of them.
        masks: {parameter: bool tensor} of each.
        parameters: P names.
        size: weights of each tensor: (P,).
        kept: weights that each function keeps of it: (F, P).
    """

    functions: tuple[str, ...]
    masks: tuple[dict[str, Tensor], ...]
    parameters: tuple[str, ...]
    size: Array
    kept: Array

    def coordinates(self) -> dict[str, list[str]]:
        """Return the labels of functions and parameters."""
        return {"function": list(self.functions), "parameter": list(self.parameters)}

    def counts(self) -> dict[str, Any]:
        """Return the variables that say how many weights each function keeps, and of how many."""
        return {
            "kept": ("function", self.kept.sum(-1).astype(np.int64)),
            "parameter_kept": (("function", "parameter"), self.kept.astype(np.int64)),
            "size": ("parameter", self.size.astype(np.int64)),
        }


def aligned(masks: Mapping[str, Masks], on: str) -> Aligned:
    """Return masks over the same parameters under the same names. Raises `UserError`, `MaskError`."""
    one_of("on", on, ON)
    given: Any = masks
    if not isinstance(given, Mapping) or isinstance(given, Masks) or not given:
        what = "nothing" if isinstance(given, dict) else shown(given)
        raise UserError(f"give the masks as {{function: masks}}, such as {{'add': fit.masks}}, not {what}.")
    for name, one in masks.items():
        instance("the name of a function", name, str, "a text")
        instance(f"masks[{name!r}]", one, Masks, "a modhook.Masks")
    functions, every = tuple(masks), tuple(masks.values())
    tied: dict[str, str] = {}
    for one in every:
        same_network(next((m for m in every if m.fingerprint), one), one)
        same_kind(every[0], one)
        firsts = set(tied.values())
        tied |= {n: first for n, first in one._tied.items() if n not in firsts and n not in tied}
    found = [one_per_parameter(m._masks, tied, "the masks") for m in every]
    parameters = [n for n in found[0] if on == "same" or all(n in other for other in found)]
    if on == "common":
        if not parameters:
            raise MaskError(
                "the masks have no parameter in common: "
                + "; ".join(f"{name!r} covers {listing(m, 5)}" for name, m in zip(functions, found, strict=True))
                + "."
            )
        found = [{n: m[n] for n in parameters} for m in found]
    for name, other in zip(functions[1:], found[1:], strict=True):
        same_parameters(found[0], other, (repr(functions[0]), repr(name)))
    size = np.array([found[0][n].numel() for n in parameters], dtype=np.float64)
    kept = np.array([[int(m[n].sum()) for n in parameters] for m in found], dtype=np.float64)
    return Aligned(functions, tuple(found), tuple(parameters), size, kept.reshape(len(functions), len(parameters)))


def ratio(part: Array, whole: Array) -> Array:
    """Return part / whole, NaN where the whole is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, np.divide(part, whole), np.nan)


def _both(a: Masks, b: Masks, on: str) -> tuple[Masks, Masks]:
    one_of("on", on, ON)
    for name, masks in (("a", a), ("b", b)):
        instance(name, masks, Masks, "a modhook.Masks")
    if on == "same":
        return a, b
    same_kind(a, b)
    one, two = a._beside(b)
    names = [n for n in one if n in two]
    if not names:
        raise MaskError(
            f"the masks have no parameter in common: the first covers {listing(one, 5)}; the second covers {listing(two, 5)}."
        )
    return a._new({n: one[n] for n in names}), b._new({n: two[n] for n in names})


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
