"""Parameter patterns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from modhook.errors import PatternError
from modhook.masks.select import matching, parameter_names, select


def test_defaults_leave_out_biases(net: nn.Module) -> None:
    """By default every weight is masked and no bias, in the model's order."""
    assert select(net) == ("0.weight", "1.weight", "3.weight")


def test_a_default_pattern_may_match_nothing() -> None:
    """A network without biases is fine with the defaults."""
    assert select(nn.Linear(2, 2, bias=False)) == ("weight",)


def test_a_given_pattern_must_match(net: nn.Module) -> None:
    """A pattern that the user gave and that matches nothing is an error with the names."""
    with pytest.raises(
        PatternError, match=r"exclude pattern '\*embedding\*' matches no parameter; .*0\.weight, 0\.bias"
    ):
        select(net, exclude=["*embedding*"])
    with pytest.raises(PatternError, match=r"include pattern '0.weigth' matches no parameter .did you mean '0.weight'"):
        select(net, include="0.weigth")
    with pytest.raises(PatternError, match="copied pattern 'x'"):
        matching(net, ("x",), "copied")


def test_nothing_left_is_an_error(net: nn.Module) -> None:
    """Patterns that leave nothing are refused."""
    with pytest.raises(PatternError, match="no parameter is left to mask"):
        select(net, exclude="*")


def test_tied_parameters_are_one() -> None:
    """A tied weight is one parameter: excluded if any of its names is."""
    model = nn.ModuleDict({"out": nn.Linear(3, 5, bias=False), "embedding": nn.Embedding(5, 3)})
    model["embedding"].weight = model["out"].weight
    assert parameter_names(model) == {"out.weight": ("out.weight", "embedding.weight")}
    assert select(model) == ("out.weight",)
    with pytest.raises(PatternError, match="no parameter is left"):
        select(model, exclude="*embedding*")


def test_integer_and_empty_parameters_are_never_masked() -> None:
    """Only floating point parameters with elements are candidates."""
    model = nn.Linear(2, 2)
    model.index = nn.Parameter(torch.zeros(2, dtype=torch.long), requires_grad=False)
    model.nothing = nn.Parameter(torch.zeros(0))
    assert select(model, include="*", exclude=()) == ("weight", "bias")
