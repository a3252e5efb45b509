"""Which weights belong to which functions: the exclusive and the shared parts of several masks, beside chance."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from modhook.errors import UserError, listing, near_miss
from modhook.masks.masks import Masks
from modhook.masks.overlap import Aligned, aligned
from modhook.values.arguments import shown

if TYPE_CHECKING:
    import xarray as xr

MOST = 10
"""So many functions have 1023 subsets; of more, the subsets must be named."""
_BITS = 62
_JOIN = " & "


def parts(
    masks: Mapping[str, Masks], subsets: Iterable[Iterable[str]] | None = None, *, on: str = "same"
) -> xr.Dataset:
    """Return how many weights each subset of functions has: kept by all of it and by no other, and kept by all of it.

    Chance is the expected number for independent, uniformly random masks that keep as many weights of each tensor as these do:
    with N weights in a tensor and densities d, N times the product of d over the subset, and for the exclusive part also times
    that of 1 - d over the other functions; over all weights, the sum over the tensors.

    Args:
        masks: {function: masks} of one network.
        subsets: which subsets, such as `[("add",), ("add", "mul")]`; by default all of them, for up to ten functions.
        on: "same": all masks must cover the same parameters; "common": parameters that not all of them cover are left out.

    Returns:
        Dataset over `subset` (labels such as "add & mul"), by the number of functions: `exclusive`, `shared`,
        `exclusive_chance`, `shared_chance`; the same per `parameter` as `parameter_exclusive`, ...; `member` (subset, function),
        bool; `degree`, how many functions a subset has; `kept` (function), `parameter_kept` (function, parameter), `size`
        (parameter). The exclusive parts of all subsets are disjoint: together they are the weights that any function keeps.

    Raises:
        UserError: more than ten functions without `subsets`, an unknown function in one, names that make two labels equal.
        MaskError: different parameters, masks of two networks.
    """
    import xarray as xr

    group = aligned(masks, on)
    member = _members(group.functions, subsets)  # (S, F) bool
    exclusive, shared = _counted(group, member)  # (S, P) each
    density = group.kept / np.maximum(group.size, 1)  # (F, P)
    inside = np.where(member[:, :, None], density, 1.0).prod(1)  # (S, P)
    outside = np.where(member[:, :, None], 1.0, 1 - density).prod(1)
    labels = [_JOIN.join(np.array(group.functions, dtype=object)[row]) for row in member]
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise UserError(f"two subsets would be called {twice!r}; give functions names without {_JOIN!r} in them.")
    values: dict[str, Any] = {"member": (("subset", "function"), member), "degree": ("subset", member.sum(1))}
    for name, each in (
        ("exclusive", exclusive),
        ("shared", shared),
        ("exclusive_chance", group.size * inside * outside),
        ("shared_chance", group.size * inside),
    ):
        values[name] = ("subset", each.sum(1))
        values[f"parameter_{name}"] = (("subset", "parameter"), each)
    return xr.Dataset(values | group.counts(), coords={"subset": labels, **group.coordinates()})


def _members(
    functions: tuple[str, ...], subsets: Iterable[Iterable[str]] | None
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which functions each subset has, (S, F), by their number; raises `UserError`."""
    if len(functions) > _BITS:
        raise UserError(f"parts takes at most {_BITS} functions, not {len(functions)}; choose among them.")
    if subsets is None:
        if len(functions) > MOST:
            raise UserError(
                f"{len(functions)} functions have {2 ** len(functions) - 1:,} subsets; name those that you ask about, "
                f"subsets=[({functions[0]!r}, {functions[1]!r}), ...], or give at most {MOST} functions."
            )
        degrees = range(1, len(functions) + 1)
        chosen: list[tuple[str, ...]] = [s for n in degrees for s in itertools.combinations(functions, n)]
    else:
        chosen = []
        for subset in subsets:
            names = (subset,) if isinstance(subset, str) else tuple(subset)
            if wrong := [n for n in names if n not in functions]:
                hint = near_miss(wrong[0], functions) if isinstance(wrong[0], str) else ""
                raise UserError(f"there is no function {shown(wrong[0])}{hint}; there are {listing(functions)}.")
            if not names:
                raise UserError("a subset names at least one function, and one of those given is empty.")
            chosen.append(names)
        if not chosen:
            raise UserError("subsets is empty; leave it out for all of them.")
    rows = dict.fromkeys(tuple(f in subset for f in functions) for subset in chosen)
    return np.array(sorted(rows, key=sum), dtype=bool)


def _counted(group: Aligned, member: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the exclusive and the shared weights of every subset in every tensor: (S, P) each."""
    bits = 1 << np.arange(len(group.functions), dtype=np.int64)  # (F,)
    wanted = member @ bits  # (S,)
    exclusive = np.zeros((len(wanted), len(group.parameters)), dtype=np.int64)
    shared = np.zeros_like(exclusive)
    for p, name in enumerate(group.parameters):
        code = np.zeros(int(group.size[p]), dtype=np.int64)  # (N_p,): which functions keep each weight
        for bit, masks in zip(bits, group.masks, strict=True):
            code += bit * masks[name].reshape(-1).numpy()
        codes, counts = np.unique(code, return_counts=True)
        for s, subset in enumerate(wanted):
            exclusive[s, p] = counts[codes == subset].sum()
            shared[s, p] = counts[(codes & subset) == subset].sum()
    return exclusive, shared
