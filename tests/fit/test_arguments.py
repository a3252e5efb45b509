"""Every argument of the public functions is checked before anything runs, and numbers of numpy and torch are numbers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook.errors import UserError
from modhook.noise.seeding import derive

X, Y = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


def loss(net: Callable[..., Any], batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of a classifier."""
    return F.cross_entropy(net(batch[0]), batch[1])


def never(net: Callable[..., Any], batch: Any) -> Tensor:
    """A loss that must not be reached."""
    raise AssertionError("the loss was called")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"samples": 0}, "samples must be a whole number of at least 1, not 0"),
    ({"samples": 2.0}, r"samples must be a whole number of at least 1, not 2\.0"),
    ({"samples": True}, "samples must be a whole number of at least 1, not True"),
    ({"samples": np.True_}, "samples must be a whole number of at least 1, not np.True_"),
    ({"samples": torch.tensor([2])}, r"samples must be .*, not torch.Tensor of shape \(1,\)"),
    ({"steps": -1}, "steps must be a whole number of at least 1, not -1"),
    ({"steps": "10"}, "steps must be a whole number of at least 1, not '10'"),
    ({"lr": 0}, "lr must be a finite number greater than 0, not 0"),
    ({"lr": -0.1}, "lr must be a finite number greater than 0, not -0.1"),
    ({"lr": math.nan}, "lr must be .*, not nan"),
    ({"lr": math.inf}, "lr must be .*, not inf"),
    ({"lr": "0.1"}, "lr must be .*, not '0.1'"),
    ({"beta": -1e-4}, "beta must be a finite number of at least 0, not -0.0001"),
    ({"beta": np.float32("nan")}, "beta must be a finite number"),
    ({"beta": torch.tensor(math.inf)}, r"beta must be a finite number of at least 0, not tensor\(inf\)"),
    ({"beta": 1j}, "beta must be a finite number"),
    ({"init": math.nan}, "init must be a finite number, not nan"),
    ({"init": -math.inf}, "init must be a finite number, not -inf"),
    ({"init": "2"}, "init must be a finite number, not '2'"),
    ({"init": torch.zeros(3, 4)}, r"init must be a number or \{name: tensor\}, not a tensor of shape \(3, 4\)"),
    ({"init": {"weight": torch.full((3, 4), math.nan)}}, "init of 'weight' holds numbers that are not finite"),
    ({"init": {"weight": torch.zeros(4, 3)}}, r"init of 'weight' has shape \(4, 3\), but the parameter has \(3, 4\)"),
    ({"init": {"weight": 1.0}}, "init of 'weight' must be a tensor of logits, one number per weight, not 1.0"),
    ({"init": {"weight": torch.ones(3, 4) > 0}}, "init of 'weight' must be a tensor of logits.*not torch.bool"),
    ({"init": {"bias": torch.zeros(3)}}, "init names parameters that are not masked: bias"),
    ({"clip": -1}, "clip must be a finite number of at least 0, not -1"),
    ({"clip": math.nan}, "clip must be .*, not nan"),
    ({"warmup": -1}, "warmup must be a whole number of at least 0, not -1"),
    ({"warmup": 1.5}, "warmup must be a whole number of at least 0, not 1.5"),
    ({"reg_batch": 0}, "reg_batch must be a whole number of at least 1, not 0"),
    ({"reg_batch": -8}, "reg_batch must be a whole number of at least 1, not -8"),
    ({"scale_regulariser": "yes"}, "scale_regulariser must be True or False, not 'yes'"),
    ({"executor": "vmp"}, r"unknown executor 'vmp' \(did you mean 'vmap'\?\); valid are auto"),
    ({"executor": None}, "unknown executor None; valid are auto"),
    ({"sampler": "gumble"}, "unknown sampler 'gumble'"),
    ({"sampler": 3}, "sampler must be a sampler's name or a modhook.Sampler, not 3"),
    ({"optimizer": "adm"}, "unknown optimizer 'adm'"),
    ({"optimizer": None}, "unknown optimizer None"),
    ({"memory": 0}, "memory must be a whole number of at least 1, not 0"),
    ({"memory": -5}, "memory must be"),
    ({"memory": 1.5}, "memory must be"),
    ({"memory": "inf GB"}, "memory must be a number of bytes or a text such as '2 GB', not 'inf GB'"),
    ({"memory": "-1 GB"}, "not '-1 GB'"),
    ({"memory": "lots"}, "not 'lots'"),
    ({"seed": 0.0}, "seed must be a whole number, not 0.0"),
    ({"seed": "0"}, "seed must be a whole number, not '0'"),
    ({"seed": None}, "seed must be a whole number, not None"),
    ({"seed": np.float64(1)}, "seed must be a whole number"),
    ({"label": 3}, "label must be a text, not 3"),
    ({"progress": "no"}, "progress must be True or False, not 'no'"),
    ({"callback": 3}, r"callback must be a function, callback\(step, trainer\), not 3"),
    ({"include": 3}, "include must be a pattern or a list of patterns"),
    ({"include": [3]}, "include must be a pattern or a list of patterns"),
    ({"exclude": None}, "exclude must be a pattern or a list of patterns"),
    ({"fixed": {"weight": torch.ones(3, 4)}}, "fixed must be a modhook.Masks, not dict"),
    ({"train_weights": [1]}, "train_weights must be a mapping"),
    (
        {"train_weights": {"weight": torch.ones(3, 4)}},
        r"train_weights\['weight'\] must be a bool tensor of shape \(3, 4\)",
    ),
    ({"train_weights": {"weight": True}}, r"train_weights\['weight'\] must be a bool tensor"),
    ({"model": "net"}, "model must be an nn.Module, not 'net'"),
    ({"model": nn.Linear}, "model must be an nn.Module, not type"),
    ({"loss": 1.0}, r"loss must be a function, loss\(net, batch\), not 1.0"),
    ({"loss": lambda batch: X}, r"loss must be a function that is called as loss\(net, batch\), but <lambda>\(batch\) is given"),
    ({"callback": lambda: None}, r"called as callback\(step, trainer\), but <lambda>\(\) is given"),
    ({"batches": {"x": X}}, r"batches must be an iterable of batches, not one batch; give \[batch\]"),
    ({"batches": 3}, "batches must be an iterable of batches, not 3"),
    ({"batches": lambda: [(X, Y)]}, "batches must be an iterable of batches, not function; call it first"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[f"{next(iter(o))}-{i}" for i, (o, _) in enumerate(WRONG)])
def test_a_wrong_argument_is_one_sentence_before_anything_runs(options: dict[str, Any], message: str) -> None:
    """Each wrong argument of fit_masks is refused by name, in one line, without a call of the loss."""
    given = {"model": nn.Linear(4, 3), "batches": [(X, Y)], "loss": never, "steps": 1, "progress": False} | options
    with pytest.raises(UserError, match=message) as caught:
        modhook.fit_masks(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: modhook.stack(net, samples=0), "samples must be a whole number of at least 1, not 0"),
        (lambda net: modhook.stack(net, samples=2.5), "samples must be a whole number"),
        (lambda net: modhook.stack(net, executor="fast"), "unknown executor 'fast'"),
        (lambda net: modhook.stack(net, (X,)), r"example must be the arguments of one call, a pair \(args, kwargs\)"),
        (lambda net: modhook.stack(net, X), r"example must be .*; it is torch.Tensor of shape \(8, 4\)"),
        (lambda net: modhook.stack(net.forward), "model must be an nn.Module"),
        (lambda net: modhook.inspect(net, X, samples=-1), "samples must be a whole number of at least 1, not -1"),
        (lambda net: modhook.inspect(net, X, executor=1), "unknown executor 1"),
        (lambda net: modhook.inspect(3, X), "model must be an nn.Module, not 3"),
        (lambda net: modhook.evaluate(3, None, [X], never), "model must be an nn.Module, not 3"),
        (
            lambda net: modhook.evaluate(net, {"weight": X}, [X], never),
            "masks must be a modhook.Masks or None, not dict",
        ),
        (
            lambda net: modhook.evaluate(net, None, {"x": X}, never),
            "batches must be an iterable of batches, not one batch",
        ),
        (lambda net: modhook.evaluate(net, None, [X], "accuracy"), r"score must be a function, score\(model, batch\)"),
        (
            lambda net: modhook.evaluate(net, None, [X], lambda m, b: 0.5),
            "score must return one number per item.*not 0.5",
        ),
        (
            lambda net: modhook.evaluate(net, None, [X], lambda m, b: {"a": 0.5}),
            "score must return tensors .*'a' is 0.5",
        ),
        (lambda net: modhook.train(net, [(X, Y)], never, -1), "steps must be a whole number of at least 0, not -1"),
        (lambda net: modhook.train(net, [(X, Y)], never, 1, lr=-1.0), "lr must be a finite number greater than 0"),
        (lambda net: modhook.Masks([X]), "masks must be a mapping"),
    ],
)
def test_the_other_functions_check_too(call: Callable[[nn.Module], Any], message: str) -> None:
    """stack, inspect, evaluate, train and Masks name what is wrong, in one line."""
    with pytest.raises(UserError, match=message) as caught:
        call(nn.Linear(4, 3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("whole", [np.int64, np.uint8, np.int32, torch.tensor, lambda n: np.array(n)])
def test_numbers_of_other_libraries_are_numbers(whole: Callable[[int], Any]) -> None:
    """Whole numbers, numbers and truth values of numpy and torch give the very same masks as Python's."""
    torch.manual_seed(0)
    net = nn.Linear(4, 3)
    given = {"samples": 2, "steps": 3, "seed": 0, "warmup": 2, "reg_batch": 8, "memory": 10**6}
    numbers = {"lr": 0.125, "beta": 0.25, "clip": 0.5, "init": 1.5}
    wide = {n: (np.int64(v) if n == "memory" else whole(v)) for n, v in given.items()}
    reals = {n: np.float32(v) for n, v in numbers.items()}
    flags = {"scale_regulariser": np.True_, "progress": np.False_}
    expected = modhook.fit_masks(net, [(X, Y)], loss, **given, **numbers, scale_regulariser=True, progress=False)
    found = modhook.fit_masks(net, [(X, Y)], loss, **wide, **reals, **flags)  # type: ignore[arg-type]
    assert torch.equal(found.logits["weight"], expected.logits["weight"])
    assert len(modhook.train(nn.Linear(4, 3), [(X, Y)], loss, whole(2))["step"]) == 2
    assert modhook.stack(net, samples=whole(3)).samples == 3
    assert modhook.inspect(net, X, samples=whole(2)).samples == 2


def test_a_seed_does_not_depend_on_its_type() -> None:
    """Derived seeds are equal for equal numbers and texts of any type, and those of version 0.1; nothing else is a seed."""
    expected = derive(3, "add", 0)
    assert expected == 1575323402482362540
    assert derive(np.int64(3), np.str_("add"), torch.tensor(0)) == expected
    assert derive(True) == derive(1)
    assert derive("3", "add", 0) != expected
    for wrong in (3.0, None, np.float64(3)):
        with pytest.raises(UserError, match="a seed must be a whole number, not"):
            derive(wrong)  # type: ignore[arg-type]


def test_what_is_no_network_no_path_and_no_number_is_one_sentence() -> None:
    """Masks, cuts, stacks and fits say what they were given instead of a network, a path, a function or a number."""
    torch.manual_seed(0)
    net = nn.Linear(4, 3)
    fit = modhook.fit_masks(net, [(X, Y)], loss, samples=2, steps=1, progress=False)
    masks, valid = fit.masks, [(X, Y)]
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: masks.materialize(3), "model must be an nn.Module, not 3"),  # type: ignore[type-var]
        (lambda: masks.applied_to(3).__enter__(), "model must be an nn.Module, not 3"),  # type: ignore[type-var]
        (lambda: modhook.Masks(masks, 3), "model must be an nn.Module, not 3"),  # type: ignore[arg-type]
        (lambda: modhook.Masks({3: masks["weight"]}), "the name of a mask must be a text, not 3"),  # type: ignore[dict-item]
        (lambda: masks.save(3), "path must be a path, not 3"),  # type: ignore[arg-type]
        (lambda: fit.smallest(valid, lambda n, b: n(b[0])[:, 0], reference="a"), "reference must be a finite number"),  # type: ignore[arg-type]
        (lambda: fit.smallest_by(3), r"measure must be a function, measure\(masks\), not 3"),  # type: ignore[arg-type]
        (lambda: fit.smallest_by(lambda m: "a"), "what measure returns must be a finite number"),  # type: ignore[arg-type,return-value]
        (lambda: modhook.fit_masks(net, valid, loss, carried={}), "carried must be the CarriedGradients"),  # type: ignore[arg-type]
        (lambda: modhook.fit_masks(nn.LazyLinear(3), valid, never), "'weight' is not initialised yet"),
    ]
    for call, message in calls:
        with pytest.raises(UserError, match=message):
            call()
    assert fit.smallest_by(lambda m: np.float32(1)).kept() == 0  # type: ignore[arg-type,return-value]


def test_stacked_weights_that_are_not_real_are_named() -> None:
    """Complex and whole weights cannot be stacked, and are left to the network: by name, not by a KeyError."""

    class Rotated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.turn = nn.Parameter(torch.ones(4, dtype=torch.complex64))
            self.order = nn.Parameter(torch.arange(4), requires_grad=False)
            self.out = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out((x * self.turn).real[..., self.order])  # type: ignore[no-any-return]

    net = Rotated()
    sets = {n: p.detach().expand(2, *p.shape).clone() for n, p in net.named_parameters()}
    stacked = modhook.stack(net, samples=2)
    for name, dtype in (("turn", "torch.complex64"), ("order", "torch.int64")):
        with pytest.raises(UserError, match=f"parameter '{name}' is of {dtype}: only real weights can be stacked"):
            stacked({name: sets[name]}, modhook.shared(X))
    real = {n: s for n, s in sets.items() if n.startswith("out")}
    assert torch.allclose(stacked(real, modhook.shared(X))[1], net(X))


def test_a_decorator_may_change_how_a_loss_is_called() -> None:
    """What is called is looked at, and not what a decorator wraps."""

    def unpacked(inner: Callable[..., Tensor]) -> Callable[[Any, Any], Tensor]:
        @functools.wraps(inner)
        def called(net: Any, batch: Any) -> Tensor:
            return inner(net, *batch)

        return called

    @unpacked
    def apart(net: Any, x: Tensor, y: Tensor) -> Tensor:
        return (net(x).sum() - y.sum()).square()

    x = torch.ones(4, 3)
    modhook.fit_masks(nn.Linear(3, 1), [(x, x)], apart, sampler="magnitude", density=0.5, progress=False)
