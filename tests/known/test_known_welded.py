"""Welded networks against their parts alone, unit by unit; superposed features against the formula; networks with nothing to find."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file

from modhook_tasks import known
from modhook_tasks.known import welded
from modhook_tasks.known.compiled import FILES
from modhook_tasks.known.joining import Axis, join, shuffled
from modhook_tasks.known.structure import accuracy

KINDS = ("fnn", "cnn", "lstm", "transformer")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 3])
def test_the_joined_network_answers_as_the_parts(kind: str, seed: int) -> None:
    """Asked for a function, the joined network gives that part's logits, and its recorded accuracy, whatever the shuffle."""
    built = known.build(f"welded_{kind}", seed)
    for name, function in built.functions.items():
        part = welded.empty(kind, 1).eval()
        part.load_state_dict(load_file(FILES / f"part_{kind}_{name}.safetensors"))
        inputs = function.test["inputs"][:300]
        with torch.no_grad():
            torch.testing.assert_close(built.model(inputs), part(inputs), rtol=1e-4, atol=1e-4)
        alone = accuracy(part, function.test)
        assert built.parts[name] == pytest.approx(alone, abs=2e-3)
        assert accuracy(built.model, function.test) == pytest.approx(alone, abs=2e-3)
        assert alone > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_one_part_is_all_that_its_function_needs(kind: str) -> None:
    """With the other part's weights and the gate at zero, biases too, the logits are the same: the owners are right."""
    built = known.build(f"welded_{kind}", 1)
    owner = built.truth.owner
    assert owner is not None
    for function in built.functions.values():
        net = copy.deepcopy(built.model)
        for name, weight in net.named_parameters():
            weight.mul_(owner[name] == function.number)
        inputs = function.test["inputs"][:300]
        torch.testing.assert_close(net(inputs), built.model(inputs), rtol=1e-4, atol=1e-4)
        count = sum(int((o == function.number).sum()) for o in owner.values())
        part = load_file(FILES / f"part_{kind}_{function.name}.safetensors")
        assert count == sum(int((t != 0).sum()) for t in part.values())
    shuffles = [known.build(f"welded_{kind}", seed).model.features.bias for seed in (1, 2)]
    assert not torch.equal(*shuffles)
    assert torch.equal(*(s.sort().values for s in shuffles))


def test_join_by_hand() -> None:
    """Entries go where spaces say, blocks and runs of entries with them, and each has its part's number; zeros have nobody's."""
    spaces = {"h": shuffled([2, 1], torch.Generator().manual_seed(0))}
    first, second = (places.tolist() for places in spaces["h"].places)
    assert sorted(first + second) == [0, 1, 2]
    parts = [{"w": torch.arange(1.0, 17).view(4, 4)}, {"w": torch.tensor([[17.0, 0], [19, 20]])}]
    joined, owner = join({"w": torch.empty(6, 6)}, parts, {"w": (Axis("h", outer=2), Axis("h", inner=2))}, spaces)
    expected, who = torch.zeros(6, 6), torch.zeros(6, 6, dtype=torch.long)
    for number, (part, units) in enumerate(zip(parts, (first, second), strict=True), 1):
        size = len(units)
        for block in range(2):
            for i, row in enumerate(units):
                for j, column in enumerate(units):
                    for k in range(2):
                        value = part["w"][block * size + i, 2 * j + k]
                        expected[block * 3 + row, 2 * column + k] = value
                        who[block * 3 + row, 2 * column + k] = number if value else 0
    assert torch.equal(joined["w"], expected)
    assert torch.equal(owner["w"], who)


@pytest.mark.parametrize(("name", "count"), [("superposed_5_2", 5), ("superposed_40_10", 40)])
def test_superposed_features(name: str, count: int) -> None:
    """The network is ReLU(W^T W x + b); every feature is there; with its own column alone, its output sees no other feature."""
    built = known.build(name)
    weight, bias = built.model.weight, built.model.bias
    assert len(built.functions) == count > len(weight)
    assert float(weight.norm(dim=0).min()) > 1
    for i, function in enumerate(built.functions.values()):
        data = function.test
        expected = (torch.einsum("mi,mj,bj->bi", weight, weight, data["inputs"]) + bias).clamp(min=0)
        torch.testing.assert_close(built.model(data["inputs"]), expected, rtol=0, atol=1e-5)
        net = copy.deepcopy(built.model)
        net.weight.mul_(built.truth.owner["weight"] == function.number)
        alone = (weight[:, i].square().sum() * data["inputs"][:, i] + bias[i]).clamp(min=0)
        torch.testing.assert_close(net(data["inputs"])[:, i], alone, rtol=0, atol=1e-5)
        right = ((alone - data["inputs"][:, i]).abs() < 0.25).double().mean()
        assert built.parts[function.name] == pytest.approx(float(right), abs=1e-9)
        assert accuracy(built.model, data) > 0.9
        assert float((data["inputs"][:, i] > 0).double().mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("name", ["frac_prevs+hist", "welded_cnn", "welded_lstm"])
def test_nothing_there(name: str) -> None:
    """Untrained and shuffled networks cannot do the functions; shuffled tensors hold the same numbers; no truth is claimed."""
    real = known.build(name)
    for kind in ("untrained", "shuffled"):
        made = known.build(f"{name}/{kind}")
        assert (made.truth.owner, made.truth.necessary) == (None, None)
        for function in made.functions.values():
            assert accuracy(made.model, function.test) < accuracy(real.model, function.test) - 0.2
        again, other = (known.build(f"{name}/{kind}", seed).model.state_dict() for seed in (0, 1))
        assert all(torch.equal(t, again[n]) for n, t in made.model.state_dict().items())
        assert not all(torch.equal(t, again[n]) for n, t in other.items())
        for n, weight in made.model.named_parameters():
            same = torch.equal(weight.flatten().sort().values, real.model.get_parameter(n).flatten().sort().values)
            assert same == (kind == "shuffled") or not weight.any()


@pytest.mark.parametrize("name", ["frac_prevs+hist", "welded_fnn", "superposed_5_2"])
def test_permuted_labels(name: str) -> None:
    """The network is the real one; each answer became another, always the same one for the same answer, in both sets alike."""
    real, made = known.build(name), known.build(f"{name}/permuted")
    assert all(torch.equal(t, real.model.state_dict()[n]) for n, t in made.model.state_dict().items())
    for label, function in made.functions.items():
        true = real.functions[label]
        pairs = set()
        for a, b in ((true.train, function.train), (true.test, function.test)):
            assert torch.equal(a["inputs"], b["inputs"])
            asked = a["tolerance"].isfinite().flatten(0, -2).any(0) if "tolerance" in a else None
            for x, y in zip(a["target"], b["target"], strict=True):
                if asked is None:
                    pairs.add((int(x), int(y)))
                else:
                    rows = zip(x.view(-1, len(asked)), y.view(-1, len(asked)), strict=True)
                    pairs |= {(tuple(p[asked].tolist()), tuple(q[asked].tolist())) for p, q in rows}
        assert len({x for x, _ in pairs}) == len(pairs) == len({y for _, y in pairs})
        if name == "welded_fnn":
            assert all(x != y for x, y in pairs)
        assert accuracy(made.model, function.test) < 0.7
