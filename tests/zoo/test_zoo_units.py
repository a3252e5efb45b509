"""Heads and neurons of transformers' networks: found by structure and proven, and exact by surgery in float64. `nox -s zoo`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
import zoo_architectures
from torch import Tensor, nn

import modhook

FOUND = {
    "BERT": ([2, 2], [24, 24]),
    "DistilBERT": ([2, 2], [24, 24]),
    "ModernBERT": ([2, 2], [24, 24]),
    "GPT-2": ([2, 2], [64, 64]),
    "GPT-NeoX": ([2, 2], [24, 24]),
    "OPT": ([2, 2], [24, 24]),
    "Llama": ([4, 4], [24, 24]),
    "Qwen 3": ([4, 4], [24, 24]),
    "OLMo 2": ([4, 4], [24, 24]),  # by their values: queries and keys are normalised over all heads
    "Qwen 2 MoE": ([4, 4], [24, 8, 24, 8]),  # those of the three experts, and the shared one's
    "Mixtral": ([4, 4], [72, 72]),
    "XLNet": ([2, 2], [24, 24]),
    "T5": ([2, 2, 2], [24, 24]),
    "ViT": ([2, 2], [24, 24]),
}
"""Heads and neurons of each module, of encoders, decoders, fused and grouped attention."""


def built(name: str) -> Any:
    """A tiny network of a family, in float64."""
    family = zoo_architectures.FAMILIES[name]
    torch.manual_seed(0)
    return getattr(transformers, family.model)(getattr(transformers, family.config)(**family.sizes)).double().eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FOUND)
def test_heads_and_neurons_are_found(name: str) -> None:
    """The heads and neurons of attention and MLP blocks are found, and no others."""
    units = modhook.units(built(name))
    heads, neurons = ([len(g) for g in units.values() if g.kind == kind] for kind in ("head", "neuron"))
    assert (heads, neurons) == FOUND[name]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "taker"), [("Llama", "o_proj"), ("GPT-2", "c_proj"), ("BERT", "attention.output.dense")])
def test_heads_are_gone(name: str, taker: str) -> None:
    """A head that a mask leaves out gives nothing to the output layer, and everything else is as it was: the heads' outputs are cut
    where the output layer takes them, by a hook on the network as it is."""
    model = built(name)
    ids = zoo_architectures.tokens()
    units = modhook.units(model).select("head")
    group = next(iter(units.values()))
    mask = torch.ones(len(group), dtype=torch.bool)
    mask[1] = False
    masks = modhook.Masks({group.name: mask}, model, units=units)
    (path,) = [n for n, _ in model.named_modules() if n.endswith(taker) and n.startswith(group.module)][:1]
    each = model.get_submodule(path).weight.shape[0 if name == "GPT-2" else 1] // len(group)
    gone = torch.ones(len(group) * each).double()
    gone[each : 2 * each] = 0

    def cut(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0] * gone, *args[1:])

    with torch.no_grad():
        whole = model(ids)[0]
        with masks.applied_to(model):
            masked = model(ids)[0]
        handle = model.get_submodule(path).register_forward_pre_hook(cut)
        expected = model(ids)[0]
        handle.remove()
    torch.testing.assert_close(masked, expected, rtol=0, atol=1e-9)
    assert not torch.allclose(masked, whole, atol=1e-6)
    kept = masks.weights(model)
    touched = [n for n in kept if not kept[n].all()]
    assert len(touched) >= 2, "queries and the output layer at least"


@pytest.mark.filterwarnings("ignore")
def test_a_fit_over_heads_and_neurons() -> None:
    """A network of transformers learns masks over heads and neurons at once, by keyword inputs and the model's own loss."""
    model = built("Llama").float()
    batches = [{"input_ids": zoo_architectures.tokens().repeat(2, 1)[:4]}]
    fit = modhook.fit_masks(
        model,
        batches,
        lambda net, batch: net(**batch)[0].square().mean(),
        steps=2,
        samples=2,
        units=["head", "neuron"],
        progress=False,
    )
    assert {g.kind for g in (fit.masks.units or {}).values()} == {"head", "neuron"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["BERT", "GPT-2", "GPT-NeoX", "Llama", "Qwen 3", "T5"])
def test_gates_on_activations(name: str) -> None:
    """Heads and neurons of transformers' networks run as gates on activations, with the logits of masks of weights."""
    model = built(name)
    batch = {"input_ids": zoo_architectures.tokens().repeat(2, 1)}
    if model.config.is_encoder_decoder:
        batch["decoder_input_ids"] = batch["input_ids"]
    fits = [
        modhook.fit_masks(
            model, [batch], lambda net, batch: net(**batch)[0].sin().square().mean(), units=["head", "neuron"], samples=2, steps=2,
            lr=1.0, optimizer="sgd", clip=None, executor=executor, progress=False,
        )
        for executor in ("auto", "loop")
    ]  # fmt: skip
    assert fits[0].route["route"] == "activations", fits[0].route["reason"]
    for group, logits in fits[0].logits.items():
        torch.testing.assert_close(logits, fits[1].logits[group], rtol=0, atol=1e-9)


def without(tensor: Tensor, axis: int, gone: list[int]) -> nn.Parameter:
    """The tensor without some places along an axis."""
    return nn.Parameter(tensor.detach().index_select(axis, torch.tensor([i for i in range(tensor.shape[axis]) if i not in gone])))


@pytest.mark.filterwarnings("ignore")
def test_heads_of_a_module_s_own_parameters_are_gone() -> None:
    """A head of XLNet that a mask leaves out is as if the network had been built without it: every parameter has one head less."""
    model = built("XLNet")
    ids = zoo_architectures.tokens()
    units = modhook.units(model).select("head")
    group = units["head:layer.1.rel_attn"]
    masks = modhook.Masks({group.name: torch.tensor([True, False])}, model, units=units)
    smaller = built("XLNet")
    attention = smaller.get_submodule("layer.1.rel_attn")
    for name in ("q", "k", "v", "o", "r", "r_r_bias", "r_s_bias", "r_w_bias", "seg_embed"):
        setattr(attention, name, without(getattr(attention, name), -2, [1]))
    attention.n_head = 1
    with torch.no_grad(), masks.applied_to(model):
        masked = model(ids, token_type_ids=ids % 2)[0]
    with torch.no_grad():
        expected, whole = smaller(ids, token_type_ids=ids % 2)[0], built("XLNet")(ids, token_type_ids=ids % 2)[0]
    torch.testing.assert_close(masked, expected, rtol=0, atol=1e-9)
    assert not torch.allclose(masked, whole, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_neurons_of_experts_are_gone() -> None:
    """Neurons of one of Mixtral's experts that a mask leaves out give nothing: what is left is the others' sum, expert by expert."""
    model = built("Mixtral")
    experts = model.get_submodule("layers.0.mlp.experts")
    units = modhook.units(model).select("neuron")
    group = units["neuron:layers.0.mlp.experts"]
    n, gone = len(group) // experts.num_experts, [(0, 3), (1, 0), (2, 5)]
    assert group.labels[n + 2] == "1.2"
    mask = torch.ones(len(group), dtype=torch.bool)
    mask[[e * n + i for e, i in gone]] = False
    masks = modhook.Masks({group.name: mask}, model, units=units)
    x, weights = torch.randn(5, experts.gate_up_proj.shape[2]).double(), torch.rand(5, 2).double()
    chosen = torch.tensor([[0, 1], [1, 2], [2, 0], [0, 2], [1, 0]])
    expected = torch.zeros_like(x)
    with torch.no_grad():
        for item in range(5):
            for e, share in zip(chosen[item].tolist(), weights[item], strict=True):
                left = [i for i in range(n) if (e, i) not in gone]
                rows, columns = experts.gate_up_proj[e], experts.down_proj[e][:, left]
                act = torch.nn.functional.silu(rows[:n][left] @ x[item]) * (rows[n:][left] @ x[item])
                expected[item] += share * (columns @ act)
        with masks.applied_to(model):
            masked = experts(x, chosen, weights)
    torch.testing.assert_close(masked, expected, rtol=0, atol=1e-9)
