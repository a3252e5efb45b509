"""What is compared: every sampler and every ranking without training, with one setting each for all networks."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from modhook import Sampler
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

    @property
    def written(self) -> str:
        """The setting in words, which is also what a stored result belongs to."""
        own = attrs.asdict(self.options) if self.options is not None else {}
        return ", ".join(f"{k} {v:g}" if isinstance(v, float | int) else f"{k} {v}" for k, v in {**self.setting, **own}.items())


BATCH = 128
LEARNED = {"steps": 800, "lr": 0.05, "samples": 16}
SEEN = {"steps": 8}
"""Batches that rankings without training see."""

METHODS = {
    "hard_concrete": Method(HardConcrete, {**LEARNED, "beta": 0.3, "init": 3.0}),
    "gumbel": Method(Gumbel, {"steps": 2000, "lr": 0.01, "beta": 1e-4}),
    "gumbel_fast": Method(Gumbel, {**LEARNED, "beta": 1e-4, "init": 3.0}, asked="repair"),
    "gumbel_l0": Method(Gumbel, {**LEARNED, "beta": 0.3, "init": 3.0}, GumbelOptions(penalty="l0"), asked="repair"),
    "hard_concrete_binary": Method(HardConcrete, {**LEARNED, "beta": 0.3, "init": 3.0}, HardConcreteOptions(binary=True)),
    "continuous_sparsification": Method(ContinuousSparsification, {**LEARNED, "beta": 0.3}),
    "top_k": Method(TopK, {**LEARNED, "density": 0.05}),
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
