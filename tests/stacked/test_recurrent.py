"""Stock recurrent layers under stacking equal a plain loop in every variant."""

from __future__ import annotations

import pytest
import stacked_loops as loops
import torch
from torch import nn

from modhook.stacked import shared, stack

K, B, F, H = 3, 4, 5, 6


pytestmark = pytest.mark.usefixtures("float64")


VARIANTS = {
    "plain": {},
    "layers": {"num_layers": 2},
    "dropout_eval": {"num_layers": 2, "dropout": 0.5},
    "bidirectional": {"num_layers": 2, "bidirectional": True},
    "batch_first": {"batch_first": True},
    "no_bias": {"bias": False, "num_layers": 2},
}
LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
CASES = [(layer, variant) for layer in LAYERS for variant in VARIANTS]


def build(layer, variant):
    """Return a layer of this variant, in eval mode where it has dropout."""
    options = VARIANTS[variant]
    model = LAYERS[layer](F, H, **options)
    return model.eval() if "dropout" in options else model


def state_of(model, batch=(B,)):
    """Return K different states that fit the model."""
    count = model.num_layers * (2 if model.bidirectional else 1)
    h = torch.randn(K, count, *batch, model.proj_size or H, requires_grad=True)
    if isinstance(model, nn.LSTM):
        return h, torch.randn(K, count, *batch, H, requires_grad=True)
    return (h,)


def compare(model, x, state=(), share=False):
    """Compare outputs, and the gradients of weights, input and states, with a plain loop over copies."""
    sets = loops.parameter_sets(model, K)
    pair = isinstance(model, nn.LSTM)

    def arguments(x, state):
        return (x, *([tuple(state) if pair else state[0]] if state else []))

    def results(outcome):
        return [outcome[0], *(outcome[1] if pair else [outcome[1]])]

    stacked = stack(model)
    found = results(stacked(sets, *arguments(shared(x) if share else x, state)))
    assert stacked.route == "vmap"
    leaves = {**sets, "x": x, **{f"state{i}": s for i, s in enumerate(state)}}
    grads = loops.gradients_of(found, leaves)
    expected, wanted = loops.plain_loop(
        model, sets, lambda net, k: results(net(*arguments(x if share else x[k], [s[k] for s in state])))
    )
    assert loops.worst(found, expected) <= 1e-9
    assert loops.worst({name: grads[name] for name in wanted}, wanted) <= 1e-9
    columns = []
    for k in range(K):
        own = {n: s[k].detach() for n, s in sets.items()}
        here = [(x if share else x[k]).detach().requires_grad_(), *(s[k].detach().requires_grad_() for s in state)]
        outcome = torch.func.functional_call(model, own, arguments(here[0], here[1:]))
        columns.append(torch.autograd.grad(sum(t.square().sum() for t in results(outcome)), here))
    for name, column in zip(["x", *(f"state{i}" for i in range(len(state)))], zip(*columns, strict=True), strict=True):
        assert loops.worst(grads[name], sum(column) if share and name == "x" else torch.stack(column)) <= 1e-9


@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize(("layer", "variant"), CASES)
def test_variants(layer, variant, length):
    """Outputs, last states and the gradients of weights and inputs agree, for one step and for several."""
    model = build(layer, variant)
    shape = (K, B, length, F) if model.batch_first else (K, length, B, F)
    compare(model, torch.randn(*shape, requires_grad=True))


@pytest.mark.parametrize(("layer", "variant"), CASES)
def test_given_states(layer, variant):
    """States that are given are read, and get their gradients."""
    model = build(layer, variant)
    shape = (K, B, 3, F) if model.batch_first else (K, 3, B, F)
    compare(model, torch.randn(*shape, requires_grad=True), state_of(model))


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}])
@pytest.mark.parametrize("length", [1, 4])
def test_projections(options, length):
    """LSTMs with a projection agree."""
    model = nn.LSTM(F, H, proj_size=3, **options)
    shape = (K, B, length, F) if model.batch_first else (K, length, B, F)
    compare(model, torch.randn(*shape, requires_grad=True), state_of(model))


def test_relu():
    """The ReLU network agrees."""
    compare(nn.RNN(F, H, 2, nonlinearity="relu"), torch.randn(K, 3, B, F, requires_grad=True))


@pytest.mark.parametrize("layer", LAYERS)
def test_without_a_batch_dimension(layer):
    """Inputs (T, F) without a batch agree, with and without states."""
    model = LAYERS[layer](F, H, 2)
    compare(model, torch.randn(K, 3, F, requires_grad=True))
    compare(model, torch.randn(K, 3, F, requires_grad=True), state_of(model, ()))


@pytest.mark.parametrize("layer", LAYERS)
def test_shared_input(layer):
    """An input that all samples share is read by all and collects the gradient of all."""
    compare(LAYERS[layer](F, H), torch.randn(3, B, F, requires_grad=True), share=True)


class Steps(nn.Module):
    """Calls a cell step by step."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell(F, H)

    def forward(self, x):
        state = None
        for t in range(x.shape[0]):
            state = self.cell(x[t], state)
        return list(state) if isinstance(state, tuple) else [state]


class TokenByToken(nn.Module):
    """Reads a whole sequence with its LSTM, then calls it once per token, feeding back what it wrote."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, F)
        self.lstm = nn.LSTM(F, H, 2, batch_first=True)
        self.out = nn.Linear(H, 9)

    def forward(self, tokens):
        _, state = self.lstm(self.embedding(tokens))
        token, logits = tokens[:, :1], []
        for _ in range(5):
            read, state = self.lstm(self.embedding(token), state)
            logits.append(self.out(read))
            token = logits[-1].argmax(-1)
        return [torch.cat(logits, 1)]


MODULES = {
    "lstm_cell": (lambda: Steps(nn.LSTMCell), lambda: torch.randn(K, 4, B, F)),
    "gru_cell": (lambda: Steps(nn.GRUCell), lambda: torch.randn(K, 4, B, F)),
    "rnn_cell": (lambda: Steps(nn.RNNCell), lambda: torch.randn(K, 4, B, F)),
    "token_by_token": (TokenByToken, lambda: torch.randint(9, (K, B, 6))),
}


@pytest.mark.parametrize("name", MODULES)
def test_called_many_times(name):
    """Weight gradients add up over many calls of one layer or cell."""
    make, data = MODULES[name]
    model, x = make(), data()
    sets = loops.parameter_sets(model, K)
    stacked = stack(model)
    found = stacked(sets, x)
    assert stacked.route == "vmap"
    grads = loops.gradients_of(found, sets)
    expected, wanted = loops.plain_loop(model, sets, lambda net, k: net(x[k]))
    assert loops.worst(found, expected) <= 1e-9
    assert loops.worst(grads, wanted) <= 1e-9


class GoesOn(nn.Module):
    """Begins at zero, and goes on from its own last state."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(F, H, 2)

    def forward(self, x):
        first, state = self.lstm(x[:3])
        second, state = self.lstm(x[3:], state)
        return first, second, *state


def test_steps_from_zero_and_from_a_state():
    """Weight gradients add up where some calls of a layer begin at zero, whose product is left out, and others do not."""
    model, x = GoesOn(), torch.randn(K, 6, B, F)
    sets = loops.parameter_sets(model, K)
    found = list(stack(model)(sets, x))
    grads = loops.gradients_of(found, sets)
    expected, wanted = loops.plain_loop(model, sets, lambda net, k: list(net(x[k])))
    assert loops.worst(found, expected) <= 1e-9
    assert loops.worst(grads, wanted) <= 1e-9


@pytest.mark.parametrize("bidirectional", [False, True])
def test_states_of_zero_get_gradients(bidirectional):
    """States that are given as zeros, or are zero in one sample only, are states like others."""
    model = nn.LSTM(F, H, 2, bidirectional=bidirectional)
    x, count = torch.randn(K, 3, B, F, requires_grad=True), 4 if bidirectional else 2
    zeros = torch.zeros(K, count, B, H, requires_grad=True)
    compare(model, x, (zeros, torch.randn(K, count, B, H, requires_grad=True)))
    one = torch.randn(K, count, B, H)
    one[1] = 0
    compare(model, x, (one.requires_grad_(), torch.zeros(K, count, B, H, requires_grad=True)))


@pytest.mark.parametrize(
    "names", [["weight_hh_l0"], ["weight_ih_l1", "bias_hh_l0"], ["bias_ih_l1"], ["weight_ih_l0", "weight_hh_l1"]]
)
def test_some_weights_stacked(names):
    """Where only some weights of the layer are stacked, the others are shared and get no gradient."""
    model = nn.LSTM(F, H, 2)
    x = torch.randn(K, 3, B, F)
    sets = loops.parameter_sets(model, K, names)
    out, last = stack(model)(sets, x)
    found = [out, *last]
    grads = loops.gradients_of(found, sets)
    expected, wanted = loops.plain_loop(model, sets, lambda net, k: [(r := net(x[k]))[0], *r[1]])
    assert loops.worst(found, expected) <= 1e-9
    assert loops.worst(grads, wanted) <= 1e-9
    assert all(p.grad is None for p in model.parameters())


def test_gradients_asked_for_twice():
    """Asking for gradients again, of other tensors, counts nothing twice and leaves nothing behind."""
    model = nn.LSTM(F, H, 2)
    x = torch.randn(K, 3, B, F, requires_grad=True)
    sets = loops.parameter_sets(model, K)
    total = stack(model)(sets, x)[0].square().sum()
    first = torch.autograd.grad(total, [x], retain_graph=True)
    again = torch.autograd.grad(total, [x, *sets.values()], retain_graph=True)
    once = torch.autograd.grad(total, list(sets.values()))
    assert torch.equal(first[0], again[0])
    assert all(torch.equal(a, b) for a, b in zip(again[1:], once, strict=True))


def test_dropout_between_layers_differs_per_sample():
    """In train mode each sample draws its own dropout between the layers, and the check is not misled by it."""
    model = nn.LSTM(F, H, 2, dropout=0.5)
    stacked = stack(model, example=((torch.randn(3, B, F),), {}), samples=2)
    assert stacked.route == "vmap"
    params = {n: p.detach().expand(2, *p.shape) for n, p in model.named_parameters()}
    out, _ = stacked(params, shared(torch.randn(3, B, F)))
    assert not torch.equal(out[0], out[1])


class Packs(nn.Module):
    """Packs its sequences."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(F, H)

    def forward(self, x):
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3]))
        out, (h, _) = self.lstm(packed)
        return [nn.utils.rnn.pad_packed_sequence(out)[0], h]


def test_packed_sequences():
    """A module that packs sequences is exact by whatever route."""
    model, x = Packs(), torch.randn(K, 5, 2, F)
    sets = loops.parameter_sets(model, K)
    found = stack(model)(sets, x)
    grads = loops.gradients_of(found, sets)
    expected, wanted = loops.plain_loop(model, sets, lambda net, k: net(x[k]))
    assert loops.worst(found, expected) <= 1e-9
    assert loops.worst(grads, wanted) <= 1e-9


@pytest.mark.parametrize("executor", ["vmap", "loop"])
def test_exchanged_weights_are_left_where_they_lie(executor, monkeypatch):
    """A layer that finds its weights exchanged does not move them, as on a GPU it would: stacked ones have no memory, others are in use."""

    def as_on_a_gpu(layer):
        for weight in layer._flat_weights:
            weight.data_ptr()
        with torch.no_grad():
            for weight in layer._flat_weights:
                weight.set_(weight.clone())

    model = nn.GRU(F, H, 2).eval()
    monkeypatch.setattr(nn.RNNBase, "flatten_parameters", as_on_a_gpu)
    sets = loops.parameter_sets(model, K)
    places = {name: weight.data_ptr() for name, weight in sets.items()}
    stacked = stack(model, ((torch.randn(2, B, F),), {}), samples=K, executor=executor)
    stacked(sets, torch.randn(K, 2, B, F))[0].sum().backward()
    assert stacked.route == executor
    assert {name: weight.data_ptr() for name, weight in sets.items()} == places
    assert nn.RNNBase.flatten_parameters is as_on_a_gpu
