"""A unit that a mask leaves out is gone: the network computes what the same network computes without the unit's weights.

The other side of each comparison is a network that has been cut: smaller layers with what is left of the weights, or attention written
out over the heads that are left.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook import Masks

NEAR = {"rtol": 0.0, "atol": 1e-9}


def kept(model: nn.Module, gone: dict[str, list[int]]) -> Masks:
    """Masks over all units of these groups but those that are gone."""
    units = modhook.units(model)
    masks = {}
    for name, numbers in gone.items():
        masks[name] = torch.ones(len(units[name]), dtype=torch.bool)
        masks[name][numbers] = False
    return Masks(masks, model, units=units)


def drawn(model: nn.Module) -> nn.Module:
    """The network in float64, with weights, biases and statistics that are all different."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + 0.5 if "var" in name else torch.randn_like(buffer))
    return model.double().eval()


def left(size: int, gone: list[int]) -> Tensor:
    """The numbers of the units that are left."""
    return torch.tensor([i for i in range(size) if i not in gone])


def test_neurons_of_a_chain() -> None:
    """Neurons behind a batch norm and an activation that is not 0 at 0: smaller linear layers."""
    model = drawn(
        nn.Sequential(
            nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Sigmoid(), nn.Dropout(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3)
        )
    )
    masks = kept(model, {"neuron:0": [2, 5], "neuron:4": [0]})
    a, b = left(7, [2, 5]), left(6, [0])
    small = (
        nn.Sequential(
            nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Sigmoid(), nn.Dropout(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3)
        )
        .double()
        .eval()
    )
    state = {k: v.clone() for k, v in model.state_dict().items()}
    for name in ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
        state[name] = state[name][a]
    state["4.weight"], state["4.bias"] = state["4.weight"][b][:, a], state["4.bias"][b]
    state["6.weight"] = state["6.weight"][:, b]
    small.load_state_dict(state)
    x = torch.randn(4, 5).double()
    with masks.applied_to(model):
        torch.testing.assert_close(model(x), small(x), **NEAR)
    torch.testing.assert_close(masks.weights(model).materialize(model)(x), small(x), **NEAR)


class Images(nn.Module):
    """Convolutions with batch norm, one of them depthwise, one added to another, pooled and flattened."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(2, a, 3, padding=1), nn.BatchNorm2d(a)
        self.deep = nn.Conv2d(a, a, 3, padding=1, groups=a)
        self.two, self.skip = nn.Conv2d(a, b, 3, padding=1, bias=False), nn.Conv2d(a, b, 1)
        self.out = nn.Linear(b * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2, 4, 4) -> (B, 3)."""
        x = F.gelu(self.norm(self.one(x)))
        x = self.deep(x).sigmoid()
        x = F.max_pool2d(self.two(x) + self.skip(x), 2).relu()
        return self.out(torch.flatten(x, 1))


def test_channels_with_batch_norm() -> None:
    """Channels through batch norm, a depthwise convolution, a sum and a flattening: smaller convolutions."""
    model = drawn(Images(5, 4))
    masks = kept(model, {"channel:one": [1], "channel:two": [0, 3]})
    a, b = left(5, [1]), left(4, [0, 3])
    small = Images(4, 2).double().eval()
    small.deep = nn.Conv2d(4, 4, 3, padding=1, groups=4).double()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    for name in list(state):
        if name.startswith(("one", "norm", "deep")) and state[name].dim():
            state[name] = state[name][a]
    state["two.weight"], state["skip.weight"] = state["two.weight"][b][:, a], state["skip.weight"][b][:, a]
    state["skip.bias"] = state["skip.bias"][b]
    state["out.weight"] = state["out.weight"].view(3, 4, 4)[:, b].reshape(3, 8)
    small.load_state_dict(state)
    x = torch.randn(3, 2, 4, 4).double()
    with masks.applied_to(model):
        torch.testing.assert_close(model(x), small(x), **NEAR)


class Reader(nn.Module):
    """A recurrent layer of two levels in both directions, read at its end and by its states."""

    def __init__(self, kind: Callable[..., nn.RNNBase], hidden: int, **options: Any) -> None:
        super().__init__()
        self.rnn = kind(3, hidden, 2, batch_first=True, bidirectional=True, **options)
        self.out, self.last = nn.Linear(2 * hidden, 2), nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 3) -> (B, 2)."""
        y, state = self.rnn(x)
        h = state[0] if isinstance(self.rnn, nn.LSTM) else state
        return self.out(y[:, -1]) + self.last(h[-1])


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_hidden_units_of_recurrent_layers(kind: Callable[..., nn.RNNBase], gates: int) -> None:
    """One hidden unit less on each level and in each direction: a recurrent layer that is one smaller."""
    hidden = 4
    model = drawn(Reader(kind, hidden))
    ends = {"l0": 1, "l0_reverse": 3, "l1": 0, "l1_reverse": 2}
    masks = kept(model, {f"neuron:rnn.{end}": [unit] for end, unit in ends.items()})
    small = Reader(kind, hidden - 1).double().eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}

    def rows(t: Tensor, of: Tensor) -> Tensor:
        return t.view(gates, hidden, -1)[:, of].reshape(gates * (hidden - 1), *t.shape[1:])

    keeps = {end: left(hidden, [unit]) for end, unit in ends.items()}
    both = {level: torch.cat([keeps[level], keeps[f"{level}_reverse"] + hidden]) for level in ("l0", "l1")}
    for end, of in keeps.items():
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            state[f"rnn.{name}_{end}"] = rows(state[f"rnn.{name}_{end}"], of)
        state[f"rnn.weight_hh_{end}"] = state[f"rnn.weight_hh_{end}"][:, of]
        if end.startswith("l1"):
            state[f"rnn.weight_ih_{end}"] = state[f"rnn.weight_ih_{end}"][:, both["l0"]]
    state["out.weight"], state["last.weight"] = (
        state["out.weight"][:, both["l1"]],
        state["last.weight"][:, keeps["l1_reverse"]],
    )
    small.load_state_dict(state)
    x = torch.randn(3, 5, 3).double()
    with masks.applied_to(model):
        torch.testing.assert_close(model(x), small(x), **NEAR)


def attended(module: Any, query: Tensor, key: Tensor, value: Tensor, heads: Tensor) -> Tensor:
    """Multi-head attention written out over some heads, (B, T, E) each."""
    each, size = module.head_dim, module.embed_dim
    if module._qkv_same_embed_dim:
        wq, wk, wv = module.in_proj_weight.view(3, size, size)
    else:
        wq, wk, wv = module.q_proj_weight, module.k_proj_weight, module.v_proj_weight
    bq, bk, bv = module.in_proj_bias.view(3, size)
    out = module.out_proj.bias
    for h in heads.tolist():
        own = slice(h * each, (h + 1) * each)
        q, k, v = query @ wq[own].T + bq[own], key @ wk[own].T + bk[own], value @ wv[own].T + bv[own]
        weights = (q @ k.mT / each**0.5).softmax(-1)
        out = out + weights @ v @ module.out_proj.weight[:, own].T
    return out


@pytest.mark.parametrize("sizes", [{}, {"kdim": 5, "vdim": 7}])
def test_heads_of_multihead_attention(sizes: dict[str, int]) -> None:
    """Heads of torch's attention, with one size for all or three: attention over the heads that are left."""
    model = drawn(nn.MultiheadAttention(12, 3, batch_first=True, **sizes))
    masks = kept(model, {"head:MultiheadAttention": [1]})
    q, k, v = (torch.randn(2, 4, n).double() for n in (12, sizes.get("kdim", 12), sizes.get("vdim", 12)))
    with masks.applied_to(model):
        torch.testing.assert_close(model(q, k, v)[0], attended(model, q, k, v, left(3, [1])), **NEAR)


@pytest.mark.parametrize("first", [True, False])
def test_heads_and_neurons_of_an_encoder_layer(first: bool) -> None:
    """Heads and hidden neurons of an encoder layer: fewer heads, and a smaller hidden layer."""
    model: Any = drawn(nn.TransformerEncoderLayer(12, 3, 8, activation="gelu", batch_first=True, norm_first=first))
    masks = kept(model, {"head:self_attn": [0], "neuron:linear1": [2, 7]})
    n = left(8, [2, 7])

    def attention(y: Tensor) -> Tensor:
        return attended(model.self_attn, y, y, y, left(3, [0]))

    def hidden(y: Tensor) -> Tensor:
        return (
            F.gelu(y @ model.linear1.weight[n].T + model.linear1.bias[n]) @ model.linear2.weight[:, n].T
            + model.linear2.bias
        )

    x = torch.randn(2, 4, 12).double()
    if first:
        y = x + attention(model.norm1(x))
        expected = y + hidden(model.norm2(y))
    else:
        y = model.norm1(x + attention(x))
        expected = model.norm2(y + hidden(y))
    with torch.no_grad(), masks.applied_to(model):
        torch.testing.assert_close(model(x), expected, **NEAR)


class Grouped(nn.Module):
    """Causal attention with four heads on two sets of keys and values, as nobody's library has it."""

    def __init__(self, *, fused: bool = False, heads: int = 4, shared: int = 2, each: int = 3) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.each, self.fused = heads, shared, each, fused
        if fused:
            self.mix = nn.Linear(8, (heads + 2 * shared) * each)
        else:
            self.q, self.k, self.v = (
                nn.Linear(8, heads * each),
                nn.Linear(8, shared * each),
                nn.Linear(8, shared * each),
            )
        self.o = nn.Linear(heads * each, 8)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 8) -> (B, T, 8)."""
        b, t, _ = x.shape
        n, m, d = self.num_heads, self.num_kv_heads, self.each
        q, k, v = self.mix(x).split((n * d, m * d, m * d), -1) if self.fused else (self.q(x), self.k(x), self.v(x))
        q = q.view(b, t, n, d).transpose(1, 2)
        k, v = (y.view(b, t, m, d).transpose(1, 2).repeat_interleave(n // m, 1) for y in (k, v))
        return self.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, n * d))


@pytest.mark.parametrize("fused", [False, True])
def test_heads_that_share_keys_and_values(fused: bool) -> None:
    """With grouped queries a head is gone alone; shared keys and values are gone when all of their heads are."""
    model: Any = drawn(Grouped(fused=fused))
    masks = kept(model, {"head:Grouped": [0, 1, 2]})
    x = torch.randn(2, 5, 8).double()
    whole = {"q": slice(0, 12), "k": slice(12, 18), "v": slice(18, 24)}

    def projected(name: str, rows: slice) -> Tensor:
        if fused:
            start = whole[name].start
            rows = slice(start + rows.start, start + rows.stop)
        layer = model.mix if fused else getattr(model, name)
        return x @ layer.weight[rows].T + layer.bias[rows]

    q, k, v = projected("q", slice(9, 12)), projected("k", slice(3, 6)), projected("v", slice(3, 6))
    seen = (q @ k.mT / 3**0.5).masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf")).softmax(-1)
    expected = seen @ v @ model.o.weight[:, 9:12].T + model.o.bias
    with masks.applied_to(model):
        torch.testing.assert_close(model(x), expected, **NEAR)
    weights = masks.weights(model)
    keys = weights["mix.weight"][12:18] if fused else weights["k.weight"]
    assert keys.any(1).tolist() == [False] * 3 + [True] * 3


class Block(nn.Module):
    """A residual block that normalises first."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 9), nn.Linear(9, 6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 6) -> (B, 6)."""
        return x + self.down(self.up(self.norm(x)).relu())


def test_blocks_and_layers() -> None:
    """A residual block that is gone adds nothing; a layer that is gone gives zeros."""
    model: Any = drawn(nn.Sequential(nn.Linear(4, 6), nn.ModuleList([Block(), Block()]), nn.Linear(6, 2)))
    model.forward = lambda x: model[2](model[1][1](model[1][0](model[0](x))))
    assert modhook.units(model)["blocks"].labels == ("1.0", "1.1")
    x = torch.randn(3, 4).double()
    with kept(model, {"blocks": [0]}).applied_to(model):
        torch.testing.assert_close(model(x), model[2](model[1][1](model[0](x))), **NEAR)
    place = modhook.units(model)["layers"].labels.index("1.1.down")
    cut = copy.deepcopy(model)
    with kept(model, {"layers": [place]}).applied_to(model):
        torch.testing.assert_close(model(x), cut[2](cut[1][0](cut[0](x))), **NEAR)
