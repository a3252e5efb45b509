"""Any stock module runs under K parameter sets, exactly: the whole zoo. `nox -s zoo`."""

from __future__ import annotations

import warnings

import pytest
import zoo_architectures
import zoo_layers
import zoo_nasty
from torch import nn
from torch.nn.parameter import is_lazy
from zoo_harness import run

CASES = [*zoo_layers.cases(), *zoo_architectures.cases(), *zoo_nasty.cases()]


# torch and transformers warn about many things that are none of our business here; slow ways are recorded by `run`.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case, results):
    """Outputs and gradients equal those of plain copies, by whatever route; stock layers and families never warn of slowness."""
    result = run(case)
    results.append(result)
    assert result.matches, result
    if result.group in ("layer", "recurrent"):
        assert not result.slow


def test_every_layer_with_parameters_is_covered():
    """A class of torch.nn that is neither in the zoo nor seen to have no parameters makes the zoo incomplete."""
    covered = zoo_layers.LAYERS.keys() | zoo_layers.RECURRENT | zoo_layers.ABSTRACT.keys()
    classes = {n: c for n, c in vars(nn).items() if isinstance(c, type) and issubclass(c, nn.Module)}
    assert len(classes) > 150
    assert covered <= classes.keys()
    for name, kind in classes.items():
        if name not in covered:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecated names
                module = kind(*zoo_layers.ARGUMENTS.get(name, ()))
            tensors = [*module.parameters(), *module.buffers()]
            assert not any(is_lazy(t) for t in tensors), name
            assert not list(module.parameters()), f"nn.{name} has parameters and is not in the zoo"


def test_the_share_that_is_not_looped(results):
    """At least 25 families, and at least nine in ten of all cases that are not nasty run without looping the whole module."""
    if len(results) < len(CASES):
        pytest.skip("needs the results of the whole zoo")
    stock = [result for result in results if result.group != "nasty"]
    assert len(zoo_architectures.FAMILIES) >= 25
    assert sum(result.route != "loop" for result in stock) >= 0.9 * len(stock)
