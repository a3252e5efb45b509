"""The five modules of the DeepMind mathematics dataset that the paper used, by their official names.

Source: Saxton et al. (2019), "Analysing Mathematical Reasoning Abilities of Neural Models", version 1.0 of the data.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

TRAIN = ("train-easy", "train-medium", "train-hard")
SETS = (*TRAIN, "interpolate", "extrapolate")
"""The official folders, in the order in which a repeated question is kept: where it comes first."""


@attrs.frozen
class Module:
    """One module: its area, its name there, and the name of its extrapolation file, if it has one."""

    area: str
    name: str
    harder: str | None = None

    @property
    def files(self) -> Mapping[str, str]:
        """Return {set: path of its text file in the official folder}."""
        names = dict.fromkeys(SETS, self.name) | {"extrapolate": self.harder}
        return {found: f"{found}/{self.area}__{name}.txt" for found, name in names.items() if name}


MODULES = {
    module.name: module
    for module in (
        Module("arithmetic", "add_or_sub", harder="add_or_sub_big"),
        Module("algebra", "linear_1d"),
        Module("calculus", "differentiate"),
        Module("comparison", "sort", harder="sort_more"),
        Module("polynomials", "collect"),
    )
}
"""Modules by the name that a study gives."""
