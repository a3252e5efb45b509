"""Every study file against the published numbers, written here once more; and its smaller variants."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from modhook.study import MasksSection, Study, TrainSection, check, load, points

STUDIES = Path(__file__).parents[2] / "studies"

COMMON = {
    "study.seeds": 10,
    "study.protocol": "posthoc",
    "train.steps": 20_000,
    "train.batch": 128,
    "train.optimizer": "adam",
    "train.lr": 1e-3,
    "train.weight_decay": 0.0,
    "train.clip": 1.0,
    "train.warmup": 0,
    "train.decay_at": (),
    "masks.steps": 20_000,
    "masks.samples": 4,
    "masks.lr": 1e-2,
    "masks.sampler": "gumbel",
    "masks.init": None,  # the sampler's own, 2: tests/protocols/test_start.py
    "masks.batch": None,
    "masks.exclude": ("*bias*",),
    "masks.clip_over": "all",
}
ADDMUL = {**COMMON, "task.name": "addmul", "task.train_size": 1_000_000, "task.valid_size": 10_000, "masks.beta": 1e-4}
TUPLE = {**COMMON, "task.name": "double_addition", "task.train_size": 1_000_000, "task.valid_size": 10_000}
TUPLE_FNN = {**TUPLE, "task.mode": "fnn", "task.copied_io": False, "model.name": "fnn", "masks.beta": 4e-4}
HALF = {"analyses.half_mask.early": (), "analyses.half_mask.random": 0}  # the first half of the tensors, rounded up
RANDOM_HALVES = {"analyses.half_mask.early": (), "analyses.half_mask.random": 5}


def early(*patterns: str) -> dict[str, Any]:
    """The half-mask options for these early tensors."""
    return {"analyses.half_mask.early": patterns, "analyses.half_mask.random": 0}


FIRST_TWO = early("layer1.weight", "layer2.weight")
FIRST_CONVOLUTIONS = early("conv[123].*")
LSTM = {"model.name": "lstm", "model.hidden": 256, "model.layers": 2, "masks.beta": 1e-4}
SCAN = {
    **COMMON,
    "task.name": "scan",
    "task.splits": ("simple", "jump", "length", "turn_left"),
    "task.train_split": "simple",
    "train.steps": 25_000,
    "train.batch": 256,
    "train.clip": 5.0,
    "masks.steps": 25_000,
    "masks.exclude": ("*embedding*", "*bias*"),
}
SCAN_LSTM = {
    "task.teacher_forcing": 0.5,
    "model.name": "seq2seq_lstm",
    "model.embedding": 16,
    "model.hidden": 200,
    "model.layers": 2,
    "model.dropout": 0.5,
}
SCAN_TRANSFORMER = {
    "task.teacher_forcing": 1.0,
    "train.eval_batch": 2048,
    "model.name": "seq2seq_transformer",
    "model.dim": 100,
    "model.heads": 4,
    "model.encoder_layers": 3,
    "model.decoder_layers": 3,
    "model.feedforward": 2,
    "model.dropout": 0.1,
    "model.tied": False,
}
BASELINE = {k: v for k, v in SCAN.items() if not k.startswith("masks.") and k != "task.train_split"}
CIFAR = {
    **COMMON,
    "task.name": "cifar10",
    "task.source": "official",
    "task.evaluation": "valid",
    "task.normalisation": "measured",
    "task.augment": False,
    "model.name": "cnn",
    "model.channels": (32, 64, 128, 256),
    "masks.lr": 1e-3,
    "masks.beta": 3e-4,
    "masks.exclude": (),  # biases are masked
}
CIFAR_REMOVAL = {
    "task.removed": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "task.control": True,
    "task.copied": ("output.*",),
}
PLAIN = {"model.dropout": (0.0, 0.0)}
RESNET = {
    **{k: v for k, v in CIFAR.items() if k != "model.channels"},
    **CIFAR_REMOVAL,
    "task.evaluation": "test",
    "task.normalisation": "fixed",
    "task.augment": True,
    "model.name": "resnet",
    "model.blocks": 18,
    "model.widths": (16, 32, 64),
    "train.steps": 64_000,
    "train.optimizer": "sgd",
    "train.lr": 0.1,
    "train.momentum": 0.9,
    "train.weight_decay": 1e-4,
    "train.clip": None,
    "train.decay_at": (32_000, 48_000),
    "masks.steps": 30_000,
    "masks.batch": 256,
    "masks.clip": 1.0,
    "masks.lr": 3e-2,
    "masks.beta": 2e-5,
}
BETAS = (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12.5, 15, 17.5, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100)
TRANSFER = {
    **COMMON,
    "study.protocol": "transfer",
    "task.name": "permuted_mnist",
    "task.permutations": 11,
    "model.name": "fnn",
    "model.hidden": (800, 800, 64),
    "model.init": "xavier",
    "protocol.used_init": 2.0,
    "protocol.reset": ("layer1.*",),
    "train.steps": 0,  # weights learn together with the masks
    "masks.steps": 30_000,
    "masks.samples": 8,
    "masks.beta": 1.28e-3,
    "masks.exclude": (),
}
MATHS = {
    **COMMON,
    "study.seeds": 5,
    "task.name": "mathematics",
    "task.source": "official",
    "task.held_out": 10_000,
    "task.splits": (),  # all that the module has
    "model.name": "seq2seq_transformer",
    "model.dim": 512,
    "model.heads": 8,
    "model.encoder_layers": 6,
    "model.decoder_layers": 6,
    "model.feedforward": 4,
    "model.dropout": 0.1,
    "model.tied": True,
    "train.lr": 1e-4,
    "train.betas": (0.9, 0.995),
    "train.eps": 1e-9,
    "train.clip": 0.1,
    "train.validate_every": 1_000,
    "train.eval_batch": 1_024,
    "masks.samples": 8,
    "masks.exclude": ("*embedding*", "*.linear?.bias"),  # layer norms are masked, their offset too
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "addmul_fnn": {**ADDMUL, **HALF, "model.name": "fnn"},
    "addmul_fnn_big": {**ADDMUL, "model.name": "fnn", "model.hidden": (2000,) * 4},
    "addmul_fnn_huge": {**ADDMUL, "model.name": "fnn", "model.hidden": (4000,) * 4},
    "addmul_lstm": {**ADDMUL, **LSTM, **RANDOM_HALVES, "model.steps": 3},
    "addmul_beta": {k: v for k, v in ADDMUL.items() if k != "masks.beta"} | {"model.name": "fnn"},
    "tuple_fnn": {**TUPLE_FNN, **FIRST_TWO, "model.hidden": (2000,) * 4, "analyses.inverse.io": ()},
    "tuple_fnn_copied_io": {**TUPLE_FNN, "model.hidden": (2000,) * 4, "task.copied_io": True},
    "tuple_fnn_fullmask_io": {
        **TUPLE_FNN,
        "model.hidden": (2000,) * 4,
        "analyses.inverse.io": ("layer1.weight", "output.weight"),
        "analyses.inverse.io_mask": "control",
    },
    "tuple_fnn_small": {**TUPLE_FNN, **FIRST_TWO, "model.hidden": (800,) * 4},
    "tuple_lstm": {**TUPLE, **LSTM, **early("lstm.*_l0"), "task.tuple2_delay": 0},
    "tuple_lstm_fullmask_io": {
        **TUPLE,
        **LSTM,
        "analyses.inverse.io": ("lstm.weight_ih_l0", "output.weight"),
        "analyses.inverse.io_mask": "control",
    },
    "scan": {**SCAN, **SCAN_LSTM, **RANDOM_HALVES, "masks.beta": 3e-5},
    "scan_transformer": {
        **SCAN,
        **SCAN_TRANSFORMER,
        **early("encoder.[01].*", "decoder.[01].*", "output.weight"),
        "masks.beta": 6e-4,
        "masks.exclude": ("*embedding*", "*.linear?.bias", "output.bias"),  # layer norms are masked, their offset too
    },
    "scan_baselines": {**BASELINE, **SCAN_LSTM, "study.protocol": "baseline"},
    "cifar10_cnn": {**CIFAR, **CIFAR_REMOVAL, **FIRST_CONVOLUTIONS, "model.dropout": (0.25, 0.5)},
    "cifar10_cnn_no_dropout": {**CIFAR, **CIFAR_REMOVAL, **PLAIN, **FIRST_CONVOLUTIONS},
    "cifar10_resnet": RESNET,
    "cifar10_stability": {
        **CIFAR,
        **PLAIN,
        "task.name": "cifar10_stability",
        "task.sets": "pairs",
        "task.pairs": 10,
        "task.redraw": True,
        "task.copied": ("output.*",),
    },
    "transfer": {**TRANSFER, "protocol.new_init": 2.0},
    "transfer_prefer_old": {**TRANSFER, "protocol.new_init": 0.0},
    "transfer_prefer_old_more": {**TRANSFER, "protocol.new_init": -1.0},
    "maths_add_or_sub": {
        **MATHS,
        "task.module": "add_or_sub",
        "train.batch": 256,
        "train.steps": 30_000,
        "masks.steps": 30_000,
        "masks.lr": 3e-2,
        "masks.beta": 2e-5,
    },
    "maths_differentiate": {
        **MATHS,
        "task.module": "differentiate",
        "train.batch": 128,
        "train.steps": 40_000,
        "train.validate_every": 5_000,
        "masks.steps": 40_000,
        "masks.lr": 3e-2,
        "masks.beta": 1e-5,
    },
    "maths_linear_1d": {
        **MATHS,
        "task.module": "linear_1d",
        "train.batch": 512,
        "train.steps": 200_000,
        "train.warmup": 5_000,
        "masks.batch": 400,
        "masks.steps": 50_000,
        "masks.lr": 2e-2,
        "masks.beta": 1e-6,
    },
    "maths_collect": {
        **MATHS,
        "task.module": "collect",
        "train.batch": 128,
        "train.steps": 200_000,
        "train.warmup": 5_000,
        "masks.batch": 256,
        "masks.steps": 50_000,
        "masks.lr": 2e-2,
        "masks.beta": 1e-6,
    },
    "maths_sort": {
        **MATHS,
        "task.module": "sort",
        "train.batch": 256,
        "train.steps": 30_000,
        "train.validate_every": 10_000,
        "masks.steps": 30_000,
        "masks.lr": 3e-2,
        "masks.beta": 3e-6,
    },
    "cifar10_gradient_cosine": {**CIFAR, **PLAIN, "task.removed": ("airplane",), "task.control": False},
}
SWEEPS: dict[str, dict[str, tuple[Any, ...]]] = {
    "addmul_fnn": {"model.hidden": ((800,) * 4, (400, 400, 200))},
    "addmul_beta": {"model.hidden": ((800,) * 4, (2000,) * 4), "masks.beta": tuple(float(f"{b}e-5") for b in BETAS)},
    "tuple_lstm": {"task.mode": ("only_one_io", "together")},
    "tuple_lstm_fullmask_io": {"task.mode": ("only_one_io", "together")},
    "scan_baselines": {"task.train_split": ("length", "jump", "turn_left")},
}
FILES = sorted(path.stem for path in STUDIES.glob("*.toml"))


KNOWN = {"known_compiled", "known_superposed", "known_welded"}
"""Networks that come with their weights and a known answer: nothing in them is published, and the whole is quick."""
OURS = {"quickstart", "cifar10_gradient_cosine", "lm_example", "maths_baselines", *KNOWN}
"""Studies that the paper did not have."""
FREE = {"study.name", "study.description", "train.validate_every", "run.threads"}
"""What a file may say without a published number."""


def keys(table: Mapping[str, Any]) -> set[str]:
    """Return the dotted keys that a study's own sections set; a swept key counts as itself."""
    plain = {
        f"{s}.{k}" for s in ("study", "task", "model", "protocol", "train", "masks", "run") for k in table.get(s, {})
    }
    options = {f"analyses.{a}.{o}" for a, chosen in table.get("analyses", {}).items() for o in chosen}
    return plain | options | set(table.get("sweep", {}))


@pytest.mark.parametrize("name", [f for f in FILES if f not in OURS])
def test_a_file_says_nothing_that_the_table_does_not_know(name: str) -> None:
    """Every study of the paper has its numbers here, and none sets anything else: what is left is a default."""
    known = set(PUBLISHED[name]) | set(SWEEPS.get(name, {})) | FREE
    assert keys(tomllib.loads((STUDIES / f"{name}.toml").read_text())) <= known


def test_the_defaults_are_the_published_ones() -> None:
    """What files leave out and the reference fixes: Adam's own settings, and how masks are drawn and judged."""
    train, masks = TrainSection(), MasksSection(steps=1)
    assert (train.betas, train.eps, train.momentum, train.decay, train.weights) == ((0.9, 0.999), 1e-8, 0.9, 0.1, None)
    assert (train.validate_every, train.schedule) == (1000, "steps")
    assert (masks.sampler, masks.warmup, masks.include, masks.reg_batch, masks.clip) == ("gumbel", 0, None, None, None)
    assert masks.clip_over == "logits"


def value(study: Study, key: str) -> Any:
    """Return a study's value by its key in the file."""
    section, _, rest = key.partition(".")
    if section == "analyses":
        name, _, option = rest.partition(".")
        return getattr(study.analyses[name], option)
    if section in ("task", "model"):
        named = getattr(study, section)
        return named.name if rest == "name" else getattr(named.options, rest)
    return getattr(getattr(study, section), rest)


@pytest.mark.parametrize("name", PUBLISHED)
def test_as_published(name: str) -> None:
    """A study's numbers are the published ones, and so is its grid."""
    study = load(STUDIES / f"{name}.toml")
    assert study.study.name == name
    assert {key: value(study, key) for key in PUBLISHED[name]} == PUBLISHED[name]
    assert dict(study.sweep) == SWEEPS.get(name, {})
    if study.study.protocol == "posthoc":  # mask stages have the batch and clip of base training, unless listed above
        own = PUBLISHED[name].get("masks.batch"), PUBLISHED[name].get("masks.clip")
        assert study.mask_batch == (own[0] or study.train.batch)
        assert study.mask_clip == (own[1] or study.train.clip)
        assert study.reg_batch == study.train.batch


def test_the_better_measure_of_stability_copies_nothing() -> None:
    """The variant `no_copy` is the published study but for the copied output layer."""
    ours, published = (load(STUDIES / "cifar10_stability.toml", variant) for variant in ("no_copy", None))
    assert ours.task.options == attrs.evolve(published.task.options, copied=())
    assert (ours.train, ours.masks, ours.study) == (published.train, published.masks, published.study)


def test_transformer_baselines() -> None:
    """The baselines' second network is the published Transformer, on the same three splits."""
    study = load(STUDIES / "scan_baselines.toml", "transformer")
    assert {key: value(study, key) for key in SCAN_TRANSFORMER} == SCAN_TRANSFORMER
    assert [value(p.study, "task.train_split") for p in points(study)] == ["length", "jump", "turn_left"]


@pytest.mark.parametrize("module", ["add_or_sub", "differentiate", "linear_1d", "sort", "collect"])
def test_mathematics_baselines(module: str) -> None:
    """A baseline on easy questions trains as its module's own study does, on them alone and without masks."""
    study = load(STUDIES / "maths_baselines.toml", None if module == "add_or_sub" else module)
    own = load(STUDIES / f"maths_{module}.toml")
    assert (study.study.protocol, study.task.options.train) == ("baseline", ("easy",))
    assert (study.train, study.model, study.study.seeds) == (own.train, own.model, own.study.seeds)
    assert study.task.options == attrs.evolve(own.task.options, train=("easy",))


@pytest.mark.parametrize("name", FILES)
def test_every_file_and_variant_is_in_order(name: str) -> None:
    """Every study is sound as it stands and in all its variants, and has a smoke variant of one seed."""
    results = {c.variant: c for c in check(STUDIES / f"{name}.toml")}
    assert [c.problems for c in results.values()] == [()] * len(results)
    assert results["smoke"].study is not None
    assert results["smoke"].study.study.seeds == 1
    assert getattr(results["smoke"].study.task.options, "source", None) != "official", "a smoke needs no download"
    assert name == "quickstart" or name in KNOWN or "quick" in results
