"""What is compared: every sampler and every ranking without training, with one setting each for all networks."""

from __future__ import annotations

from typing import Any, Literal

import attrs
from variants import AntitheticGumbel

from modhook import Ranking, Sampler
from modhook.fit.usual import USUAL, Setting
from modhook_plugins.samplers.continuous_sparsification import ContinuousSparsification
from modhook_plugins.samplers.gumbel import Gumbel, GumbelOptions
from modhook_plugins.samplers.hard_concrete import HardConcrete, HardConcreteOptions
from modhook_plugins.samplers.rankings import GradientWeight, IntegratedGradients, Magnitude, Snip
from modhook_plugins.samplers.top_k import TopK


@attrs.frozen
class Method:
    """A sampler with its setting: `options` are the sampler's, `setting` holds arguments of `fit_masks`.

    `asked` says which question it is in: `table`, or one of the questions about gumbel (`repair`).
    """

    sampler: type[Sampler]
    setting: dict[str, Any]
    options: Any = None
    asked: Literal["table", "repair"] = "table"
    within: float = 0.005
    """The share of the accuracy that the cut may lose, on the held-out items that choose it."""
    averaged: bool = False
    """Whether the ranking is by the mean of the late logits."""
    usual: bool = False
    """Whether it is `fit_masks` with nothing but batches and a loss, whose masks are cut by the loss, on batches that are learned from."""
    first: type[Ranking] | None = None
    """A ranking without training, whose own cut the masks are learned among."""

    @property
    def family(self) -> str:
        """The sampler whose setting this is: the first name of it in the table."""
        kinds = self.sampler.__mro__
        return next(name for name, method in METHODS.items() if method.sampler in kinds and method.options_kind == self.options_kind)

    @property
    def options_kind(self) -> bool:
        """Whether masks are binary where the sampler leaves the choice: then it is another method."""
        return bool(getattr(self.options, "binary", False))

    @property
    def written(self) -> str:
        """The setting in words, which is also what a stored result belongs to."""
        if self.usual:
            known = ((f.name, getattr(USUAL, f.name)) for f in attrs.fields(Setting) if f.name != "sampler")
            return ", ".join(f"{k} {v:g}" if isinstance(v, float | int) else f"{k} {v}" for k, v in known if v is not None)
        own = attrs.asdict(self.options) if self.options is not None else {}
        own.pop("kernel", None)  # the same masks, computed by other code
        if self.first is not None:
            own["among"] = self.first.__name__
        if self.averaged:
            own["averaged"] = "late"
        if self.within != 0.005:
            own["within"] = self.within
        return ", ".join(f"{k} {v:g}" if isinstance(v, float | int) else f"{k} {v}" for k, v in {**self.setting, **own}.items())


BATCH = 128
LEARNED = {"steps": 800, "lr": 0.05, "samples": 16}
RISING = {"steps": 400, "lr": 0.1, "samples": 16, "beta": 3.0, "beta_start": 0.003, "init": 3.0}
SEEN = {"steps": 8}
"""Batches that rankings without training see."""

METHODS = {
    "hard_concrete": Method(HardConcrete, RISING, first=IntegratedGradients, within=0.001),
    "defaults": Method(HardConcrete, {}, usual=True),
    "hard_concrete_alone": Method(HardConcrete, RISING),
    "hard_concrete_level": Method(HardConcrete, {**LEARNED, "beta": 0.3, "init": 3.0}),
    "gumbel": Method(Gumbel, {"steps": 2000, "lr": 0.01, "beta": 1e-4}),
    "gumbel_fast": Method(Gumbel, {**LEARNED, "beta": 1e-4, "init": 3.0}, asked="repair"),
    "gumbel_l0": Method(Gumbel, {**LEARNED, "beta": 0.3, "init": 3.0}, GumbelOptions(penalty="l0"), asked="repair"),
    "gumbel_rising": Method(Gumbel, RISING, GumbelOptions(penalty="l0"), asked="repair"),
    "gumbel_antithetic": Method(AntitheticGumbel, RISING, GumbelOptions(penalty="l0"), asked="repair"),
    "gumbel_averaged": Method(Gumbel, RISING, GumbelOptions(penalty="l0"), asked="repair", averaged=True),
    "gumbel_among": Method(
        Gumbel, RISING, GumbelOptions(penalty="l0"), asked="repair", first=IntegratedGradients, within=0.001
    ),
    "hard_concrete_binary": Method(HardConcrete, {**LEARNED, "beta": 0.3, "init": 3.0}, HardConcreteOptions(binary=True)),
    "hard_concrete_binary_rising": Method(HardConcrete, RISING, HardConcreteOptions(binary=True)),
    "continuous_sparsification": Method(ContinuousSparsification, {**LEARNED, "beta": 0.3}),
    "continuous_sparsification_rising": Method(ContinuousSparsification, {k: v for k, v in RISING.items() if k != "init"}),
    "top_k": Method(TopK, {**LEARNED, "density": 0.05}),
    "top_k_larger": Method(TopK, {**LEARNED, "density": 0.25}),
    "integrated_gradients": Method(IntegratedGradients, SEEN),
    "gradient_weight": Method(GradientWeight, SEEN),
    "snip": Method(Snip, SEEN),
    "magnitude": Method(Magnitude, SEEN),
}
"""By the names that the table uses; the first is the one that must reach the goals."""

COMPILED = ("frac_prevs", "hist", "reverse", "sort")
PAIRS = ("frac_prevs+hist", "frac_prevs+reverse", "hist+reverse")
NOISY = ("frac_prevs+hist-small_noise", "frac_prevs+hist-large_noise")
HIDDEN = ("frac_prevs+hist-hidden", "frac_prevs+reverse-hidden")
WELDED = ("welded_fnn", "welded_cnn", "welded_lstm", "welded_transformer")
SUPERPOSED = ("superposed_5_2", "superposed_40_10")
CONTROLLED = ("frac_prevs+hist", "welded_fnn", "welded_cnn")
CONTROLS = tuple(f"{name}/{kind}" for name in CONTROLLED for kind in ("untrained", "shuffled", "permuted"))
KINDS = {
    "compiled": COMPILED,
    "pairs": PAIRS,
    "noisy": NOISY,
    "hidden": HIDDEN,
    "welded": WELDED,
    "superposed": SUPERPOSED,
    "nothing": CONTROLS,
}
"""The networks of each kind, in the table's order."""
MOST_FUNCTIONS = 2
"""Of a network that are asked for; in a control, one."""
SEEDS = 5


def kind_of(network: str) -> str:
    """Return the kind of a network."""
    return next(kind for kind, names in KINDS.items() if network in names)
