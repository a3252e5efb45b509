"""Masks to other programs and back: checkpoints, torch's pruning, state dicts, MIB's circuits."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import prune

import modhook
from modhook import Masks, UserError, export
from modhook.errors import MaskError


def some_masks(model: nn.Module) -> Masks:
    """Random masks over all parameters of a network."""
    generator = torch.Generator().manual_seed(1)
    return Masks({n: torch.rand(p.shape, generator=generator) > 0.4 for n, p in model.named_parameters()}, model)


class Tied(nn.Module):
    """An LSTM between an embedding and an output layer that share their weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(7, 4)
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.out = nn.Linear(4, 7)
        self.out.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.out(self.lstm(self.embed(x))[0])
        return result


TOKENS = torch.arange(6).view(2, 3)


def test_a_checkpoint_is_a_plain_file(net: nn.Module, tmp_path: Path, digest: Callable[[nn.Module], str]) -> None:
    """Another network of the same class that loads the file computes what the masked one does; the network is unchanged."""
    before = digest(net)
    masks, x = some_masks(net), torch.randn(5, 4)
    assert export.checkpoint(masks, net, tmp_path / "plain.safetensors") == tmp_path / "plain.safetensors"
    fresh = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.fill_(9)
    fresh.load_state_dict(load_file(tmp_path / "plain.safetensors"))
    with masks.applied_to(net):
        assert torch.equal(fresh(x), net(x))
    assert digest(net) == before
    export.checkpoint(masks, net, tmp_path / "off.safetensors", "redrawn", seed=3)
    assert torch.equal(
        load_file(tmp_path / "off.safetensors")["3.weight"], masks.materialize(net, "redrawn", seed=3)[3].weight
    )
    model = Tied()
    export.checkpoint(some_masks(model), model, str(tmp_path / "tied.safetensors"))
    state = load_file(tmp_path / "tied.safetensors")
    assert torch.equal(state["embed.weight"], state["out.weight"])
    assert torch.equal(state["out.weight"], model.out.weight.detach() * some_masks(model)["out.weight"])


class Pretrained(nn.Linear):
    """A network that saves itself, as those of transformers do."""

    def save_pretrained(self, folder: str) -> None:
        """Write the sum of the weights."""
        Path(folder).mkdir(exist_ok=True)
        (Path(folder) / "sum").write_text(str(float(self.weight.detach().sum())))


def test_a_network_saves_itself_where_it_can(tmp_path: Path) -> None:
    """`save_pretrained` is called on the masked copy; a file in the folder's place is said, and left alone."""
    model = Pretrained(3, 2)
    masks = Masks({"weight": torch.tensor([[True, False, True], [False, False, True]])}, model)
    export.checkpoint(masks, model, tmp_path / "folder")
    by_hand = float((model.weight.detach() * masks["weight"]).sum())
    assert float((tmp_path / "folder" / "sum").read_text()) == pytest.approx(by_hand)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file, but Pretrained is saved to a folder"):
        export.checkpoint(masks, model, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_transformers_save_and_load(tmp_path: Path) -> None:
    """A network of transformers is loaded again by transformers, without a word of masks in it."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=8,
    )
    torch.manual_seed(0)
    model = transformers.BertModel(config).eval()
    masks = some_masks(model)
    export.checkpoint(masks, model, tmp_path / "bert")
    back = transformers.BertModel.from_pretrained(tmp_path / "bert").eval()
    with masks.applied_to(model), torch.no_grad():
        assert torch.equal(back(TOKENS).last_hidden_state, model(TOKENS).last_hidden_state)


def test_prune_computes_what_the_masks_do() -> None:
    """A network pruned with masks, tied and recurrent weights among them, equals the masked copy, and gives the masks back."""
    model = Tied().eval()
    masks = some_masks(model)
    expected = masks.materialize(model)(TOKENS)
    pruned = export.prune(masks, copy.deepcopy(model))
    assert prune.is_pruned(pruned)
    assert torch.equal(pruned(TOKENS), expected)
    assert "lstm.weight_hh_l0_orig" in dict(pruned.named_parameters())
    back = export.from_prune(pruned, model)
    assert back == masks
    assert back.fingerprint == masks.fingerprint
    assert export.from_prune(pruned).kept() == masks.kept() + masks.kept(per_tensor=True)["embed.weight"], "both names"
    assert export.from_state_dict(pruned.state_dict(), model) == masks
    twice = nn.ModuleDict({"a": nn.Linear(2, 2)})
    twice["b"] = twice["a"]
    export.prune(Masks({"a.weight": torch.eye(2, dtype=torch.bool)}), twice)
    assert torch.equal(twice["b"].weight, twice["a"].weight_orig * torch.eye(2))
    for module, name in ((pruned.embed, "weight"), (pruned.out, "weight"), (pruned.lstm, "weight_ih_l0")):
        prune.remove(module, name)
    assert torch.equal(pruned(TOKENS), expected)


def test_what_torch_pruned_is_read(net: nn.Module) -> None:
    """Masks of torch's own methods, several on one tensor, are those that it applies."""
    model = copy.deepcopy(net)
    prune.l1_unstructured(model[0], "weight", amount=0.3)
    prune.ln_structured(model[0], "weight", amount=2, n=2, dim=0)
    prune.random_unstructured(model[3], "bias", amount=1)
    masks = export.from_prune(model, net)
    assert masks.kept(per_tensor=True)["3.bias"] == 2
    assert torch.equal(masks["0.weight"], model[0].weight.detach() != 0)
    assert torch.equal(masks.materialize(net)[0].weight, model[0].weight)


def test_state_dicts_go_both_ways(net: nn.Module, tmp_path: Path) -> None:
    """Bool tensors, and zeros and ones of any type, are masks; torch.save keeps what state_dict gives."""
    masks = some_masks(net)
    torch.save(export.state_dict(masks), tmp_path / "masks.pt")
    assert export.from_state_dict(torch.load(tmp_path / "masks.pt", weights_only=True), net) == masks
    for kind in (torch.float32, torch.uint8, torch.int64, torch.bfloat16):
        assert export.from_state_dict({n: m.to(kind) for n, m in masks.items()}) == masks


def test_masks_of_units_have_no_state_dict(net: nn.Module) -> None:
    """They are no parameters: refused with the way out, whose masks come back; bits without their units are other masks."""
    units = modhook.units(net).select("neuron")
    masks = Masks({n: torch.arange(len(g)) % 2 == 0 for n, g in units.items()}, net, units=units)
    with pytest.raises(MaskError, match=r"are units and no parameters.*masks\.weights\(model\)"):
        export.state_dict(masks)
    weights = masks.weights(net)
    assert export.from_state_dict(export.state_dict(weights), net) == weights
    assert Masks(dict(masks.items())) != masks


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n: export.from_prune(n), "Sequential is not pruned by torch"),
        (lambda n: export.from_prune(3), "pruned must be an nn"),
        (lambda n: export.from_state_dict(n.state_dict()), r"'0\.weight' holds other values than 0 and 1"),
        (lambda n: export.from_state_dict({}), "the state dict is empty"),
        (lambda n: export.from_state_dict([3]), "a state dict of masks is"),
        (lambda n: export.from_state_dict({"0.weight": torch.full((2,), torch.nan)}), "other values than 0 and 1"),
        (lambda n: export.from_state_dict({"w": torch.ones(2)}, n), "'w' has no parameter in Sequential"),
        (lambda n: export.checkpoint(n, n, "x"), "masks must be a modhook"),
        (lambda n: export.checkpoint(some_masks(n), n, 3), "path must be a path"),
        (
            lambda n: export.checkpoint(some_masks(n), n, "/nowhere/x"),
            r"cannot be written to .*nowhere.x: No such file",
        ),
        (lambda n: export.prune(some_masks(n), nn.Linear(2, 2)), "has no parameter in Linear"),
        (lambda n: export.state_dict({}), "masks must be a modhook"),
    ],
)
def test_bad_exports_are_one_sentence(net: nn.Module, call: Callable[[nn.Module], Any], message: str) -> None:
    """What is no mask, does not fit or cannot be written is said, and the network has no parametrisation of it."""
    with pytest.raises(UserError, match=message):
        call(net)
    assert not prune.is_pruned(net)


SCORES = {"a0.h0": 0.5, "a0.h1": 0.25, "m0": 1.0, "a1.h0": 0, "a1.h1": -2.5, "m1": torch.tensor(0.125)}


def test_mib_reads_the_nodes(tmp_path: Path) -> None:
    """The file has the keys, names and order of the benchmark's reader; scores are numbers, and membership is what was given."""
    export.mib(SCORES, tmp_path / "c.json", layers=2, heads=2, width=8, keep=["m0", "a1.h1"])
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["cfg"] == {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8}
    assert list(found["nodes"]) == ["input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1", "logits"]
    assert [n for n, v in found["nodes"].items() if v["in_graph"]] == ["input", "m0", "a1.h1", "logits"]
    assert {n: v["score"] for n, v in found["nodes"].items() if "score" in v} == {
        n: float(v) for n, v in SCORES.items()
    }
    assert found["edges"] == {}


def test_node_scores_are_shares_of_the_nodes_weights() -> None:
    """A head's slices of several tensors are counted together; the whole of a tensor is `...`."""
    masks = Masks(
        {"q": torch.tensor([[1, 1], [0, 0], [1, 0], [0, 0]]).bool(), "o": torch.tensor([[1, 0, 1, 1]]).bool()}
    )
    nodes = {
        "a0.h0": {"q": slice(0, 2), "o": (slice(None), slice(0, 2))},
        "a0.h1": {"q": slice(2, 4), "o": (slice(None), slice(2, 4))},
        "m0": {"o": ...},
    }
    assert export.node_scores(masks, nodes) == {"a0.h0": 3 / 6, "a0.h1": 3 / 6, "m0": 3 / 4}
    for bad, message in (
        ({"m0": {"p": ...}}, r"node 'm0' names 'p'.*has no mask; masked: q, o"),
        ({"m0": {"q": 9}}, "node 'm0': the index 9 of 'q' leaves the tensor"),
        ({"m0": {"q": slice(2, 9)}}, r"node 'm0': the index slice\(2, 9\) of 'q' leaves the tensor"),
        ({"m0": {"q": "a"}}, "node 'm0': the index 'a' of 'q' is none; give a number"),
        ({"m0": {"q": [1, 1]}}, "takes a weight twice"),
        ({"m0": {"q": slice(4, 4)}}, "node 'm0': the index .* takes no weight"),
        ({"m0": {}}, "node 'm0' has no weight"),
    ):
        with pytest.raises(UserError, match=message):
            export.node_scores(masks, bad)


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        ({**SCORES, "a2.h0": 1.0}, {}, r"no node 'a2.h0' \(did you mean .*in 2 layers of 2 heads"),
        ({n: v for n, v in SCORES.items() if n != "m1"}, {}, "no score for m1; the benchmark would always keep"),
        ({**SCORES, "m1": float("nan")}, {}, "the score of 'm1' must be a finite number"),
        ([1, 2], {}, "scores must be"),
        (SCORES, {"keep": ["m7"]}, "no node 'm7'"),
        (SCORES, {"layers": 0}, "layers must be a whole number of at least 1"),
        (SCORES, {"path": "/nowhere/c.json"}, "the circuit cannot be written to"),
    ],
)
def test_bad_circuits_are_one_sentence(scores: Any, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    """A node too many, one too few, a score that is no number: said, and no file is left."""
    path = options.pop("path", tmp_path / "c.json")
    with pytest.raises(UserError, match=message):
        export.mib(scores, path, **{"layers": 2, "heads": 2, "width": 8, **options})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a\0b", ""])
def test_names_that_no_file_can_have(name: str) -> None:
    """A null byte in a path, and no name at all, are one sentence of whatever writes the file."""
    model = nn.Linear(2, 2)
    masks = Masks({"weight": torch.ones(2, 2, dtype=torch.bool)}, model)
    for write in (
        lambda: masks.save(name),
        lambda: export.checkpoint(masks, model, name),
        lambda: export.mib({"a0.h0": 0.5, "m0": 0.2}, name, layers=1, heads=1, width=1),
    ):
        with pytest.raises(UserError, match=r"cannot be written.*no file can have this name"):
            write()
    with pytest.raises(UserError, match="nodes must be"):
        export.node_scores(masks, None)  # type: ignore[arg-type]


def test_it_is_one_namespace() -> None:
    """`modhook.export` is a module of functions, each of them listed."""
    assert all(callable(getattr(modhook.export, name)) for name in modhook.export.__all__)
