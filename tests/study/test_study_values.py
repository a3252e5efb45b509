"""One wrong value of each kind, and the sentence that a user reads about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from modhook.errors import StudyError
from modhook.study import Study, StudySection, structure, weights_file

Problems = Callable[..., tuple[str, ...]]
Loaded = Callable[..., Study]


@pytest.mark.parametrize(
    ("section", "key", "value", "problem"),
    [
        ("masks", "steps", "3.7", "masks.steps: 3.7 is not a whole number"),
        ("masks", "steps", "5.0", "masks.steps: 5.0 is not a whole number; write 5"),
        ("masks", "steps", "true", "masks.steps: true is not a whole number"),
        ("masks", "steps", '"5"', 'masks.steps: "5" is not a whole number; leave out the quotes'),
        ("masks", "steps", "0", "masks.steps: must be at least 1, not 0"),
        ("masks", "steps", "[5]", "masks.steps: [5] is not a whole number"),
        (
            "masks",
            "steps",
            "9223372036854775808",
            "masks.steps: 9223372036854775808 is too large for a whole number of 64 bits",
        ),
        ("masks", "beta", "inf", "masks.beta: inf is not finite"),
        ("masks", "beta", "nan", "masks.beta: nan is not finite"),
        ("masks", "beta", "true", "masks.beta: true is not a number"),
        ("masks", "beta", '"a lot"', 'masks.beta: "a lot" is not a number'),
        ("masks", "beta", "-3e-5", "masks.beta: must be at least 0, not -3e-5"),
        ("masks", "lr", "0", "masks.lr: must be greater than 0, not 0.0"),
        ("masks", "clip", '"1"', 'masks.clip: "1" is not a number; leave out the quotes'),
        ("masks", "init", "1" + 400 * "0", "masks.init: a number of more than 40 digits is too large"),
        ("masks", "exclude", '"*bias*"', 'masks.exclude: "*bias*" is not a list; write ["*bias*"]'),
        ("masks", "include", "[]", "masks.include: must not be empty, not []"),
        ("masks", "include", '["*", ""]', 'masks.include[1]: must not be empty, not ""'),
        ("masks", "include", '["*", 3]', "masks.include[1]: 3 is not a text in quotes"),
        (
            "masks",
            "executor",
            '"vmapp"',
            'masks.executor: "vmapp" is none of "auto", "fastest", "vmap", "loop" (did you mean \'vmap\'?)',
        ),
        ("masks", "logits_dtype", "16", 'masks.logits_dtype: 16 is none of "float16", "float32"'),
        ("masks", "stpes", "5", "masks.stpes: unknown key (did you mean 'steps'?)"),
        ("train", "betas", "[0.9]", "train.betas: [0.9] must have 2 entries, not 1"),
        ("train", "betas", "[0.9, 1.0]", "train.betas[1]: must be less than 1, not 1.0"),
        ("train", "optimizer", '"adamw"', 'train.optimizer: "adamw" is none of "adam", "sgd" (did you mean \'adam\'?)'),
        ("train", "decay_at", "[10, 0]", "train.decay_at[1]: must be at least 1, not 0"),
        (
            "study",
            "name",
            '"../x"',
            'study.name: must be made of letters, digits, - and _ (1 to 100 of them), not "../x"',
        ),
        ("study", "name", '""', 'study.name: must be made of letters, digits, - and _ (1 to 100 of them), not ""'),
        (
            "study",
            "name",
            '"a\\n"',
            'study.name: must be made of letters, digits, - and _ (1 to 100 of them), not "a\\n"',
        ),
        ("study", "name", "1999-12-31", "study.name: 1999-12-31 is not a text in quotes"),
        ("study", "seeds", "10_001", "study.seeds: must be at most 10000, not 10001"),
        ("study", "seeds", "0", "study.seeds: must be at least 1, not 0"),
        ("run", "threads", "0", "run.threads: must be at least 1, not 0"),
        ("run", "device", '"my gpu"', 'run.device: must be a device such as cpu, cuda or cuda:1, not "my gpu"'),
        ("task", "mode", '"appart"', 'task.mode: "appart" is none of "together", "apart" (did you mean \'apart\'?)'),
        ("task", "moed", '"apart"', "task.moed: unknown key (did you mean 'mode'?)"),
        ("task", "size", "1001", "task.size: must be at most 1000, not 1001"),
        ("task", "even", "3", "task: even must be even, not 3"),
        ("task", "fragile", '"false"', 'task.fragile: "false" is neither true nor false; leave out the quotes'),
        ("task", "colour", '"bleu"', 'task.colour: "bleu" is none of "red", "blue" (did you mean \'blue\'?)'),
        ("task", "noise", "3", "task.noise: 3 is not a table"),
        ("task", "noise", "{ scale = inf }", "task.noise.scale: inf is not finite"),
        ("task", "noise", "{ scael = 1 }", "task.noise.scael: unknown key (did you mean 'scale'?)"),
        ("task", "shares", "{ a = 1, b = nan }", "task.shares.b: nan is not finite"),
        ("task", "shares", "[1]", "task.shares: [1] is not a table"),
        ("task", "limit", '"most"', 'task.limit: "most" is none of: a whole number, "all"'),
        ("task", "extra", "[1, { a = inf }]", "task.extra[1].a: inf is not finite"),
        ("task", "extra", "07:32:00", "task.extra: 07:32:00 is no number, text, truth value, list or table"),
        ("model", "hidden", "[8, 0]", "model.hidden[1]: must be at least 1, not 0"),
        ("model", "heads", "3", "model.heads: must be a multiple of 2, not 3"),
        ("analyses", "sharing", "{ pooled = 1 }", "analyses.sharing.pooled: 1 is neither true nor false"),
        (
            "analyses",
            "sharing",
            "true",
            "analyses.sharing: true is not a table of options; write sharing = {} for the defaults",
        ),
    ],
)
def test_wrong_value_is_named_with_its_path(
    problems: Problems, section: str, key: str, value: str, problem: str
) -> None:
    """Every wrong value gives exactly one sentence: its path, and what is wrong with it."""
    assert problems({(section, key): value}) == (problem,)


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("masks", "beta", "1", 1.0),
        ("masks", "init", "-2", -2.0),
        ("masks", "include", '["*weight*"]', ("*weight*",)),
        ("masks", "exclude", "[]", ()),
        ("masks", "clip", "0", 0.0),
        ("train", "betas", "[0, 0.995]", (0.0, 0.995)),
        ("train", "clip", "0", None),
        ("train", "clip", "5", 5.0),
        ("study", "seeds", "10", 10),
        ("study", "name", '"Scan_2-b"', "Scan_2-b"),
        ("run", "device", '"cuda:1"', "cuda:1"),
    ],
)
def test_right_value_is_taken(loaded: Loaded, section: str, key: str, value: str, expected: Any) -> None:
    """Values at the edge of what is allowed are taken, whole numbers as numbers, lists as tuples."""
    found = getattr(getattr(loaded({(section, key): value}), section), key)
    assert (found, type(found)) == (expected, type(expected))


def test_defaults_are_those_of_the_method(loaded: Loaded) -> None:
    """What a study does not say has the published default, and patterns tell a default from a given one."""
    study = loaded()
    assert (study.train.lr, study.train.clip, study.train.batch, study.train.validate_every) == (1e-3, 1.0, 128, 1000)
    assert (study.masks.samples, study.masks.beta, study.masks.lr, study.masks.init) == (4, 1e-4, 1e-2, None)
    assert study.masks.include is None
    assert study.masks.exclude is None
    assert (study.study.seeds, study.study.protocol, study.run.threads, study.run.device) == (1, "posthoc", None, "cpu")


def test_masks_take_batch_and_clip_from_train(loaded: Loaded) -> None:
    """Batch, clipping and the regulariser's divisor of mask stages are base training's unless given; 0 is no clipping."""
    same = loaded({("train", "batch"): "64", ("train", "clip"): "5"})
    assert (same.mask_batch, same.mask_clip, same.reg_batch) == (64, 5.0, 64)
    own = loaded(
        {("train", "clip"): "5", ("masks", "batch"): "32", ("masks", "clip"): "0", ("masks", "reg_batch"): "7"}
    )
    assert (own.mask_batch, own.mask_clip, own.reg_batch) == (32, None, 7)
    assert loaded({("train", "clip"): "0"}).mask_clip is None


def test_batch_must_be_divisible_by_samples(problems: Problems, loaded: Loaded) -> None:
    """A batch that cannot be cut into K groups is refused at the key that sets it."""
    expected = "is not divisible by masks.samples = 3; choose 126 or 129, for example"
    assert problems({("masks", "samples"): "3"}) == (f"train.batch: 128 {expected}",)
    assert problems({("masks", "samples"): "3", ("masks", "batch"): "128"}) == (f"masks.batch: 128 {expected}",)
    assert problems({("masks", "samples"): "4", ("masks", "batch"): "2"}) == (
        "masks.batch: 2 is not divisible by masks.samples = 4; choose 4, for example",
    )
    assert loaded({("masks", "samples"): "3", ("masks", "batch"): "126"}).mask_batch == 126


def test_training_or_weights(problems: Problems, loaded: Loaded, make: Callable[..., Any]) -> None:
    """Without training steps there must be weights, and the file must exist beside the study file."""
    missing = "train.steps: must be given and at least 1, unless train.weights names a file to load instead of training"
    assert problems({("train", "steps"): "0"}) == (missing,)
    assert problems({("train", "steps"): None}) == (missing,)
    (line,) = problems({("train", "weights"): '"base.safetensors"'})
    assert line.startswith("train.weights: there is no file '")
    folder = make().parent
    (folder / "base.safetensors").write_bytes(b"")
    study = loaded({("train", "steps"): None, ("train", "weights"): '"base.safetensors"'})
    assert weights_file(study, 1) == folder / "base.safetensors"
    assert weights_file(loaded(), 1) is None


def test_a_protocol_without_base_training(problems: Problems, loaded: Loaded) -> None:
    """It needs no training steps, and what would not be used is not taken; the rest of [train] is."""
    together = {("study", "protocol"): '"together"'}
    assert loaded({**together, ("train", "steps"): None, ("train", "batch"): "8"}).mask_batch == 8
    (line,) = problems(together)
    assert line == "train.steps: the protocol 'together' has no base training; leave it out"
    (line,) = problems({**together, ("train", "steps"): None, ("train", "weights"): '"w.safetensors"'})
    assert line == "train.weights: the protocol 'together' has no base training; leave it out"


def test_missing_keys_are_named(problems: Problems) -> None:
    """A missing section is as if it were empty: the keys it lacks are named."""
    assert problems({("masks", "steps"): None}) == ("masks.steps: missing, and it has no default",)
    assert problems({("study", "name"): None}) == ("study.name: missing, and it has no default",)
    assert problems({("task", "name"): None}) == ("task.name: missing; valid tasks: toy",)


@attrs.frozen
class _Node:
    value: int
    children: tuple[_Node, ...] = ()


def test_structure_is_usable_for_plugins() -> None:
    """Plugin options go through the same strict converter, nested and recursive ones too."""
    assert structure(_Node, {"value": 1, "children": [{"value": 2}]}, "node") == _Node(1, (_Node(2),))
    with pytest.raises(StudyError) as caught:
        structure(
            _Node, {"value": 1.5, "children": [{"value": True}, {}, {"vlaue": 1, "value": 1}]}, "node", where="x.toml"
        )
    assert caught.value.where == "x.toml"
    assert caught.value.problems == (
        "node.value: 1.5 is not a whole number",
        "node.children[0].value: true is not a whole number",
        "node.children[1].value: missing, and it has no default",
        "node.children[2].vlaue: unknown key (did you mean 'value'?)",
    )
    with pytest.raises(StudyError, match="name: missing"):
        structure(StudySection, {}, "study")
