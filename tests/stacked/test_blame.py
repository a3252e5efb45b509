"""Nobody sees a vmap traceback: an error of the user's module says which submodule, which sample and which line."""

from __future__ import annotations

import traceback

import pytest
import stacked_loops as loops
import torch
from click.testing import CliRunner
from torch import nn

from modhook.cli.inspect import inspect_command
from modhook.errors import RunError, StackError, UserError
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


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (
            "Broken",
            RunError,
            r"the network failed on this input: RuntimeError: .*in submodule 'inner', at .*view\(3, -1, 7\)",
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
