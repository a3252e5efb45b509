"""The units that `ask` was given, as a study can say them: kinds by name, others as they lie in memory."""

from __future__ import annotations

import hashlib
from typing import Any

import attrs
from torch import nn

from modhook.errors import UserError
from modhook.masks.granular import Masked, masked_by
from modhook.masks.select import DEFAULT_EXCLUDE
from modhook.network.threads import using
from modhook.plugin.offered import UnitGroups
from modhook.unit.find import levels_of
from modhook.unit.group import KINDS, written

GIVEN = "units in memory"
"""What those are called that no kind names; their hash follows, by which others are noticed."""


@attrs.frozen(eq=False)
class Over:
    """What masks are over.

    Attributes:
        named: what the study says, one by one. masked: the entries. offered: units that lie in memory.
    """

    named: tuple[str, ...]
    masked: Masked
    offered: UnitGroups | None = None


def spelled_units(model: nn.Module, units: Any, include: Any, exclude: Any) -> Over:
    """Return what masks are over. Raises `UserError`."""
    patterns = None if include == "*" else include, None if exclude is DEFAULT_EXCLUDE else exclude
    several = tuple(units) if isinstance(units, list | tuple) else (units,)
    with using(model):
        masked = masked_by(model, units, *patterns)
        if all(isinstance(one, str) for one in several):
            return Over(tuple(several), masked)
        own = [one for one in several if not isinstance(one, str)]
        groups = levels_of(model, own).groups
    if not groups:
        raise UserError(f"units must be kinds ({', '.join(KINDS)}) or units of the network, and there are none among those given.")
    text = written(groups)
    name = f"{GIVEN} {hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"
    return Over((name, *(one for one in several if isinstance(one, str))), masked, UnitGroups(name, text))
