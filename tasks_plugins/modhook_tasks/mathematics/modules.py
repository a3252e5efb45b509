"""The modules of the DeepMind mathematics dataset, by their official names; the paper used five of them.

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


# All 56 of version 1.0, by area.
_NAMES = {
    "algebra": "linear_1d linear_1d_composed linear_2d linear_2d_composed polynomial_roots polynomial_roots_composed "
    "sequence_next_term sequence_nth_term",
    "arithmetic": "add_or_sub add_or_sub_in_base add_sub_multiple div mixed mul mul_div_multiple nearest_integer_root "
    "simplify_surd",
    "calculus": "differentiate differentiate_composed",
    "comparison": "closest closest_composed kth_biggest kth_biggest_composed pair pair_composed sort sort_composed",
    "measurement": "conversion time",
    "numbers": "base_conversion div_remainder div_remainder_composed gcd gcd_composed is_factor is_factor_composed is_prime "
    "is_prime_composed lcm lcm_composed list_prime_factors list_prime_factors_composed place_value place_value_composed "
    "round_number round_number_composed",
    "polynomials": "add coefficient_named collect compose evaluate evaluate_composed expand simplify_power",
    "probability": "swr_p_level_set swr_p_sequence",
}
# The extrapolation files: of which module, and what is appended to its name.
_HARDER = {
    "_big": "polynomial_roots add_or_sub div mul place_value round_number",
    "_longer": "add_sub_multiple mixed mul_div_multiple",
    "_more": "closest kth_biggest sort",
    "_more_samples": "swr_p_level_set swr_p_sequence",
    "": "conversion",
}
_HARDER_OF = {name: name + ending for ending, names in _HARDER.items() for name in names.split()}

MODULES = {name: Module(area, name, _HARDER_OF.get(name)) for area, names in _NAMES.items() for name in names.split()}
"""Modules by the name that a study gives."""


def short(name: str) -> str:
    """Return a module's name without its area, as the official files have it: `algebra__linear_1d` is `linear_1d`."""
    area, _, rest = name.partition("__")
    return rest if area in _NAMES and rest in _NAMES[area].split() else name
