"""What `ask` refuses, in one sentence and before anything is written, and how functions are told apart."""

from __future__ import annotations

import functools
import logging
import operator
import random
import re
import warnings
from collections import deque
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from ask_setting import Setting, batches, items, loss, score
from torch import nn

import modhook
from modhook import ModhookWarning, UserError
from modhook.asking.source import source_of, sources_of

A, B, HELD = batches(0), batches(1), batches(0, 60, 1)
ONE = {"functions": {"a": A}, "tests": {"a": A}}
TWO = {"functions": {"a": A, "b": B}, "tests": {"a": A, "b": B}}


def at_once(net: Any, batch: Any) -> Any:
    """Return one number for the whole batch."""
    return score(net, batch).mean()


def fails(net: Any, batch: Any) -> Any:
    """Ask for what no batch has."""
    return batch["inputs"]


def detached(net: Any, batch: Any) -> Any:
    """Return a loss without gradient."""
    return loss(net, batch).detach()


def no_number(net: Any, batch: Any) -> Any:
    """Return a score that is no number for one item."""
    found = score(net, batch)
    return torch.cat([found[:-1], found.new_full((1,), float("nan"))])


def only_inputs(batch: Any, seed: int) -> Any:
    """Lose the labels."""
    return batch[:1]


def two_on_a_line() -> tuple[Any, Any]:
    """Return two lambdas whose source is one line."""
    return lambda net, batch: loss(net, batch), lambda net, batch: 2 * loss(net, batch)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"functions": {}}, "functions must name at least one function"),
    ({"functions": [A]}, r"functions must be a mapping \{function: batches\}"),
    (
        {"functions": {"a b": A, " A  b": B}, "tests": None},
        "two functions have the same name, ' A  b' and 'a b'|two functions have the same name",
    ),
    ({"functions": {1: A, "1": B}, "tests": None}, "two functions have the same name, 1 and '1'"),
    ({"functions": {"unmasked": A}, "tests": None}, "cannot be called 'unmasked'"),
    (
        {**TWO, "tests": {"a": A, "bb": B}},
        r"tests name 'bb', which is no function that was asked for \(did you mean|tests name 'bb'",
    ),
    (
        {**ONE, "functions": {"a": [*A, {"x": A[0][0]}]}},
        r"the batches of 'a' have different structures: batch 1 is tuple\(Tensor, Tensor\)",
    ),
    ({**TWO, "functions": {"a": A, "b": [list(b) for b in B]}}, "the batches of 'a' and 'b' have different structures"),
    ({**ONE, "functions": {"a": A[0]}}, "must be an iterable of batches, not one batch"),
    ({**ONE, "functions": {"a": []}}, "the batches of 'a' are empty"),
    ({**ONE, "functions": {"a": torch.utils.data.TensorDataset(*items(0, 8, 0))}}, "are a data set of single items"),
    ({**ONE, "functions": {"a": lambda seed: 1 / 0}}, "the batches of 'a' cannot be read: ZeroDivisionError"),
    (
        {**ONE, "functions": {"a": [(A[0][0], A[0][1][:3])]}},
        "the batches of 'a', batch 1: the tensors of a batch must have the same",
    ),
    (
        {**ONE, "score": at_once},
        r"the score of 'a' must return one number per item, shape \(8,\) for a batch of 8, not",
    ),
    ({**ONE, "score": fails}, "the score of 'a' fails on its first batch: TypeError"),
    ({**ONE, "loss": fails}, "the loss of 'a' fails on its first batch: TypeError"),
    ({**ONE, "loss": score}, r"the loss of 'a' must return one number, a tensor of shape \(\)"),
    ({**ONE, "loss": detached}, "the loss of 'a' does not depend on the network's weights"),
    ({**ONE, "loss": "mse"}, "loss must be a function"),
    ({**TWO, "loss": {"a": loss}}, "loss has nothing for 'b'"),
    ({**ONE, "loss": two_on_a_line()[0]}, "the loss is a lambda on a line with another one"),
    (
        {**TWO, "loss": {n: (lambda net, batch, n=n: loss(net, batch)) for n in "ab"}},
        "cannot be told apart by their source",
    ),
    ({**ONE, "steps": 0}, "steps must be a whole number of at least 1, not 0"),
    ({**ONE, "lr": -1.0}, "^lr must be a finite number greater than 0, not -1.0"),
    ({**ONE, "within": 1.5}, "^within must be a finite number of at least 0 and less than 1, not 1.5"),
    ({**ONE, "density": {"*": 0.1}}, "^density must be a finite number greater than 0 and of at most 1, not dict"),
    ({**ONE, "threads": 0}, "^threads must be a whole number of at least 1, not 0"),
    ({**ONE, "device": 0}, "^device must be the name of a device such as 'cpu' or 'cuda', not 0"),
    ({**ONE, "analyses": {"inverse": None}}, r"^analyses\['inverse'\] must be a mapping of options, \{\} for the defaults, not None"),
    ({**ONE, "functions": {"a": None}}, "^the batches of 'a' must be an iterable of batches, not None"),
    ({**ONE, "functions": {"a": {"x": A[0][0]}}}, "^the batches of 'a' must be an iterable of batches, not one batch; give"),
    ({**ONE, "score": no_number}, "^the score of 'a' is not finite on its first batch"),
    ({**ONE, "nonsense": fails}, "^nonsense fails on the first batch of 'a': TypeError"),
    ({**ONE, "nonsense": only_inputs}, "^the loss of 'a' fails on what nonsense returns: "),
    ({**ONE, "out": "/proc/nowhere/a.zarr"}, "^the output folder /proc/nowhere is not writable .*; give another out"),
    ({**ONE, "sampler": "gumble"}, "did you mean 'gumbel'"),
    ({**ONE, "density": 0.1, "within": 0.1}, "density and within both say"),
    ({**ONE, "batch": 6}, "^batch: 6 is not divisible by samples = 4"),
    ({**ONE, "analyses": ["inverze"]}, "did you mean 'inverse'"),
    ({**ONE, "out": "results/answer"}, "out must be the path of a cube, 'results/name.zarr'"),
    ({**ONE, "include": "nothing*"}, "nothing"),
    ({**ONE, "progress": 3}, "progress must be True, False or a modhook.Tracker"),
    ({**ONE, "device": "abacus"}, "device 'abacus' cannot be used here .*; give device='cpu' or another one"),
]


@pytest.mark.parametrize(("given", "text"), REFUSED, ids=[text[:40] for _, text in REFUSED])
def test_refused_in_one_sentence(given: dict[str, Any], text: str, setting: Setting, tmp_path: Path) -> None:
    """The sentence names what is wrong; no cube is there afterwards."""
    arguments = {"out": tmp_path / "x" / "a.zarr", **setting.arguments(), **given}
    functions = arguments.pop("functions")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModhookWarning)
        with pytest.raises(UserError, match=text) as refused:
            modhook.ask(setting.model, functions, **arguments)
    assert str(refused.value).endswith((".", "?"))
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.rglob("*.zarr"))


def test_tests_are_asked_for(setting: Setting) -> None:
    """Without held-out tests a warning names the functions, and they are measured on their own batches, as many as there are steps."""
    with pytest.warns(ModhookWarning, match="no held-out tests for 'b'"):
        answer = modhook.ask(
            setting.model, {"a": A, "b": iter(B)}, **setting.arguments(tests={"a": HELD}, seeds=1, steps=4, analyses=())
        )
    assert answer.untested == ("b",)
    for text in (repr(answer), answer._repr_html_(), answer.report().read_text(encoding="utf-8")):
        assert "o held-out tests" in text
    right = [float(s) for batch in B for s in score(setting.model, batch)]
    assert answer.scores.sel(stage="unmasked", split="b").item() == pytest.approx(sum(right) / len(right), abs=1e-12)


def other_loss(net: Any, batch: Any) -> Any:
    """Twice the loss."""
    return 2 * loss(net, batch)


CHANGED: list[tuple[str, Callable[[dict[str, Any]], None], str]] = [
    ("loss", lambda a: a.update(loss=other_loss), "the loss is another one"),
    ("score", lambda a: a.update(score={"a": score, "b": functools.partial(score)}), "the score of 'b' is another one"),
    ("batches", lambda a: a["functions"].update(a=batches(0, seed=4)), "the batches of 'a' are others"),
    ("tests", lambda a: a["tests"].update(b=batches(1, seed=4)), "the tests of 'b' are others"),
    ("functions", lambda a: (a["functions"].pop("b"), a["tests"].pop("b")), "its functions are a, b and not a"),
    ("network", lambda a: a.update(model=nn.Linear(6, 4)), "the network is another one"),
    ("setting", lambda a: a.update(lr=0.25), "lr is 0.5 there and 0.25 here"),
]  # fmt: skip


@pytest.fixture(scope="module")
def two(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cube of two functions."""
    path = tmp_path_factory.mktemp("two") / "two.zarr"
    modhook.ask(
        setting.model, {"a": A, "b": B}, out=path, **setting.arguments(tests={"a": HELD, "b": batches(1, 60, 1)}, seeds=1, steps=1)
    )
    return path


@pytest.mark.parametrize(("what", "change", "text"), CHANGED, ids=[what for what, _, _ in CHANGED])
def test_another_question_is_refused(
    what: str, change: Callable[[dict[str, Any]], None], text: str, setting: Setting, two: Path
) -> None:
    """A cube of another question is named with what differs of it, and stays as it is."""
    before = {p: p.stat().st_mtime_ns for p in two.rglob("*")}
    arguments = setting.arguments(
        tests={"a": HELD, "b": batches(1, 60, 1)}, seeds=1, steps=1, functions={"a": A, "b": B}, model=setting.model
    )
    change(arguments)
    model, functions = arguments.pop("model"), arguments.pop("functions")
    with pytest.raises(UserError, match=f"two.zarr holds another question: {text}") as refused:
        modhook.ask(model, functions, out=two, **arguments)
    assert "\n" not in str(refused.value)
    assert {p: p.stat().st_mtime_ns for p in two.rglob("*")} == before


def made(k: int, weight: torch.Tensor) -> Callable[[int], Any]:
    """Return a function that holds two values."""

    def inner(x: int) -> Any:
        return x * k * weight

    return inner


def test_functions_are_told_by_source_and_by_what_they_hold() -> None:
    """The same text with other values, tensors or arguments is another function; made twice alike it is the same one."""
    one, two = torch.ones(2), torch.zeros(2)
    every = [
        made(1, one),
        made(2, one),
        made(1, two),
        functools.partial(made, 1),
        functools.partial(made, 2),
        nn.Linear(1, 1),
    ]
    texts = [source_of("loss", f) for f in every]
    assert len(set(texts)) == len(every)
    assert source_of("loss", made(1, torch.ones(2))) == texts[0]
    assert "return x * k * weight" in texts[0]
    assert sources_of("loss", {"a": every[0], "b": every[1]}) == {"a": texts[0], "b": texts[1]}
    with pytest.raises(UserError, match=re.escape("the loss of 'b' and of 'a' cannot be told apart")):
        sources_of("loss", {"a": made(1, one), "b": made(1, torch.ones(2))})


def test_functions_without_source_are_told_by_their_code() -> None:
    """What a plain interpreter made has no source: its compiled code tells it from another."""
    found: dict[str, Any] = {}
    for name, text in (("a", "x + 1"), ("b", "x + 2"), ("c", "x + 1")):
        exec(f"def f(x): return {text}", found)
        found[name] = found.pop("f")
    texts = {name: source_of("loss", found[name]) for name in "abc"}
    assert texts["a"] == texts["c"] != texts["b"]


def test_bound_methods_are_told_by_their_object() -> None:
    """Methods of two objects with slots are two functions, also where their code is one; of one object they are one."""
    one, two = Holder(1), Holder(2)
    assert source_of("loss", one.loss) != source_of("loss", two.loss)
    assert len(set(sources_of("loss", {"a": one.loss, "b": two.loss}).values())) == 2
    assert source_of("loss", Holder(1).loss) == source_of("loss", one.loss)


CRITERION: Any = None


def by_global(net: Any, batch: Any) -> Any:
    """Return the loss of a criterion that is a global."""
    return CRITERION(net(batch[0]), batch[1])


def by_default(net: Any, batch: Any, criterion: Any = None) -> Any:
    """Return the loss of a criterion that is an argument."""
    return criterion(net(batch[0]), batch[1])


def closing(criterion: Any) -> Callable[..., Any]:
    """Return the loss of a criterion that it closes over."""

    def inner(net: Any, batch: Any) -> Any:
        return criterion(net(batch[0]), batch[1])

    return inner


def defaulting(criterion: Any) -> Callable[..., Any]:
    """Return the loss of a criterion that is a default."""

    def inner(net: Any, batch: Any, *, own: Any = criterion) -> Any:
        return own(net(batch[0]), batch[1])

    return inner


class Margins(nn.Module):
    """A criterion with criteria in a list, and a number that no `repr` shows."""

    def __init__(self, smoothing: float, margin: float) -> None:
        super().__init__()
        self.criteria, self.margin = [nn.CrossEntropyLoss(label_smoothing=smoothing)], margin

    def forward(self, logits: Any, classes: Any) -> Any:
        """Return the loss."""
        return self.criteria[0](logits + self.margin, classes)


HOLDERS: dict[str, Callable[[Any], Any]] = {
    "closure": closing,
    "default": defaulting,
    "partial": lambda criterion: functools.partial(by_default, criterion=criterion),
    "global": lambda criterion: by_global,
    "method": lambda criterion: Holder([criterion]).loss,
}


@pytest.mark.parametrize("how", HOLDERS)
def test_criteria_are_told_by_their_plain_attributes(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of modules that a loss holds in whatever way, numbers and texts count as much as tensors, also of modules inside; made alike
    they are the same."""

    def criteria() -> list[nn.Module]:
        made = [
            nn.CrossEntropyLoss(**a) for a in ({}, {"label_smoothing": 0.5}, {"reduction": "sum"}, {"ignore_index": 1})
        ]
        inner = [Margins(s, m) for s, m in ((0.0, 0.0), (0.5, 0.0), (0.0, 1.0))]
        return [
            *made,
            nn.TripletMarginLoss(margin=2.0),
            nn.TripletMarginLoss(margin=3.0),
            *inner,
            nn.Sequential(made[0]),
        ]

    texts = []
    for criterion in (*criteria(), *criteria()):
        monkeypatch.setitem(globals(), "CRITERION", criterion)
        texts.append(source_of("loss", HOLDERS[how](criterion)))
    half = len(texts) // 2
    assert texts[:half] == texts[half:]
    assert len(set(texts)) == half


HEAD: Any = None


def of_head(net: Any, batch: Any) -> Any:
    """Return the loss of a part of the outputs that a global names."""
    return loss(lambda x: net(x)[:, HEAD], batch)


def with_head(net: Any, batch: Any, head: Any = None) -> Any:
    """Return the loss of a part of the outputs that an argument names."""
    return loss(lambda x: net(x)[:, head], batch)


HIDDEN: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "slice": (lambda: slice(0, 2), lambda: slice(2, 4)),
    "slices": (lambda: (slice(0, 2), ...), lambda: (slice(2, 4), ...)),
    "range": (lambda: range(3), lambda: range(4)),
    "decimal": (lambda: Decimal("0.1"), lambda: Decimal("0.2")),
    "fraction": (lambda: Fraction(1, 2), lambda: Fraction(1, 3)),
    "date": (lambda: date(2020, 1, 1), lambda: date(2020, 1, 2)),
    "pattern": (lambda: re.compile("a"), lambda: re.compile("a", re.IGNORECASE)),
    "getter": (lambda: operator.itemgetter(0), lambda: operator.itemgetter(1)),
    "caller": (lambda: operator.methodcaller("sum", 0), lambda: operator.methodcaller("sum", 1)),
    "kind": (lambda: np.dtype("f4"), lambda: np.dtype("f8")),
    "numpy's": (lambda: np.exp, lambda: np.log),
    "deque": (lambda: deque([1]), lambda: deque([2])),
    "bytes": (lambda: bytearray(1000), lambda: bytearray(1001)),
    "view": (lambda: memoryview(b"a"), lambda: memoryview(b"b")),
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_values_without_attributes_are_told_apart(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that show no attributes (a part of the outputs, a number, a pattern) tell two questions apart, however a loss holds them."""
    told = []
    for make in (*HIDDEN[kind], *HIDDEN[kind]):
        monkeypatch.setitem(globals(), "HEAD", make())
        texts = [source_of("loss", closing(make())), source_of("loss", functools.partial(with_head, head=make()))]
        # What can change by being used is no value where it is a global.
        told.append((*texts, "" if kind in ("deque", "numpy's") else source_of("loss", of_head)))
    assert told[:2] == told[2:]
    assert all(one != other for one, other in zip(*told[:2], strict=True) if one)
    assert all(len(text) < 800 for texts in told for text in texts)


def test_what_changes_by_being_used_is_told_by_its_kind() -> None:
    """A generator of random numbers that a score drew from is no other question, nor is an iterator."""
    for made in (random.Random(0), np.random.default_rng(0), torch.Generator(), iter([1, 2]), logging.getLogger("a")):
        before = source_of("loss", closing(made))
        if isinstance(made, random.Random):
            made.gauss(0, 1)
        elif isinstance(made, np.random.Generator):
            made.random()
        elif isinstance(made, torch.Generator):
            torch.rand(1, generator=made)
        elif not isinstance(made, logging.Logger):
            next(made)
        assert source_of("loss", closing(made)) == before


@functools.cache
def half(x: float) -> float:
    """Return half of a number."""
    return x / 2


@functools.cache
def third(x: float) -> float:
    """Return a third of a number."""
    return x / 3


def test_cached_functions_are_told_by_their_source() -> None:
    """What remembers its results is the function that it remembers them of."""
    texts = [source_of("loss", closing(f)) for f in (half, third, half)]
    assert texts[0] == texts[2] != texts[1]
    assert "x / 2" in texts[0]


def test_a_changed_criterion_is_another_question(setting: Setting, tmp_path: Path) -> None:
    """Masks of one label smoothing are no answer for another one; nor are those of a network for one with another plain number."""

    class Scaled(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.inside, self.scale = setting.model, scale

        def forward(self, x: Any) -> Any:
            return self.scale * self.inside(x)

    def again(smoothing: float, scale: float) -> Any:
        criterion = closing(nn.CrossEntropyLoss(label_smoothing=smoothing))
        arguments = setting.arguments(loss=criterion, tests={"a": HELD}, seeds=1, steps=1, analyses=())
        return modhook.ask(Scaled(scale), {"a": A}, out=tmp_path / "c.zarr", **arguments)

    again(0.0, 1.0)
    again(0.0, 1.0)
    with pytest.raises(UserError, match="the loss is another one"):
        again(0.5, 1.0)
    with pytest.raises(UserError, match="the network is another one"):
        again(0.0, 2.0)


@attrs.frozen
class Holder:
    """Holds something, in a slot."""

    k: Any

    def loss(self, net: Any, batch: Any) -> Any:
        """Return something that does not say which object it is of."""
        return loss(net, batch)
