"""Stock modules that plain vmap refuses or does slowly run by rules: exact, and without a warning."""

from __future__ import annotations

import pytest
import stacked_loops as loops
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from modhook.stacked import shared, stack
from modhook.stacked.trees import flatten

K, B, T, D = 3, 4, 6, 8


pytestmark = pytest.mark.usefixtures("float64")


class Attention(nn.Module):
    """Scaled-dot-product attention with a learned bias, a given mask, causal, or plain; heads or none."""

    def __init__(self, causal=False, bias=None, heads=2):
        super().__init__()
        self.query, self.causal, self.heads = nn.Linear(D, D), causal, heads
        self.bias = nn.Parameter(torch.randn(bias)) if bias else None

    def forward(self, x, mask=None):
        q = self.query(x)
        if self.heads:
            q = q.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        mask = self.bias if mask is None else mask
        return F.scaled_dot_product_attention(q, q + 1, q * 2, attn_mask=mask, is_causal=self.causal)


class Checkpointed(nn.Module):
    """Computes its first block again in the backward pass."""

    def __init__(self, reentrant):
        super().__init__()
        self.zeroth, self.reentrant = nn.Linear(D, D), reentrant
        self.first, self.second = nn.Linear(D, D), nn.Linear(D, D)

    def block(self, x):
        return self.second(self.first(x).tanh()).tanh()

    def forward(self, x):
        return checkpoint(self.block, self.zeroth(x), use_reentrant=self.reentrant)


class SharedSubmodule(nn.Module):
    """Uses one submodule under two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(D, D)
        self.again = self.first
        self.register_parameter("nothing", None)

    def forward(self, x):
        return self.again(self.first(x).tanh())


def padding():
    """Mark the last steps as padding."""
    return torch.arange(T).expand(B, T) > 3


def tokens(*size):
    """Return a maker of K sets of token ids."""
    return lambda: torch.randint(10, (K, *size))


def sequences():
    """Return K batches of sequences."""
    return torch.randn(K, B, T, D)


def encoder_layer(**options):
    """Return a stock encoder layer without dropout."""
    return nn.TransformerEncoderLayer(D, 2, 12, batch_first=True, dropout=0.0, **options)


CASES = {
    "sdpa": (Attention, sequences, {}),
    "sdpa_causal": (lambda: Attention(causal=True), sequences, {}),
    "sdpa_learned_bias": (lambda: Attention(bias=(T, T)), sequences, {}),
    "sdpa_learned_bias_per_head": (lambda: Attention(bias=(2, T, T)), sequences, {}),
    "sdpa_shared_mask": (Attention, sequences, {"mask": shared(~padding()[:, None, None])}),
    "sdpa_own_mask": (Attention, sequences, {"mask": torch.rand(K, B, 1, T, T) > -0.1}),
    "sdpa_without_heads": (lambda: Attention(heads=0), sequences, {}),
    "encoder_layer": (encoder_layer, sequences, {}),
    "encoder_layer_norm_first": (lambda: encoder_layer(norm_first=True), sequences, {}),
    "encoder_layer_padding": (encoder_layer, sequences, {"src_key_padding_mask": shared(padding())}),
    "encoder_padding": (
        lambda: nn.TransformerEncoder(encoder_layer(), 2),
        sequences,
        {"src_key_padding_mask": shared(padding())},
    ),
    "embedding_bag_sum": (lambda: nn.EmbeddingBag(10, D, mode="sum"), tokens(B, T), {}),
    "embedding_bag_max": (lambda: nn.EmbeddingBag(10, D, mode="max"), tokens(B, T), {}),
    "embedding_bag_offsets": (lambda: nn.EmbeddingBag(10, D), tokens(9), {"offsets": shared(torch.tensor([0, 4]))}),
    "embedding_max_norm": (lambda: nn.Embedding(10, D, max_norm=0.5), tokens(B, T), {}),
    "embedding_scaled": (lambda: nn.Embedding(10, D, scale_grad_by_freq=True), tokens(B, T), {}),
    "bilinear": (
        lambda: nn.Bilinear(D, D, 3),
        sequences,
        {"input2": shared(torch.randn(B, T, D, dtype=torch.float64))},
    ),
    "batch_norm_cumulative": (lambda: nn.BatchNorm1d(T, momentum=None), sequences, {}),
    "instance_norm_tracked": (
        lambda: nn.InstanceNorm1d(T, affine=True, track_running_stats=True),
        sequences,
        {},
    ),
    "checkpoint": (lambda: Checkpointed(False), sequences, {}),
    "checkpoint_reentrant": (lambda: Checkpointed(True), sequences, {}),
    "shared_submodule": (SharedSubmodule, sequences, {}),
    "weight_norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(D, 3)), sequences, {}),
    "orthogonal": (lambda: nn.utils.parametrizations.orthogonal(nn.Linear(D, 3)), sequences, {}),
}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", CASES)
def test_rules_are_exact(name, training):
    """Outputs and gradients equal a plain loop's, nothing loops as a whole, nothing warns, the model stays itself."""
    build, data, kwargs = CASES[name]
    model, x = build().train(training), data()
    sets = loops.parameter_sets(model, K)
    before = loops.fingerprint(model)
    stacked = stack(model)
    found = [leaf.tensor for leaf in flatten(stacked(sets, x, **kwargs)).leaves]
    grads = loops.gradients_of(found, sets)
    assert before == loops.fingerprint(model)
    assert stacked.route == "vmap"
    assert stacked.reason.startswith("vmap agrees with a plain run of the model; ")

    def call(net, k):
        own = {n: flatten(v).leaves[0].tensor for n, v in kwargs.items()}
        own = {n: v if flatten(kwargs[n]).leaves[0].shared else v[k] for n, v in own.items()}
        return [leaf.tensor for leaf in flatten(net(x[k], **own)).leaves]

    expected, wanted = loops.plain_loop(model, sets, call)
    assert loops.worst(found, expected) <= 1e-9
    assert loops.worst(grads, wanted) <= 1e-9


@pytest.mark.parametrize("executor", ["vmap", "loop"])
def test_checkpointed_gradients_in_both_routes(executor):
    """Activation checkpointing computes again in the backward pass; both routes use the right weights there."""
    model, x = Checkpointed(False), sequences()
    sets = loops.parameter_sets(model, K)
    found = [stack(model, executor=executor)(sets, x)]
    grads = loops.gradients_of(found, sets)
    _, wanted = loops.plain_loop(model, sets, lambda net, k: [net(x[k])])
    assert loops.worst(grads, wanted) <= 1e-9


def test_switches_are_set_back():
    """The fused attention path and checkpointing are as the user left them afterwards, also after an exception."""
    from torch.utils import checkpoint as module

    kept = module.CheckpointFunction, module._checkpoint_without_reentrant_generator
    model = nn.Linear(D, D)
    with pytest.raises(RuntimeError, match="shape"):
        stack(model)(loops.parameter_sets(model, K), torch.randn(K, B, D + 1))
    assert torch.backends.mha.get_fastpath_enabled()
    assert kept == (module.CheckpointFunction, module._checkpoint_without_reentrant_generator)
