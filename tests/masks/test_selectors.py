"""Parameters chosen by modules: their paths, themselves, their types, and functions; beside patterns of names."""

from __future__ import annotations

import copy
import pickle
import random
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import modhook
from modhook import Masks, matching, select
from modhook.errors import PatternError, UserError


class Block(nn.Module):
    """Attention and a feed-forward part; `heads[0]` is a name with brackets."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2)
        self.add_module("heads[0]", nn.Linear(4, 4))
        self.mlp = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
        self.norm = nn.LayerNorm(4)


class Network(nn.Module):
    """Embedding, twelve blocks, and an output whose weight is the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.layer = nn.ModuleList(Block() for _ in range(12))
        self.output = nn.Linear(4, 5)
        self.output.weight = self.embedding.weight
        self.act = nn.ReLU()
        self.steps = nn.Parameter(torch.zeros(2, dtype=torch.long), requires_grad=False)


@pytest.fixture(scope="module")
def model() -> Network:
    """The network; nothing here changes it."""
    torch.manual_seed(0)
    return Network()


def under(model: nn.Module, *paths: str) -> tuple[str, ...]:
    """What lies below these paths, by a loop over all names."""
    tied = {id(p): n for n, p in reversed(list(model.named_parameters(remove_duplicate=False)))}
    found = {
        tied[id(p)]
        for n, p in model.named_parameters(remove_duplicate=False)
        if any(n.startswith(f"{path}.") for path in paths) and p.is_floating_point()
    }
    return tuple(n for n, _ in model.named_parameters() if n in found)


def test_a_path_chooses_all_below_it(model: Network) -> None:
    """A module's path means its parameters and those of its submodules, and of no module whose path begins alike."""
    assert select(model, "layer.1", ()) == under(model, "layer.1")  # not of layer.10 and layer.11
    assert select(model, ["layer.0.attention", "output"], ()) == (
        "embedding.weight",
        *under(model, "layer.0.attention"),
        "output.bias",
    )
    assert select(model, "layer.?.mlp", ()) == under(model, *(f"layer.{i}.mlp" for i in range(10)))
    assert select(model, "layer.*.attention", ()) == under(model, *(f"layer.{i}.attention" for i in range(12)))
    assert select(model, "layer.3.heads[0]", ()) == under(model, "layer.3.heads[0]")


def test_modules_types_and_functions_choose(model: Network) -> None:
    """The network's own modules, types of modules, and functions of name, parameter and module choose what a loop says."""
    block = model.layer[2]
    assert select(model, block.mlp, ()) == select(model, [block.mlp[0], block.mlp[2]], ()) == under(model, "layer.2.mlp")
    assert select(model, nn.LayerNorm, ()) == under(model, *(f"layer.{i}.norm" for i in range(12)))
    linear = tuple(n for n in (p for p, _ in model.named_modules()) if isinstance(model.get_submodule(n), nn.Linear))
    assert select(model, {nn.Linear}, ()) == under(model, *linear)
    assert select(model, lambda name, parameter: parameter.dim() == 1 and "norm" in name, ()) == under(
        model, *(f"layer.{i}.norm" for i in range(12))
    )
    seen: list[tuple[str, Any]] = []

    def held(name: str, parameter: Tensor, module: nn.Module) -> Tensor:
        seen.append((name, module))
        return torch.tensor(any(parameter is own for own in module.parameters(recurse=False)))

    assert len(select(model, held, ())) == len(list(model.parameters())) - 1
    assert all(module is model.get_submodule(name.rpartition(".")[0]) for name, module in seen)
    least = 8
    wide = select(model, lambda name, parameter, least=least: len(parameter) >= least, ())  # its own default is no module
    assert wide == tuple(n for n, p in model.named_parameters() if p.is_floating_point() and len(p) >= least)
    everything = select(model, "*", ())
    assert select(model, model, nn.MultiheadAttention) == tuple(n for n in everything if "attention" not in n)
    assert matching(model, (nn.Embedding, "output"), "copied") == ("embedding.weight", "output.bias")


def test_a_tied_parameter_is_chosen_by_any_of_its_names(model: Network) -> None:
    """The weight of embedding and output is taken, and taken out, by either path, module, type or name."""
    for one in ("output", model.output, lambda name, parameter: name == "output.weight"):
        assert "embedding.weight" in select(model, one, ())
        assert "embedding.weight" not in select(model, "*", one)
    assert "embedding.weight" not in select(model, "*", nn.Embedding)
    shared = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Sequential())
    shared[1].add_module("again", shared[0])
    assert select(shared, "1.again", ()) == select(shared, "1", ()) == select(shared, shared[0], ()) == ("0.weight",)


def test_old_patterns_choose_what_they_did(model: Network) -> None:
    """Whatever matches a parameter's name is a pattern of names alone: 300 random ones choose what fnmatch says."""
    drawn = random.Random(0)
    names = [n for n, p in model.named_parameters(remove_duplicate=False) if p.is_floating_point()]
    compared = 0
    for _ in range(300):
        name = drawn.choice(names)
        start, stop = sorted(drawn.sample(range(len(name) + 1), 2))
        pattern = name[:start] + drawn.choice("*?") + name[stop:]
        matched = {n for n in names if fnmatchcase(n, pattern)}
        if not matched:
            continue
        compared += 1
        first = {n: "embedding.weight" if n == "output.weight" else n for n in matched}
        assert set(select(model, pattern, ())) == set(first.values())
    assert compared > 100


@pytest.mark.parametrize(
    ("include", "message"),
    [
        ("layer.0.atention", r"include pattern 'layer.0.atention' matches no parameter \(did you mean 'layer.0.attention'"),
        ("act", "include pattern 'act' matches no parameter: that is a ReLU, and no parameter in it can be masked"),
        (nn.Conv2d, "include: no Conv2d of the network holds a parameter that can be masked; its modules are: Network, "),
        (nn.ReLU, "include: no ReLU of the network holds a parameter"),
        (nn.Linear(1, 1), "include: the Linear that was given is no module of this network"),
        (nn.Identity(), "include: the Identity that was given is no module"),
        (lambda name, parameter: False, "include: the function .* returns True for no parameter; the network's"),
        (lambda name, parameter: None, "must return True or False, but returned None for 'steps'|for 'embedding.weight'"),
        (lambda name, parameter: 1 / 0, "fails at 'embedding.weight': ZeroDivisionError: division by zero"),
        (lambda name: True, "fails at 'embedding.weight': TypeError"),
        (int, "include must be a pattern or a list of patterns, .*, not the type int"),
        ([nn.Linear, 3], "include must be a pattern or a list of patterns, .*, not 3"),
        ({"layer": 1}, "include must be a pattern or a list of patterns, .*, not dict"),
        (torch.ones(2), "include must be a pattern or a list of patterns, .*, not torch.Tensor"),
    ],
)
def test_what_chooses_nothing_is_one_sentence(model: Network, include: Any, message: str) -> None:
    """A near miss for paths, too; modules of another network, functions that fail and other objects are named."""
    with pytest.raises(UserError, match=message) as caught:
        select(model, include, ())
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_near_miss_of_a_type() -> None:
    """A type that no module has is told with the nearest that there is."""
    with pytest.raises(PatternError, match=r"no Conv2d .* \(did you mean 'Conv1d'\?\)"):
        select(nn.Sequential(nn.Conv1d(1, 1, 1)), nn.Conv2d)


def test_masks_are_selected_by_the_same(model: Network, tmp_path: Path) -> None:
    """Masks take what `select` takes; modules are found in the network that they were made with, or in the one given."""
    every = {n: torch.ones(p.shape, dtype=torch.bool) for n, p in model.named_parameters() if p.is_floating_point()}
    masks = Masks(every, model)
    for one in ("layer.1", model.layer[1], nn.LayerNorm, lambda name, parameter: parameter.dim() == 3 or "mlp" in name):
        assert tuple(masks.select(one)) == select(model, one, ())
    assert tuple((~masks).select(nn.Linear).select("output")) == ("embedding.weight", "output.bias")
    assert "output.bias" not in masks.select("*", exclude=model.output)
    masks.save(tmp_path / "masks.safetensors")
    assert set(Masks.load(tmp_path / "masks.safetensors", model).select(nn.LayerNorm)) == {*select(model, nn.LayerNorm, ())}
    for other in (copy.deepcopy(masks), pickle.loads(pickle.dumps(masks)), Masks(every)):
        assert tuple(other.select("layer.1")) == under(model, "layer.1")
        with pytest.raises(UserError, match=r"the type LayerNorm chooses among the modules of a network, and these masks know none"):
            other.select(nn.LayerNorm)
        assert tuple(other.select(nn.LayerNorm, model=model)) == select(model, nn.LayerNorm, ())


def test_fits_mask_what_modules_choose() -> None:
    """`fit_masks` and its densities by paths: the masks are those of the same parameters named one by one, bit for bit."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 2)).eval()
    x = torch.randn(8, 4)

    def fitted(include: Any, density: Any = None) -> Masks:
        return modhook.fit_masks(
            net, [x], lambda net, b: net(b).square().mean(), steps=4, lr=1.0, include=include, density=density, progress=False
        ).masks

    assert fitted(net[2]) == fitted("2") == fitted("2.0.weight")
    assert fitted(nn.Linear) == fitted(["0.weight", "2.0.weight", "3.weight"])
    dense = fitted("*", {"2": 0.5, nn.Linear: 0.25})
    assert dense == fitted("*", {"2.0.weight": 0.5, "*": 0.25})
    assert dense["2.0.weight"].sum() == 18
