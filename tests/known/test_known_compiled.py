"""Compiled networks against Tracr's own outputs and the programs written out once more, and two programs in one network."""

from __future__ import annotations

import copy
import itertools
import json
from collections import Counter
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modhook_tasks import known
from modhook_tasks.known.bruteforce import failing
from modhook_tasks.known.compiled import FILES, described, load_program, side_by_side_network, turn_basis
from modhook_tasks.known.structure import accuracy
from modhook_tasks.known.transformer import Attention, Sizes

NAMES = ("frac_prevs", "hist", "reverse", "sort")


@pytest.mark.parametrize("name", NAMES)
def test_outputs_of_tracr(name: str) -> None:
    """The shipped network gives what Tracr's own gave when the weights were written, to 1e-5."""
    reference = json.loads((FILES / "programs.json").read_text(encoding="utf-8"))["programs"][name]["reference"]
    with torch.no_grad():
        ours = load_program(name).model(torch.tensor(reference["inputs"]))
    assert len(ours) == 8
    torch.testing.assert_close(ours, torch.tensor(reference["outputs"]), rtol=0, atol=1e-5)


def answer(name: str, word: tuple[str, ...]) -> list[str | Fraction]:
    """Return what a program makes of a word, written out here once more."""
    if name == "hist":
        counts = Counter(word)
        return [str(counts[token]) for token in word]
    if name == "frac_prevs":
        return [Fraction("".join(word)[: i + 1].count("x"), i + 1) for i in range(5)]
    return list(word[::-1]) if name == "reverse" else sorted(word)


@pytest.mark.parametrize("name", NAMES)
def test_every_input_is_right(name: str) -> None:
    """On each of the 1024 inputs the network says what the program says, read from the outputs by hand."""
    about = described()["programs"][name]
    codes, values = about["tokens"], about["values"]
    words = list(itertools.product("1234" if name == "sort" else "abcx", repeat=5))
    inputs = torch.tensor([[codes["BOS"], *(codes[t] for t in word)] for word in words])
    with torch.no_grad():
        outputs = load_program(name).model(inputs)  # (1024, 5, O)
    for word, output in zip(words, outputs, strict=True):
        said = [values[i] for i in output.argmax(-1)] if values else [Fraction(float(v)) for v in output[:, 0]]
        for one, right in zip(said, answer(name, word), strict=True):
            assert one == right or (not values and abs(one - right) < Fraction(1, 100)), word
    built = known.build(name)
    assert accuracy(built.model, built.functions[name].everything()) == 1


def test_attention_is_the_stock_one() -> None:
    """The attention written out is `scaled_dot_product_attention` of each head."""
    torch.manual_seed(0)
    attention, x = Attention(Sizes(1, 1, 10, 1, 3, 4, 1, 1)).double(), torch.randn(2, 5, 10, dtype=torch.float64)
    heads = []
    for i in range(3):
        query, key, value = (
            x @ layer.weight[4 * i : 4 * i + 4].T for layer in (attention.query, attention.key, attention.value)
        )
        heads.append(F.scaled_dot_product_attention(query, key, value))
    torch.testing.assert_close(attention(x), torch.cat(heads, -1) @ attention.output.weight.T)


PAIRS = [n for n in known.networks() if "+" in n]


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("seed", [0, 1])
def test_both_functions_of_a_pair_are_right(name: str, seed: int) -> None:
    """Side by side, with noise and in a hidden basis, both functions stay at 100 % on every input."""
    built = known.build(name, seed)
    assert [accuracy(built.model, f.everything()) for f in built.functions.values()] == [1, 1]


@pytest.mark.parametrize("name", [n for n in PAIRS if "-" not in n])
def test_a_pair_is_two_programs(name: str) -> None:
    """Taking all weights of the other function away leaves a program's outputs as they are alone; no weight has two owners."""
    built = known.build(name)
    inputs, before = load_program("hist").inputs, 0
    owner = built.truth.owner
    assert owner is not None
    for number, function in enumerate(name.split("+"), 1):
        alone = load_program(function).model
        net = copy.deepcopy(built.model)
        for parameter, weight in net.named_parameters():
            weight.mul_(owner[parameter] == number)
        size = alone.sizes.outputs
        outputs = net(inputs)[..., before : before + size]
        torch.testing.assert_close(outputs, alone(inputs), rtol=0, atol=1e-5)
        torch.testing.assert_close(outputs, built.model(inputs)[..., before : before + size], rtol=0, atol=1e-5)
        written = sum(int((p != 0).sum()) for p in alone.parameters())
        assert sum(int((o == number).sum()) for o in owner.values()) == written
        before += size


def test_small_noise_is_everywhere_and_large_noise_where_nothing_comes() -> None:
    """Small noise touches every weight of nobody and no other; large noise changes no output by a single bit."""
    plain = known.build("frac_prevs+hist")
    small, large = (known.build(f"frac_prevs+hist-{size}_noise") for size in ("small", "large"))
    owner = small.truth.owner
    assert owner is not None
    noise = []
    for name, weight in plain.model.named_parameters():
        changed = small.model.get_parameter(name) != weight
        assert torch.equal(changed, owner[name] == 0)
        assert not ((large.model.get_parameter(name) != weight) & (owner[name] != 0)).any()
        noise.append(small.model.get_parameter(name)[owner[name] == 0])
    assert float(torch.cat(noise).std()) == pytest.approx(2e-5, rel=0.05)
    assert sum(int((p.abs() > 0.5).sum()) for p in large.model.parameters()) > 1000
    inputs = load_program("hist").inputs
    assert torch.equal(large.model(inputs), plain.model(inputs))
    other = known.build("frac_prevs+hist-small_noise", 1).model
    assert not torch.equal(other.blocks[0].up.weight, small.model.blocks[0].up.weight)


def test_a_hidden_basis_is_the_same_function() -> None:
    """In float64 the turned network gives the same outputs to 1e-9, and hardly a weight is zero any more."""
    plain, _ = side_by_side_network([load_program("frac_prevs"), load_program("hist")])
    turned = copy.deepcopy(plain.double())
    turn_basis(turned, torch.Generator().manual_seed(0))
    inputs = load_program("hist").inputs
    torch.testing.assert_close(turned(inputs), plain(inputs), rtol=0, atol=1e-9)
    assert bool((turned.embedding.weight != 0).all())
    hidden = known.build("frac_prevs+hist-hidden")
    assert (hidden.truth.owner, hidden.truth.necessary, hidden.truth.minimal) == (None, None, None)


def kept(masks: dict[str, Tensor]) -> int:
    """Return how many weights masks keep."""
    return sum(int(mask.sum()) for mask in masks.values())


def test_numbers_of_necessary_weights() -> None:
    """The counts that were measured independently for these programs: 30, 57 and 101, alone and in a pair."""
    for name, count in (("frac_prevs", 30), ("hist", 57), ("reverse", 101)):
        assert kept(known.build(name).truth.necessary[name]) == count
    for name in (n for n in PAIRS if "-" not in n):
        truth = known.build(name).truth
        assert {f: kept(m) for f, m in truth.necessary.items()} == {
            f: {"frac_prevs": 30, "hist": 57, "reverse": 101}[f] for f in truth.necessary
        }, name
        for number, masks in enumerate(truth.necessary.values(), 1):
            assert all(bool((truth.owner[n][m] == number).all()) for n, m in masks.items())


def without(model: nn.Module, name: str, place: tuple[int, ...]) -> nn.Module:
    """Return a copy of a network with one weight at zero."""
    copied = copy.deepcopy(model)
    copied.get_parameter(name)[place] = 0
    return copied


@pytest.mark.parametrize("name", ["frac_prevs+hist", "frac_prevs+hist-large_noise"])
def test_necessary_weights_one_by_one(name: str) -> None:
    """For a sample of weights, the shipped truth is what setting each to zero in a copy shows, on all 1024 inputs."""
    built, generator = known.build(name), torch.Generator().manual_seed(0)
    for function in built.functions.values():
        data, own = function.everything(), built.truth.necessary[function.name]
        for parameter, weight in built.model.named_parameters():
            places = weight.nonzero()
            for place in places[torch.randperm(len(places), generator=generator)[:2]]:
                outputs = without(built.model, parameter, tuple(place))(data["inputs"])
                wrong = ((outputs - data["target"]).abs() >= data["tolerance"]).flatten(1).any(1)
                assert bool(own[parameter][tuple(place)]) == (int(wrong.sum()) > 10), (parameter, place)


def test_shares_that_fail_by_a_plain_loop() -> None:
    """Every weight of one matrix, tried in stacks, fails on as many inputs as in a loop over copies."""
    built = known.build("hist")
    function, name = built.functions["hist"], "blocks.0.attention.query.weight"
    share = failing(built.model, function, (name,))[name]
    for place in built.model.get_parameter(name).nonzero():
        expected = 1 - accuracy(without(built.model, name, tuple(place)), function.everything())
        assert float(share[tuple(place)]) == pytest.approx(expected, abs=1e-12)
    assert float(share[built.model.get_parameter(name) == 0].max()) == 0


@pytest.mark.parametrize(("name", "most"), [("frac_prevs", 30), ("hist", 57), ("reverse", 101)])
def test_small_masks_are_enough(name: str, most: int) -> None:
    """The small mask that is shipped keeps 99 % of the inputs right, is made of the function's weights, and no weight is to spare."""
    built = known.build(name)
    data, mask = built.functions[name].everything(), built.truth.minimal[name]
    assert 0 < kept(mask) <= most
    net = copy.deepcopy(built.model)
    for parameter, keep in mask.items():
        net.get_parameter(parameter).mul_(keep)
    assert accuracy(net, data) >= 0.99
    parameter = "blocks.0.up.weight"
    for place in mask[parameter].nonzero()[:6]:
        assert accuracy(without(net, parameter, tuple(place)), data) < 0.99
