"""Whether masks belong together: of one network, over the same parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from modhook.errors import MaskError, listing
from modhook.masks.fingerprint import differences

if TYPE_CHECKING:
    from modhook.masks.masks import Masks


def same_network(a: Masks, b: Masks) -> None:
    """Raise `MaskError` for masks that are known to be of two networks."""
    if a.fingerprint and b.fingerprint and (differs := differences(a.fingerprint, b.fingerprint)):
        raise MaskError(
            f"the masks belong to two networks, whose weights do not correspond: {listing(differs, 5)}; "
            "Masks(dict(masks)) is the same without a network, if they are to be compared all the same."
        )


def same_kind(a: Masks, b: Masks) -> None:
    """Raise `MaskError` for masks of units beside masks of weights."""
    if set(a._groups) != set(b._groups) and (not a._groups or not b._groups):
        raise MaskError(
            f"one of the masks is over {a.counted}, the other over {b.counted}; compare masks.weights(model), the masks of weights."
        )


def same_parameters(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], names: tuple[str, str] = ("the first", "the second")
) -> None:
    """Raise `MaskError` unless both cover the same parameters with the same shapes; the message names them."""
    if missing := sorted(set(a) ^ set(b)):
        left, right = [n for n in missing if n in a], [n for n in missing if n in b]
        raise MaskError(
            f"the masks cover different parameters: only in {names[0]}: {listing(left)}; only in {names[1]}: {listing(right)}."
        )
    for name in a:
        if a[name].shape != b[name].shape:
            raise MaskError(
                f"the masks of {name!r} have different shapes, {tuple(a[name].shape)} and {tuple(b[name].shape)}."
            )
