"""The sections of a study file, one frozen class each: every key is declared here once, with its type and bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import attrs
from annotated_types import Ge, Gt, Le, Lt, MinLen

from modhook.values.bounds import PLAIN_NAME, Count, CountOrZero, Matches, NotNegative, Positive

Share = Annotated[float, Gt(0), Le(1)]
Decay = Annotated[float, Ge(0), Lt(1)]
Name = Annotated[str, MinLen(1)]
MOST_SEEDS = 10_000
Device = Annotated[str, Matches(r"[a-z]+(:\d+)?", "a device such as cpu, cuda or cuda:1")]


def _off(value: float | None) -> float | None:
    return value or None


@attrs.frozen
class StudySection:
    """`[study]`: its name, which names the cube, and how many seeds (1, 2, ...) it runs."""

    name: Annotated[str, PLAIN_NAME]
    seeds: Annotated[int, Ge(1), Le(MOST_SEEDS)] = 1
    protocol: Name = "posthoc"
    description: str = ""


@attrs.frozen
class TrainSection:
    """`[train]`: base training, or the weights to load instead of it.

    `steps` may be left out or 0 only with `weights`, a file of safetensors or of a torch state dict, relative to the
    study file; then nothing is trained. `"base-{seed}.safetensors"` names one file per seed, and a setting of the run in
    braces, such as `{model.hidden}`, one per value. `clip` is the largest global gradient norm; `clip = 0` switches clipping off
    (None here). The learning rate rises linearly for `warmup` steps and is multiplied by `decay` at every step of
    `decay_at`; `schedule = "transformer"` multiplies it by the factor of `modhook.steps.optim.learning_rate` instead.
    `validate_every = 0` never validates. `betas` and `eps` are Adam's, `momentum` is SGD's.
    """

    steps: CountOrZero = 0
    batch: Count = 128
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: Positive = 1e-3
    weight_decay: NotNegative = 0.0
    momentum: Decay = 0.9
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: Positive = 1e-8
    clip: NotNegative | None = attrs.field(default=1.0, converter=_off)
    warmup: CountOrZero = 0
    decay_at: tuple[Count, ...] = ()
    decay: Annotated[float, Gt(0), Le(1)] = 0.1
    schedule: Literal["steps", "transformer"] = "steps"
    validate_every: CountOrZero = 1000
    eval_batch: Count = 1000
    weights: Name | None = None


@attrs.frozen
class Cut:
    """`masks.cut`: masks of another size than the sampler's threshold gives, cut through the ranking of the logits.

    Either `density`, the share of the learned weights to keep, or `within`, the share of the unmasked network's score that may be
    lost: then the smallest such mask, by `metric` (the task's first unless given) on `split` (unless given: the split that is
    called like the stage, or else the task's first).
    """

    density: Share | None = None
    within: Annotated[float, Ge(0), Lt(1)] | None = None
    split: Name | None = None
    metric: Name | None = None

    def measured_by(self, stage: str, splits: Sequence[str], metrics: Sequence[str]) -> tuple[str, str]:
        """Return the split and the metric that measure a stage's masks, given those of the task."""
        own = stage if stage in splits else splits[0]
        return self.split or own, self.metric or metrics[0]


@attrs.frozen
class MasksSection:
    """`[masks]`: how each stage's mask is learned.

    `samples` is K, the number of masks drawn per step; the batch must be divisible by it. `include` and `exclude` are
    patterns over parameter names, or paths of modules; None means the defaults (`*`, and `*bias*` taken out), which may match
    nothing, while
    a given pattern that matches nothing is an error. `batch` and `clip` are those of `[train]` unless given; `clip = 0`
    switches clipping off. The regulariser is `beta / reg_batch` per logit; `reg_batch` is `[train] batch` unless given.
    With `beta_start`, beta rises from it in the first step to `beta` in the last. With `relative_beta` both count in what the network
    saves on its loss by the learned weights (see `fit_masks`); a control's pull counts in what its stage's network saves.
    `among` names a ranking without training (`integrated_gradients`): masks are learned among the weights that its smallest cut keeps
    which loses no more than 0.003 of what the network saves on its loss, on training batches.
    `scale_regulariser` multiplies it, per parameter, by the parameter's share of the gradient norms (see `fit_masks`).
    `init` is where all logits start; by default where the sampler starts them (`gumbel`: 2).
    `clip_over` says what the norm covers: `logits`, or `all` as in the reference, with the frozen weights (see `fit_masks`).
    `mode` is the network's while masks are learned: `eval`, without dropout; `dropout`, with it, batch norm still by its
    frozen statistics; `train`, with it, and batch norm by each group of the batch. The frozen statistics never change.
    `density` holds the expected share of kept weights instead of pulling by `beta`, and masks are cut to it; `cut` says which cut
    through the ranking the masks are: the sampler's own threshold, or `{ density = ... }`, or `{ within = ... }`.
    `off` says what a weight becomes that is not kept, while masks are learned and wherever they are measured: `zero`; `shuffled` or
    `redrawn` within its tensor, by the run's seed; or that in a file of weights, named as `[train] weights` is.
    `units` is what has a mask: `weight`, `neuron`, `channel`, `head`, `block`, `layer` (see `modhook.units`), a function of the network
    that returns a mapping, `file.py:function`, or a list of these, whose masks multiply. Counts and densities are then of units.
    `stop = "settled"` ends a stage when its mask no longer changes (see `fit_masks`); `steps` is then the most.
    """

    steps: Count
    samples: Count = 4
    beta: NotNegative = 1e-4
    beta_start: Positive | None = None
    relative_beta: bool = False
    among: Name | None = None
    lr: Positive = 1e-2
    init: float | None = None
    batch: Count | None = None
    clip: NotNegative | None = None
    clip_over: Literal["logits", "all"] = "logits"
    warmup: CountOrZero = 0
    include: Annotated[tuple[Name, ...], MinLen(1)] | None = None
    exclude: tuple[Name, ...] | None = None
    units: Name | Annotated[tuple[Name, ...], MinLen(1)] = "weight"
    sampler: Name = "gumbel"
    executor: Literal["auto", "fastest", "vmap", "loop"] = "auto"
    logits_dtype: Literal["float16", "float32"] = "float16"
    validate_every: CountOrZero = 0
    reg_batch: Count | None = None
    scale_regulariser: bool = False
    mode: Literal["eval", "dropout", "train"] = "eval"
    density: Share | None = None
    cut: Literal["threshold"] | Cut = "threshold"
    off: Name = "zero"
    stop: Literal["settled"] | None = None


@attrs.frozen
class RunSection:
    """`[run]`: where it runs. `threads` is per worker; None means all cores. More threads than cores are used, because results
    depend on their number, but are slow, and said so.

    A checkpoint is written every `checkpoint_every` seconds; 0 means after every step. `trackers` are told how the runs go.
    `together` is how many runs one process learns the masks of at once, with the numbers of one by one: `auto` takes small networks on
    CPU together, `true` up to 8 runs, `false` none.
    """

    threads: Annotated[int, Ge(1), Le(1024)] | None = None
    device: Device = "cpu"
    checkpoint_every: NotNegative = 300.0
    trackers: tuple[Name, ...] = ("progress",)
    together: Literal["auto"] | bool | Annotated[int, Ge(1), Le(64)] = "auto"
