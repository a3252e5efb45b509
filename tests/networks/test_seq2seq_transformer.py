"""The Transformer against the stock `nn.Transformer`, against itself decoded step by step, and its initialisation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import modhook
from modhook_plugins.networks.seq2seq_transformer import (
    Seq2SeqTransformer,
    TransformerEncoderDecoder,
    TransformerOptions,
    positions,
)

SMALL = TransformerOptions(dim=8, heads=2, encoder_layers=2, decoder_layers=2, dropout=0.0)


def build(tied: bool = False) -> TransformerEncoderDecoder:
    """Return a small network in float64."""
    torch.manual_seed(3)
    options = TransformerOptions(dim=8, heads=2, encoder_layers=2, decoder_layers=2, dropout=0.0, tied=tied)
    return TransformerEncoderDecoder(6, 6, options).double().eval()


def batch(padding: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return source (4, 5), lengths and target (4, 6); beyond its length a source holds `padding`."""
    rng = torch.Generator().manual_seed(1)
    lengths = torch.tensor([5, 1, 3, 2])
    source = torch.randint(1, 6, (4, 5), generator=rng)
    return (
        torch.where(torch.arange(5) < lengths[:, None], source, padding),
        lengths,
        torch.randint(0, 6, (4, 6), generator=rng),
    )


def test_forced_equals_the_stock_transformer() -> None:
    """The same weights in `nn.Transformer`, without its final norms, give the same logits."""
    net = build()
    source, lengths, target = batch()
    stock = nn.Transformer(
        8, 2, 2, 2, 16, 0.0, batch_first=True, custom_encoder=nn.Identity(), custom_decoder=nn.Identity()
    )
    stock.encoder = nn.TransformerEncoder(net.encoder[0], 2, enable_nested_tensor=False)
    stock.decoder = nn.TransformerDecoder(net.decoder[0], 2)
    stock.encoder.layers, stock.decoder.layers = net.encoder, net.decoder
    read = torch.cat([torch.full((4, 1), 6), target[:, :-1]], 1)
    hidden = stock.double().eval()(
        net.source_embedding(source) + positions(0, 5, 8, source.device),
        net.target_embedding(read) + positions(0, 6, 8, source.device),
        tgt_mask=torch.ones(6, 6, dtype=torch.bool).triu(1),
        src_key_padding_mask=torch.arange(5) >= lengths[:, None],
        memory_key_padding_mask=torch.arange(5) >= lengths[:, None],
    )
    torch.testing.assert_close(net(source, lengths, target), net.output(hidden), rtol=0, atol=1e-12)


@pytest.mark.parametrize("tied", [False, True])
def test_greedy_equals_forcing_with_its_own_tokens(tied: bool) -> None:
    """The step-by-step decoder is the same network as the forced one, and reads nothing of the target but its length."""
    net = build(tied)
    source, lengths, target = batch()
    own = net(source, lengths, target, teacher_forcing=False)
    torch.testing.assert_close(net(source, lengths, own.argmax(-1)), own, rtol=0, atol=1e-12)
    assert torch.equal(net(source, lengths, target * 0, teacher_forcing=False), own)


@pytest.mark.parametrize("forced", [True, False])
def test_padding_never_reaches_an_item(forced: bool) -> None:
    """Logits depend on no padding, and are those of the item alone."""
    net = build()
    source, lengths, target = batch()
    together = net(source, lengths, target, teacher_forcing=forced)
    torch.testing.assert_close(net(*batch(padding=5), teacher_forcing=forced), together, rtol=0, atol=1e-12)
    for i, n in enumerate(lengths.tolist()):
        alone = net(source[i : i + 1, :n], lengths[i : i + 1], target[i : i + 1], teacher_forcing=forced)
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-12)


def test_positions_by_formula() -> None:
    """Position p, pair i: sin and cos of p / 10000^(2i/d)."""
    table = positions(3, 2, 4, torch.device("cpu"))
    rows = [[f(p / 10_000 ** (2 * i / 4)) for i in (0, 1) for f in (math.sin, math.cos)] for p in (3, 4)]
    torch.testing.assert_close(table, torch.tensor(rows))


def test_initialisation() -> None:
    """Xavier bounds of query, key, value and feed-forward matrices; unit embeddings; no bias in attention; SCAN's sizes."""
    torch.manual_seed(0)
    net = Seq2SeqTransformer(TransformerOptions()).build({"source_vocabulary": 14, "target_vocabulary": 7})
    names = dict(net.named_parameters())
    assert not [n for n in names if "attn" in n and "bias" in n]
    assert [n for n in names if n.startswith("output")] == ["output.weight", "output.bias"]
    bound = (6 / 200) ** 0.5
    for chunk in names["encoder.0.self_attn.in_proj_weight"].chunk(3):
        assert 0.99 * bound < chunk.abs().max() <= bound
    wide = 2**0.5 * (6 / 300) ** 0.5
    assert 0.99 * wide < names["decoder.2.linear1.weight"].abs().max() <= wide
    readout = (6 / 107) ** 0.5
    assert 0.97 * readout < names["output.weight"].abs().max() <= readout
    assert names["target_embedding.weight"].shape == (8, 100)
    assert abs(float(names["target_embedding.weight"].detach().std()) - 1) < 0.1


def test_tied_has_one_embedding_and_scaled_output() -> None:
    """Tied: one table of V rows serves source, target, start symbol and output, which has no bias."""
    net = build(tied=True)
    assert [n for n, _ in net.named_parameters() if "embedding" in n or "output" in n] == ["target_embedding.weight"]
    assert net.target_embedding.weight.shape == (6, 8)
    x = torch.randn(2, 8, dtype=torch.float64)
    torch.testing.assert_close(net.readout(x), x @ net.target_embedding.weight.T / 8**0.5)


def test_the_paper_s_size_for_mathematics() -> None:
    """d 512, 8 heads, 6 + 6 layers, feed-forward x4, tied: as many numbers as the formula counts, no bias in attention."""
    options = TransformerOptions(512, heads=8, encoder_layers=6, decoder_layers=6, feedforward=4, tied=True)
    with torch.device("meta"):
        net = Seq2SeqTransformer(options).build({"source_vocabulary": 50, "target_vocabulary": 50})
    d, attention, norm = 512, 4 * 512 * 512, 2 * 512
    feedforward = d * 4 * d + 4 * d + 4 * d * d + d
    expected = 50 * d + 6 * (attention + feedforward + 2 * norm) + 6 * (2 * attention + feedforward + 3 * norm)
    assert sum(p.numel() for p in net.parameters()) == expected
    assert net.encoder[0].self_attn.num_heads == net.decoder[5].multihead_attn.num_heads == 8


def test_tied_by_formula() -> None:
    """The whole tied network, item by item and head by head in numpy: post-norm, no final norm, scaled by 1 / sqrt(d)."""
    net = build(tied=True)
    for p in net.parameters():  # norms and biases that are not 1 and 0
        p.data += 0.1 * torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(p.numel()))
    w = {n: p.detach().numpy() for n, p in net.named_parameters()}
    table = w["target_embedding.weight"]  # (6, 8)

    def attend(name: str, x: np.ndarray, y: np.ndarray, causal: bool = False) -> np.ndarray:
        q, k, v = (z @ m.T for z, m in zip((x, y, y), np.split(w[f"{name}.in_proj_weight"], 3), strict=True))
        heads = []
        for h in (slice(0, 4), slice(4, 8)):
            found = q[:, h] @ k[:, h].T / 2.0  # sqrt(4)
            found = np.exp(np.where(np.tri(*found.shape, dtype=bool) | (not causal), found, -np.inf))
            heads.append(found / found.sum(1, keepdims=True) @ v[:, h])
        return np.concatenate(heads, 1) @ w[f"{name}.out_proj.weight"].T

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def forward(name: str, x: np.ndarray) -> np.ndarray:
        hidden = np.maximum(x @ w[f"{name}.linear1.weight"].T + w[f"{name}.linear1.bias"], 0)
        return hidden @ w[f"{name}.linear2.weight"].T + w[f"{name}.linear2.bias"]

    def embed(tokens: list[int]) -> np.ndarray:
        angles = [[t / 10_000 ** (2 * (i // 2) / 8) for i in range(8)] for t in range(len(tokens))]
        waves = [[math.cos(a) if i % 2 else math.sin(a) for i, a in enumerate(row)] for row in angles]
        return table[tokens] + np.array(waves)

    source, lengths, target = batch()
    logits = net(source, lengths, target)
    for item, n in enumerate(lengths.tolist()):
        x = embed(source[item, :n].tolist())
        for i in (0, 1):
            x = norm(f"encoder.{i}.norm1", x + attend(f"encoder.{i}.self_attn", x, x))
            x = norm(f"encoder.{i}.norm2", x + forward(f"encoder.{i}", x))
        y = embed([0, *target[item, :-1].tolist()])
        for i in (0, 1):
            y = norm(f"decoder.{i}.norm1", y + attend(f"decoder.{i}.self_attn", y, y, causal=True))
            y = norm(f"decoder.{i}.norm2", y + attend(f"decoder.{i}.multihead_attn", y, x))
            y = norm(f"decoder.{i}.norm3", y + forward(f"decoder.{i}", y))
        np.testing.assert_allclose(logits[item].detach().numpy(), y @ table.T / math.sqrt(8), rtol=0, atol=1e-6)


def test_refusals() -> None:
    """Another kind of task, unequal vocabularies and heads that do not divide are refused in a sentence."""
    with pytest.raises(modhook.UserError, match="needs a sequence task"):
        Seq2SeqTransformer(SMALL).build({"inputs": 42})
    with pytest.raises(modhook.UserError, match="vocabularies have 3 and 4"):
        Seq2SeqTransformer(TransformerOptions(tied=True)).build({"source_vocabulary": 3, "target_vocabulary": 4})
    with pytest.raises(modhook.UserError, match="divisible by heads"):
        Seq2SeqTransformer(TransformerOptions(dim=10, heads=4))


@pytest.mark.parametrize("forced", [True, False])
def test_runs_stacked_without_a_loop(forced: bool) -> None:
    """Two parameter sets at once give outputs and gradients of two plain networks."""
    net = build()
    params = {n: torch.stack([p.detach() * s for s in (0.5, 1.5)]).requires_grad_() for n, p in net.named_parameters()}
    stacked = modhook.stack(net, samples=2, executor="vmap")
    outputs = stacked(params, *(torch.stack([t, t.flip(0)]) for t in batch()), teacher_forcing=forced)
    outputs.square().sum().backward()
    for k in range(2):
        alone = build()
        alone.load_state_dict({n: p[k].detach() for n, p in params.items()})
        expected = alone(*(t if k == 0 else t.flip(0) for t in batch()), teacher_forcing=forced)
        torch.testing.assert_close(outputs[k], expected, rtol=0, atol=1e-10)
        expected.square().sum().backward()
        for name, p in alone.named_parameters():
            torch.testing.assert_close(params[name].grad[k], p.grad, rtol=1e-8, atol=1e-8, msg=name)
