"""`stack`: outputs and gradients of K parameter sets equal those of a plain loop over copies."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
import stacked_loops as loops
import torch
from torch import Tensor, nn

from modhook.errors import StackError
from modhook.stacked import prepare, shared, stack

K = 3


pytestmark = pytest.mark.usefixtures("float64")


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 5)
        self.norm = nn.LayerNorm(5)
        self.head = nn.Linear(5, 7)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.embedding(tokens)))


class Outputs(nn.Module):
    """Returns a dict of tuples, with a buffer inside and things that are no tensors."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: Tensor, *, offset: Tensor, name: str = "plain") -> dict:
        y = self.first(x) * self.scale + offset
        return {"pair": (y, [y.tanh()]), "name": name, "nothing": None, "scale": self.scale}


@dataclasses.dataclass
class Pair:
    left: Tensor
    right: Tensor
    label: str


class Dataclassed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, pair: Pair) -> Pair:
        return Pair(self.first(pair.left), pair.right * 2, pair.label)


MODELS = {
    "fnn": (lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), lambda: torch.randn(K, 5, 4)),
    "conv": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)),
        lambda: torch.randn(K, 5, 2, 6, 6),
    ),
    "batch_norm_eval": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)).eval(),
        lambda: torch.randn(K, 5, 2, 6, 6),
    ),
    "batch_norm_train": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)),
        lambda: torch.randn(K, 5, 2, 6, 6),
    ),
    "tied": (Tied, lambda: torch.randint(7, (K, 5, 6))),
    "group_norm": (lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.GroupNorm(2, 4)), lambda: torch.randn(K, 5, 2, 6)),
}


@pytest.mark.parametrize("executor", ["vmap", "loop", "auto"])
@pytest.mark.parametrize("name", MODELS)
def test_equals_a_plain_loop(name, executor):
    """Both routes give the outputs and gradients of a loop over copies, and leave the model alone."""
    build, data = MODELS[name]
    model, x = build(), data()
    sets = loops.parameter_sets(model, K)
    before = loops.fingerprint(model)
    stacked = stack(model, example=((x[0],), {}), samples=K, executor=executor)
    found = [stacked(sets, x)]
    grads = loops.gradients_of(found, sets)
    assert before == loops.fingerprint(model)
    expected, wanted = loops.plain_loop(model, sets, lambda net, k: [net(x[k])])
    assert loops.worst(found, expected) <= 1e-9
    assert loops.worst(grads, wanted) <= 1e-9
    assert stacked.route == ("loop" if executor == "loop" else "vmap")


def test_partial_parameters_leave_the_others_frozen():
    """Parameters that are not given are the model's own and collect no gradient."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    sets = loops.parameter_sets(model, K, ["2.weight"])
    x = torch.randn(K, 5, 4)
    found = [stack(model)(sets, x)]
    grads = loops.gradients_of(found, sets)
    expected, wanted = loops.plain_loop(model, sets, lambda net, k: [net(x[k])])
    assert loops.worst(found, expected) <= 1e-9
    assert loops.worst(grads, wanted) <= 1e-9
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("executor", ["auto", "vmap", "loop", "fastest"])
def test_without_parameters_every_sample_uses_the_models_own(executor):
    """K comes from the inputs, or where all are shared from `samples`; each sample is a plain run of the network itself."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), torch.randn(3, 5, 3)
    stacked = stack(net, samples=4, executor=executor)
    plain = torch.stack([copy.deepcopy(net)(sample) for sample in x]).detach()  # (3, 5, 2)
    torch.testing.assert_close(stacked({}, x), plain)
    alike = stacked({}, shared(x[0]))
    torch.testing.assert_close(alike, plain[0].expand(4, 5, 2))
    own = {"0.bias": net[0].bias.detach().expand(3, 4)}
    torch.testing.assert_close(stacked(own, x), plain)


@pytest.mark.parametrize("executor", ["vmap", "loop"])
def test_trees_keywords_and_shared_tensors(executor):
    """Dicts, tuples and keywords keep their form; shared tensors reach every sample whole; others are returned once."""
    model = Outputs()
    x, offset = torch.randn(K, 5, 4), torch.randn(5, 1)
    sets = loops.parameter_sets(model, K)
    out = stack(model, executor=executor)(sets, x, offset=shared(offset), name="given")
    assert (out["name"], out["nothing"]) == ("given", None)
    assert out["scale"].shape == (K,)
    found = [out["pair"][0], out["pair"][1][0]]
    grads = loops.gradients_of(found, sets)

    def call(net, k):
        plain = net(x[k], offset=offset)
        return [plain["pair"][0], plain["pair"][1][0]]

    expected, wanted = loops.plain_loop(model, sets, call)
    assert loops.worst(found, expected) <= 1e-9
    assert loops.worst(grads, wanted) <= 1e-9


@pytest.mark.parametrize("executor", ["vmap", "loop"])
def test_dataclasses_go_in_and_out(executor):
    """Tensors inside dataclasses are stacked; the other fields stay."""
    model = Dataclassed()
    pair = Pair(torch.randn(K, 5, 4), torch.randn(K, 2), "kept")
    sets = loops.parameter_sets(model, K)
    out = stack(model, executor=executor)(sets, pair)
    assert isinstance(out, Pair)
    assert out.label == "kept"
    expected, _ = loops.plain_loop(model, sets, lambda net, k: [net(Pair(pair.left[k], pair.right[k], "")).left])
    assert loops.worst([out.left], expected) <= 1e-9
    assert torch.equal(out.right, pair.right * 2)


@pytest.mark.parametrize("executor", ["vmap", "loop"])
def test_prepare_runs_a_loss(executor):
    """A loss over a batch gives one number per sample."""
    model = Tied()
    batch = {"tokens": torch.randint(7, (K, 5, 6)), "targets": torch.randint(7, (K, 5, 6)), "word": "kept"}

    def loss(net, batch):
        assert batch["word"] == "kept"
        return nn.functional.cross_entropy(net(batch["tokens"]).flatten(0, 1), batch["targets"].flatten())

    sets = loops.parameter_sets(model, K)
    stacked = prepare(model, loss, (batch,), list(sets), K, executor)
    found = [stacked(sets, batch)]
    assert found[0].shape == (K,)
    grads = loops.gradients_of(found, sets)

    def call(net, k):
        return [loss(net, {"tokens": batch["tokens"][k], "targets": batch["targets"][k], "word": "kept"})]

    expected, wanted = loops.plain_loop(model, sets, call)
    assert loops.worst(found, expected) <= 1e-9
    assert loops.worst(grads, wanted) <= 1e-9


def test_tied_weights_share_one_set_under_any_name():
    """A tied weight is known by all its names, and its gradient is the sum over all its uses."""
    model = Tied()
    sets = loops.parameter_sets(model, K)
    x = torch.randint(7, (K, 5, 6))
    renamed = {("head.weight" if n == "embedding.weight" else n): p for n, p in sets.items()}
    assert "head.weight" in renamed
    assert torch.equal(stack(model)(sets, x), stack(model)(renamed, x))
    with pytest.raises(StackError, match=r"'head.weight' is tied to 'embedding.weight'"):
        stack(model)({**sets, "head.weight": sets["embedding.weight"].clone()}, x)


def test_dropout_draws_differently_for_every_sample():
    """Samples with equal weights and inputs still get their own dropout, and the check is not misled by it."""
    model = nn.Sequential(nn.Linear(50, 50), nn.Dropout(0.5))
    stacked = stack(model, example=((torch.randn(4, 50),), {}), samples=2)
    assert stacked.route == "vmap"
    params = {n: p.detach().expand(2, *p.shape) for n, p in model.named_parameters()}
    out = stacked(params, shared(torch.randn(4, 50)))
    assert not torch.equal(out[0] == 0, out[1] == 0)


def test_the_check_leaves_the_random_state_alone():
    """Building a stacked model draws nothing from the global generator."""
    model = nn.Sequential(nn.Linear(5, 5), nn.Dropout(0.5))
    state = torch.get_rng_state()
    stack(model, example=((torch.ones(4, 5),), {}), samples=2)
    assert torch.equal(state, torch.get_rng_state())


def test_a_new_length_needs_no_new_check():
    """The check runs once per structure, dtype and device, not once per sequence length."""
    model = Tied()
    stacked = stack(model, example=((torch.randint(7, (5, 6)),), {}), samples=K)
    sets = loops.parameter_sets(model, K)
    for length in (1, 4, 9):
        stacked(sets, torch.randint(7, (K, 5, length)))
    assert len(stacked._choices) == 1


class Branching(nn.Module):
    """Branches on a value, which vmap cannot."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return y if y.sum() > 0 else y * 2


def test_what_vmap_refuses_is_looped():
    """A branch on a tensor's value takes the loop, says why, and is exact."""
    model = Branching()
    x = torch.randn(K, 5, 4)
    sets = loops.parameter_sets(model, K)
    stacked = stack(model, example=((x[0],), {}), samples=K)
    assert stacked.route == "loop"
    assert "vmap" in stacked.reason
    expected, _ = loops.plain_loop(model, sets, lambda net, k: [net(x[k])])
    assert loops.worst([stacked(sets, x)], expected) <= 1e-9
    with pytest.raises(StackError, match='executor="vmap" cannot run'):
        stack(model, example=((x[0],), {}), samples=K, executor="vmap")


class Failing(nn.Module):
    """Fails on a negative sum, as a user's own check would."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x: Tensor, fail: bool = False) -> Tensor:
        y = self.first(x)
        if fail and bool(y.sum() < 0):
            raise KeyError("the user's own error")
        return y


def test_the_users_error_is_the_users_and_names_the_sample():
    """An error of the module surfaces as itself, says which sample, shows no vmap, and leaves the model alone."""
    model = Failing()
    x = torch.randn(K, 5, 4)
    sets = {n: s.detach().zero_() for n, s in loops.parameter_sets(model, K).items()}
    sets["first.bias"][1] = -1.0
    before = loops.fingerprint(model)
    stacked = stack(model, example=((x[0],), {}), samples=K)
    with pytest.raises(KeyError, match="the user's own error") as caught:
        stacked(sets, x, fail=True)
    assert any("mask sample 2 of 3" in note for note in caught.value.__notes__)
    assert caught.value.__context__ is None
    assert before == loops.fingerprint(model)


def test_an_interrupt_leaves_the_model_alone():
    """Ctrl-C in the middle of a forward pass passes through and the model is itself."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))

    def interrupt(*_):
        raise KeyboardInterrupt

    stacked = stack(model, example=((torch.randn(5, 4),), {}), samples=K)
    handle = model[1].register_forward_hook(interrupt)
    before = loops.fingerprint(model)
    with pytest.raises(KeyboardInterrupt):
        stacked(loops.parameter_sets(model, K), torch.randn(K, 5, 4))
    assert before == loops.fingerprint(model)
    handle.remove()
    copy.deepcopy(model)
    pickle.loads(pickle.dumps(model))


class Caching(nn.Module):
    """Keeps what it computed last, as many models do."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.latest = None
        self.history = []

    def forward(self, x: Tensor) -> Tensor:
        self.latest = self.first(x)
        self.history.append(self.latest)
        return self.latest


@pytest.mark.parametrize("executor", ["vmap", "loop"])
def test_caches_of_the_module_are_put_back(executor):
    """No dead tensor of a stacked run stays in the module's attributes or lists."""
    model = Caching()
    before = loops.fingerprint(model)
    stack(model, executor=executor)(loops.parameter_sets(model, K), torch.randn(K, 5, 4))
    assert before == loops.fingerprint(model)
    assert model.latest is None
    assert model.history == []


def test_buffers_written_in_training_stay(monkeypatch):
    """Batch norm in train mode runs with each sample's own statistics, and its updates are dropped."""
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    stacked = stack(model, example=((torch.randn(5, 4),), {}), samples=K)
    assert stacked.report()["written"] == ["1.num_batches_tracked", "1.running_mean", "1.running_var"]
    stacked(loops.parameter_sets(model, K), torch.randn(K, 5, 4))
    assert model[1].num_batches_tracked == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {**s, "0.wieght": s["0.weight"]}, r"no parameter '0.wieght' \(did you mean '0.weight'\?\)"),
        (lambda s: {**s, "0.bias": s["0.bias"][:, :2]}, r"'0.bias' must have shape \(K, 4\), but has \(3, 2\)"),
        (lambda s: {**s, "0.bias": s["0.bias"][:2]}, r"'0.bias' has 2 samples, but '0.weight' has 3"),
        (lambda s: {n: t[:0] for n, t in s.items()}, "has no samples"),
        (lambda s: {**s, "0.bias": 1.0}, "'0.bias' must be a tensor"),
    ],
)
def test_wrong_parameters_are_named(change, message):
    """An unknown or misshaped parameter is named in the error."""
    model = nn.Sequential(nn.Linear(4, 4))
    sets = {n: s.detach() for n, s in loops.parameter_sets(model, K).items()}
    with pytest.raises(StackError, match=message):
        stack(model)(change(sets), torch.randn(K, 5, 4))


def test_wrong_leading_sizes_and_executors():
    """A tensor argument without K, and an executor that does not exist, say what to do."""
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(StackError, match=r"has shape \(5, 4\).*wrap it in modhook.shared"):
        stack(model)(loops.parameter_sets(model, K), torch.randn(5, 4))
    with pytest.raises(
        StackError, match=r"unknown executor 'lop'.*did you mean 'loop'.*valid are auto, fastest, vmap, loop"
    ):
        stack(model, executor="lop")


def test_samples_may_differ_from_call_to_call():
    """K is read from the parameters, so that a caller can work in chunks."""
    model = nn.Sequential(nn.Linear(4, 4))
    stacked = stack(model, example=((torch.randn(5, 4),), {}), samples=4)
    for samples in (1, 2, 7):
        assert stacked(loops.parameter_sets(model, samples), torch.randn(samples, 5, 4)).shape == (samples, 5, 4)
