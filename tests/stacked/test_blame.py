"""Nobody sees a vmap traceback: an error of the user's module says which submodule, which sample and which line."""

from __future__ import annotations

import fractions
import traceback

import pytest
import stacked_loops as loops
import torch
from click.testing import CliRunner
from torch import nn

import modhook
from modhook import fit_masks
from modhook.cli.inspect import inspect_command
from modhook.errors import StackError, UserError
from modhook.stacked import stack

K, B, D = 3, 2, 4


class Inner(nn.Module):
    """Fails in three ways, on demand."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(D, D)

    def forward(self, x, how=""):
        y = self.linear(x)
        if how == "shape":
            y = y.view(3, -1, 7)
        if how == "value" and bool((y > 100).any()):
            raise ValueError("a number is too large")
        if how == "read":
            y = y * y.sum().item()
        return y


class Outer(nn.Module):
    """Holds what fails."""

    def __init__(self):
        super().__init__()
        self.first, self.inner = nn.Linear(D, D), Inner()

    def forward(self, x, how=""):
        return self.inner(self.first(x), how)


class Broken(Outer):
    """Fails on every input."""

    def forward(self, x, how="shape"):
        return super().forward(x, "shape")


class Unbuilt(Outer):
    """Cannot be built."""

    def __init__(self):
        raise OSError("no such file")


def run(how, executor="auto"):
    """Run a settled stack in a way that fails; return the error."""
    model, x = Outer(), torch.randn(K, B, D)
    sets = {n: s.detach() for n, s in loops.parameter_sets(model, K).items()}
    stacked = stack(model, samples=K, executor=executor)
    stacked(sets, x, how="")
    key = next(iter(stacked._choices))
    sets["inner.linear.bias"][1] = 1000.0 if how == "value" else 0.0
    # The structure of keyword arguments is part of the kind; here the error comes in a kind that was settled.
    stacked._key = lambda *_: key
    with pytest.raises(Exception) as caught:
        stacked(sets, x, how=how)
    return caught.value


@pytest.mark.parametrize(("how", "kind", "sample"), [("shape", RuntimeError, 1), ("value", ValueError, 2)])
def test_the_users_error(how, kind, sample):
    """It is the user's own exception, with a note, and there is no vmap in what is printed."""
    error = run(how)
    assert type(error) is kind
    note = "\n".join(error.__notes__)
    assert f"mask sample {sample} of {K}, in submodule 'inner', at " in note
    assert "test_blame.py, line" in note
    assert ("y = y.view(3, -1, 7)" if how == "shape" else "raise ValueError") in note
    printed = "".join(traceback.format_exception(error))
    assert "vmap" not in printed
    assert "During handling" not in printed


def test_a_forced_route_that_cannot():
    """With executor="vmap" an operation that vmap refuses is one sentence that shows the user's line."""
    error = run("read", executor="vmap")
    assert isinstance(error, StackError)
    assert 'executor="vmap" cannot run this call' in str(error)
    assert "y = y * y.sum().item()" in str(error)
    assert error.__context__ is None
    user = run("shape", executor="vmap")
    assert type(user) is RuntimeError
    assert "mask sample 1 of 3" in user.__notes__[0]


def test_an_error_in_the_check():
    """A model that fails on its example says so before anything is stacked."""
    with pytest.raises(RuntimeError, match="invalid for input") as caught:
        stack(Broken(), example=((torch.randn(B, D),), {}), samples=K)
    assert "in a plain run of a copy of the model" in caught.value.__notes__[0]
    assert "in submodule 'inner'" in caught.value.__notes__[0]


def test_inspect_says_what_it_was_given():
    """A batch that the network does not take is one sentence with shapes and submodule; what the network itself raises stays."""
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(UserError, match=r"submodule '0' \(Linear\) on this example \(float32 \(3, 5\)\): RuntimeError: mat1 and mat2"):
        modhook.inspect(net, torch.randn(3, 5))
    with pytest.raises(UserError, match=r"argument 0\['x'\]: float32 \(3, 4\), mask: bool \(3,\)\): TypeError"):
        modhook.inspect(net, {"x": torch.randn(3, 4)}, mask=torch.ones(3, dtype=torch.bool))
    with pytest.raises(UserError, match=r"on this example \(no tensor\): TypeError: .*; give one that model\(\*args"):
        modhook.inspect(net)

    class Own(nn.Module):
        def forward(self, x):
            raise LookupError("its own words")

    with pytest.raises(LookupError, match=r"^its own words"):
        modhook.inspect(Own(), torch.randn(3, 5))


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (
            "Broken",
            UserError,
            r"fails in its submodule 'inner' \(\w+\) on this example \(float32 \(2, 4\)\): RuntimeError: .*test_blame.py, line \d+",
        ),
        ("Unbuilt", UserError, r"Unbuilt\(\) failed, called without arguments: OSError: no such file"),
    ],
)
def test_the_command_says_it_in_a_sentence(name, kind, message):
    """`modhook inspect` turns errors of the network into one sentence."""
    target = f"{__name__.rsplit('.', 1)[-1]}:{name}"
    result = CliRunner().invoke(inspect_command, [target, "--input", "float[2,4]"], standalone_mode=False)
    assert type(result.exception) is kind
    with pytest.raises(kind, match=message):
        raise result.exception


def _by_raise(x):
    raise ValueError("once")


def _by_assert(x):
    assert not x.requires_grad or x.dim() == 0, "once"


def _by_key(x):
    return {}["once"]


def _by_library(x):
    return fractions.Fraction("once")


def _by_conversion(x):
    try:
        return {}["once"]
    except KeyError as error:
        raise OSError("once") from error


class Once(nn.Module):
    """Its loss or forward raises in one call of all, counted over copies, and never else."""

    def __init__(self, how, at):
        super().__init__()
        self.linear, self.how = nn.Linear(D, D), how
        # Shared by copies, and not put back: the world outside the network.
        calls = iter(range(10**6))
        self.due = lambda: next(calls) == at

    def forward(self, x):
        y = self.linear(x)
        if self.due():
            self.how(y)
        return y


ONCE = {_by_raise: ValueError, _by_assert: AssertionError, _by_key: KeyError, _by_library: ValueError, _by_conversion: OSError}


@pytest.mark.parametrize("at", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("how", list(ONCE), ids=lambda how: how.__name__)
def test_what_the_user_raises_once_is_not_swallowed(how, at):
    """In plain runs of the check (0, 1), in its vmapped run (2), and in vmapped steps: their error, their line, and no vmap in it."""
    model = Once(how, at)
    before = loops.fingerprint(model)

    def fit():
        batches = [torch.randn(B * D, D)]
        fit_masks(model, batches, lambda net, x: net(x).square().mean(), samples=2, steps=12, progress=False)

    with pytest.raises(ONCE[how], match="once") as caught:
        fit()
    assert type(caught.value) is ONCE[how]
    frames = [frame for frame in traceback.extract_tb(caught.value.__traceback__) if frame.filename == __file__]
    assert frames[-1].name == how.__name__
    assert any(frame.name == "forward" for frame in frames)
    assert "modhook: raised" in caught.value.__notes__[0]
    assert "vmap" not in "".join(traceback.format_exception(caught.value))
    assert before == loops.fingerprint(model)


def test_what_the_user_raises_in_the_loops_check_is_theirs():
    """A module that refuses what stands in for its weights raises its own error, not a sentence about other weights."""

    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(D, D)

        def forward(self, x):
            if not isinstance(self.linear.weight, nn.Parameter):
                raise TypeError("only a Parameter will do")
            return self.linear(x)

    with pytest.raises(TypeError, match="only a Parameter will do") as caught:
        stack(Picky(), example=((torch.randn(B, D),), {}), samples=K)
    assert "while running mask sample 1 of 2" in caught.value.__notes__[0]


def test_a_check_that_only_vmap_fails_is_looped():
    """What the user's code raises about vmap alone, each time, is no error of theirs: the module runs by the loop."""

    class Strict(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(D, D)

        def forward(self, x):
            y = self.linear(x)
            if torch._C._functorch.is_batchedtensor(y):
                raise TypeError("what is this?")
            return y

    model, x = Strict(), torch.randn(B, D)
    stacked = stack(model, example=((x,), {}), samples=K)
    assert stacked.route in ("loop", "islands")
    sets = loops.parameter_sets(model, K)
    plain = torch.stack([x @ sets["linear.weight"][k].T + sets["linear.bias"][k] for k in range(K)])
    torch.testing.assert_close(stacked(sets, x.expand(K, B, D)), plain)
