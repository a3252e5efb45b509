"""What `fit_masks` was asked for: its arguments, checked before anything runs, with the defaults of the setting that they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from torch import Tensor, nn

from modhook.fit.arguments import bytes_of
from modhook.fit.filed import file_of
from modhook.fit.first import ranking_of, relative
from modhook.fit.losses import Loss
from modhook.fit.pull import refuse_start
from modhook.fit.usual import GUMBEL, USUAL, Setting, says_how
from modhook.masks import Masks
from modhook.masks.off import Off
from modhook.masks.select import DEFAULT_EXCLUDE
from modhook.masks.selectors import Selectors, selectors_of, words
from modhook.plugin.contract import CarriedGradients
from modhook.plugin.interfaces import Ranking, Sampler, Tracker
from modhook.stacked import EXECUTORS
from modhook.steps.optim import MakeOptimizer
from modhook.unit.find import UnitsLike
from modhook.values.arguments import batches_of, checked, function, instance, one_of, optional
from modhook.values.bounds import Count, CountOrZero, NotNegative, Positive

if TYPE_CHECKING:
    from modhook.fit.engine import MaskTrainer

STOPS = ("settled",)
_LEFT = ("model", "batches", "progress", "callback", "checkpoint", "checkpoint_every", "within", "score", "valid")


@attrs.frozen(eq=False, kw_only=True)
class Asked:
    """The arguments of `modhook.fit_masks` by their names, and what follows from them whatever the network is.

    None is left where the network or its first batch decides.

    Attributes:
        usual: the setting whose defaults are taken.
        among: the masks that were given. ranking: what makes them, if that was given instead.
        checkpoint: the file, as an absolute path.
    """

    model: nn.Module
    batches: Iterable[Any]
    loss: Loss
    samples: int | None
    steps: int
    lr: float
    beta: float | None
    beta_start: float | None
    relative_beta: bool | float
    init: float | Mapping[str, Tensor] | None
    include: Selectors
    exclude: Selectors
    units: UnitsLike
    sampler: str | Sampler
    density: float | Mapping[str, float] | None
    within: float | None
    score: Callable[[nn.Module, Any], Any] | None
    valid: Iterable[Any] | None
    fixed: Masks | None
    among: Masks | None
    off: Off
    train_weights: Mapping[str, Tensor] | None
    optimizer: str | MakeOptimizer
    clip: float | None
    clip_over: str
    carried: CarriedGradients | None
    warmup: int
    reg_batch: int | None
    scale_regulariser: bool
    executor: str
    memory: int | str | None
    seed: int
    label: str
    reference: Masks | None
    progress: bool | Tracker
    callback: Callable[[int, MaskTrainer], object] | None
    stop: str | None
    checkpoint: Path | None
    checkpoint_every: float
    usual: Setting
    ranking: Ranking | None

    @property
    def shown(self) -> bool:
        """Whether a bar, or nothing, shows how far learning is, and no tracker of the caller's."""
        return not isinstance(self.progress, Tracker)

    @property
    def by_default(self) -> bool:
        """Whether the default patterns choose what is masked."""
        every = self.include in ("*", ("*",), ["*"])
        return every and self.exclude in (DEFAULT_EXCLUDE, list(DEFAULT_EXCLUDE), *DEFAULT_EXCLUDE)

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two calls the same, for a checkpoint: the arguments that learning depends on, patterns as words."""
        found = {f.name: getattr(self, f.name) for f in attrs.fields(Asked) if f.name not in (*_LEFT, "usual", "ranking")}
        return found | _words(self.include, self.exclude)


def asked_of(given: Mapping[str, Any]) -> Asked:
    """Return the arguments of `fit_masks`, {name: value}, as they are used. Raises `UserError`, `PluginError`."""
    usual = GUMBEL if says_how(given) else USUAL
    said: dict[str, Any] = {**given, "usual": usual}
    for name in ("sampler", "steps", "lr", "beta", "beta_start", "among"):
        if said[name] is None:
            said[name] = getattr(usual, name)
    said["relative_beta"] = relative(said["relative_beta"]) or usual.relative_beta
    for name, bound in (("samples", Count), ("beta", NotNegative), ("beta_start", Positive), ("clip", NotNegative), ("reg_batch", Count)):
        said[name] = optional(name, said[name], bound)
    for name, kind in _ALWAYS.items():
        said[name] = checked(name, said[name], kind)
    one_of("executor", said["executor"], EXECUTORS)
    if said["stop"] is not None:
        one_of("stop", said["stop"], STOPS)
    refuse_start(said["beta_start"], said["beta"], said["density"], said["stop"])
    instance("model", said["model"], nn.Module, "an nn.Module")
    instance("label", said["label"], str, "a text")
    function("loss", said["loss"], "loss(net, batch)")
    if said["callback"] is not None:
        function("callback", said["callback"], "callback(step, trainer)")
    batches_of("batches", said["batches"])
    _words(said["include"], said["exclude"])
    said["among"], said["ranking"] = ranking_of(said["among"])
    for name in ("fixed", "reference"):
        if said[name] is not None:
            instance(name, said[name], Masks, "a modhook.Masks")
    if said["carried"] is not None:
        instance("carried", said["carried"], CarriedGradients, "the CarriedGradients of an earlier fit (`fit.carried`)")
    bytes_of(said["memory"])
    said["checkpoint"] = file_of(said["checkpoint"])
    return Asked(**said)


_ALWAYS: dict[str, Any] = {
    "steps": Count,
    "lr": Positive,
    "warmup": CountOrZero,
    "seed": int,
    "scale_regulariser": bool,
    "checkpoint_every": NotNegative,
}
"""What arguments are that are never None."""


def _words(include: Selectors, exclude: Selectors) -> dict[str, Any]:
    """Return what chooses parameters as words, where it is no text. Raises `UserError`."""
    return {n: words(selectors_of(n, v)) for n, v in (("include", include), ("exclude", exclude)) if not isinstance(v, str)}
