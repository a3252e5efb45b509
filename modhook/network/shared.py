"""Marks arguments that all parameter sets see alike."""

from __future__ import annotations

from typing import Any

import attrs


@attrs.frozen
class Shared:
    """A tensor, or a tree of tensors, that every sample receives whole; made by `shared`."""

    value: Any


def shared(value: Any) -> Shared:
    """Mark a tensor (or a tree of tensors) as given to all K samples unchanged, without a leading K."""
    return value if isinstance(value, Shared) else Shared(value)


@attrs.frozen
class Kept:
    """Something that every sample receives as it is, the same object, and that is not looked into."""

    value: Any
