"""`masks.units`: what a study's masks are over; as in `modhook.unit`, which needs torch."""

from __future__ import annotations

from typing import Any

from modhook.errors import near_miss
from modhook.plugin.manager import Plugins
from modhook.plugin.offered import offered_units
from modhook.study.problems import Problems
from modhook.study.sections import MasksSection
from modhook.values.text import written

KINDS = ("weight", "neuron", "channel", "head", "block", "layer")


def kinds(masks: MasksSection) -> tuple[str, ...]:
    """Return what the masks are over, one by one."""
    return (masks.units,) if isinstance(masks.units, str) else tuple(masks.units)


def over_weights(masks: MasksSection) -> bool:
    """Return whether masks are over weights alone, as they are by default."""
    return kinds(masks) == ("weight",)


def check_units(masks: MasksSection, protocol: Any, name: str, plugins: Plugins, problems: Problems) -> None:
    """Note kinds that there are not, and a protocol that goes from weight to weight."""
    given = kinds(masks)
    for n, one in enumerate(given):
        path = ("masks", "units") if isinstance(masks.units, str) else ("masks", "units", n)
        if one in given[:n]:
            problems.add(path, f"{written(one)} is there already")
        elif one not in KINDS and offered_units(one) is None and not plugins.is_code("units", one):
            hint = near_miss(one, KINDS) or f"; valid are {', '.join(KINDS)}, or 'file.py:function', a function of the network"
            problems.add(path, f"there are no units {written(one)}{hint}")
    if protocol is not None and protocol.weights_per_stage and not over_weights(masks):
        problems.add(("masks", "units"), f"the protocol {name!r} goes from weight to weight; leave it out")


