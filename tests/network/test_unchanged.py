"""Whatever a forward pass writes, the network is afterwards what it was, and every sample starts from the network's own values."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import modhook
from modhook.network.guard import Guard, copies
from modhook.network.held import held

K, B, D = 2, 8, 3


class Words(nn.Module):
    """An embedding that shrinks the rows it looks up."""

    def __init__(self):
        super().__init__()
        self.emb, self.out = nn.Embedding(10, D, max_norm=0.5), nn.Linear(D, D)

    def forward(self, x):
        return self.out(self.emb((x.abs() * 3).long()).mean(1))


class Clamped(nn.Module):
    """A bias, never masked by default, that forward clamps."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(D, D)
        self.out.bias.data.fill_(-1.0)

    def forward(self, x):
        with torch.no_grad():
            self.out.bias.clamp_(min=-0.25)
        return self.out(x)


class Momentum(nn.Module):
    """A key encoder that follows the query encoder, written through `.data`, which counts no version."""

    def __init__(self):
        super().__init__()
        self.out, self.key = nn.Linear(D, D), nn.Linear(D, D)

    def forward(self, x):
        self.key.weight.data.mul_(0.9).add_(self.out.weight.data, alpha=0.1)
        return self.out(x) - self.key(x).detach()


class HiddenTeacher(nn.Module):
    """A momentum encoder in a plain list, where nn.Module does not look."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(D, D)
        self.teacher = [nn.Linear(D, D).double().requires_grad_(False)]

    def forward(self, x):
        self.teacher[0].weight.data.mul_(0.9).add_(self.out.weight.data, alpha=0.1)
        return self.out(x) - self.teacher[0](x).detach()


class Sometimes(nn.Module):
    """A buffer, a bias and a plain tensor in a dict that are written only on inputs with a positive sum."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(D, D)
        self.register_buffer("seen", torch.zeros(D))
        self.kept = {"scale": torch.ones(D)}

    def forward(self, x):
        if bool(x.sum() > 0):
            self.seen += 1
            self.out.bias.data += 0.5
            self.kept["scale"].mul_(2)
        return self.out(x) * self.kept["scale"] + self.seen


class Replaced(nn.Module):
    """A buffer and a plain tensor that forward replaces by new ones."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(D, D)
        self.register_buffer("mean", torch.zeros(D))
        self.latest = torch.zeros(D)

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        self.latest = self.latest + 1
        return self.out(x) - self.mean + self.latest


class Normed(nn.Module):
    """Batch norm in training mode."""

    def __init__(self):
        super().__init__()
        self.out, self.norm = nn.Linear(D, D), nn.BatchNorm1d(D)

    def forward(self, x):
        return self.norm(self.out(x))


ALL = [Words, Clamped, Momentum, HiddenTeacher, Sometimes, Replaced, Normed]


def whole(model):
    """Return every tensor of a network: which object it is, where its memory is, and a copy of its values."""
    return {n: (id(t), t.data_ptr(), t.requires_grad, t.detach().clone()) for n, t in held(model).tensors.items()}


def same(model, before):
    """Say what of a network is not as before."""
    after = whole(model)
    assert after.keys() == before.keys()
    for name, (*who, value) in before.items():
        assert after[name][:3] == tuple(who), name
        assert torch.equal(after[name][3], value), name


@pytest.fixture(params=ALL, ids=lambda kind: kind.__name__)
def model(request):
    """A network that writes, in training mode."""
    torch.manual_seed(0)
    return request.param().double().train()


def batches():
    """Return batches whose sums have the signs -, +, -, +."""
    torch.manual_seed(1)
    return [sign * torch.rand(B, D, dtype=torch.float64) for sign in (-1, 1, -1, 1)]


def loss(net, x):
    """Return one number per group."""
    return net(x).square().mean()


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("executor", ["auto", "loop"])
def test_fit_masks(model, executor):
    """Every step's loss is the mean over plain copies of the untouched network, and the network is as it was."""
    before, twin = whole(model), copy.deepcopy(model)
    fit = modhook.fit_masks(
        model, batches(), loss, steps=4, samples=K, init=60.0, include="out.weight", lr=1e-9, executor=executor,
        progress=False,
    )  # fmt: skip
    same(model, before)
    # init 60: every mask keeps everything
    expected = [sum(loss(copy.deepcopy(twin), group).item() for group in batch.chunk(K)) / K for batch in batches()]
    assert fit.history["loss"].values == pytest.approx(expected, abs=1e-9)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("executor", ["auto", "loop"])
def test_stacked_calls(model, executor):
    """A call gives what plain copies give, also for inputs unlike the example, and the network is as it was."""
    before, (first, second, *_) = whole(model), batches()
    stacked = modhook.stack(model, ((first,), {}), samples=K, executor=executor)
    same(model, before)
    params = {"out.weight": torch.stack([(k + 1) * model.out.weight.detach() for k in range(K)])}
    given = params["out.weight"].clone()
    for batch in (first, second, second, first):
        expected = []
        for k in range(K):
            plain = copy.deepcopy(model)
            plain.out.weight.data.copy_(given[k])
            expected.append(plain(batch).detach())
        out = stacked(params, modhook.shared(batch))
        torch.testing.assert_close(out.detach(), torch.stack(expected), rtol=0, atol=1e-12)
        same(model, before)
    assert torch.equal(params["out.weight"], given)


@pytest.mark.parametrize("masked", [True, False])
def test_evaluate(model, masked):
    """Scores are those of a plain loop over one copy in the same mode; running statistics and all else are as they were."""
    before, masks = whole(model), None
    plain = copy.deepcopy(model)
    if masked:
        masks = modhook.Masks({"out.weight": torch.eye(D, dtype=torch.bool)}, model)
        plain.out.weight.data *= torch.eye(D, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.cat([plain(batch).sum(1) for batch in batches()]).mean().item()
    found = modhook.evaluate(model, masks, batches(), lambda net, batch: net(batch).sum(1))
    assert found == pytest.approx(expected, abs=1e-12)
    assert model.training
    same(model, before)


def test_inspect(model):
    """A report, with its many runs, leaves the network as it was."""
    before = whole(model)
    modhook.inspect(model, batches()[1], samples=K)
    same(model, before)


def test_applied_to(model):
    """What runs and writes under masks is undone at the end, also after an exception."""
    before, masks = whole(model), modhook.Masks({"out.weight": torch.eye(D, dtype=torch.bool)}, model)

    def use():
        with masks.applied_to(model):
            for batch in batches():
                model(batch)
            model.out.bias.data = torch.full((D,), 7.0, dtype=torch.float64)
            model.eval()
            raise KeyError

    with pytest.raises(KeyError):
        use()
    same(model, before)
    assert model.training


def test_materialize(model):
    """The copy is independent: running it changes nothing of the network."""
    before = whole(model)
    twin = modhook.Masks({"out.weight": torch.eye(D, dtype=torch.bool)}, model).materialize(model)
    for batch in batches():
        twin(batch)
    same(model, before)
    assert torch.equal(twin.out.weight, model.out.weight * torch.eye(D))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("executor", ["auto", "loop"])
def test_after_an_error(model, executor):
    """An error in the middle of a fit, after the network was written, leaves it as it was."""
    before, calls = whole(model), []

    def failing(net, x):
        value = loss(net, x)
        calls.append(1)
        if len(calls) > 11:
            raise ZeroDivisionError
        return value

    with pytest.raises(ZeroDivisionError):
        modhook.fit_masks(
            model, batches() * 5, failing, steps=20, samples=K, include="out.weight", executor=executor, progress=False
        )
    same(model, before)


class Large(nn.Module):
    """A large frozen matrix that is written through `.data` on some inputs only."""

    def __init__(self):
        super().__init__()
        self.big, self.out = nn.Linear(D, 30_000), nn.Linear(D, D)

    def forward(self, x):
        if bool(x.sum() > 0):
            self.big.weight.data[-1] += 1
        return self.out(x) * self.big(x)[:, -1:]


@pytest.mark.parametrize("executor", ["auto", "loop"])
def test_what_is_too_large_to_compare_in_every_step(executor):
    """A large tensor that is written late is as it was after the fit; where vmap runs, no step sees what another wrote."""
    torch.manual_seed(0)
    model = Large().double()
    before, twin = whole(model), copy.deepcopy(model)
    fit = modhook.fit_masks(
        model, batches(), loss, steps=4, samples=K, init=60.0, lr=1e-9, include="out.weight", executor=executor,
        progress=False,
    )  # fmt: skip
    same(model, before)
    expected = [sum(loss(copy.deepcopy(twin), g).item() for g in batch.chunk(K)) / K for batch in batches()]
    found = fit.history["loss"].values
    assert found[:1] == pytest.approx(expected[:1], abs=1e-9)
    if executor == "auto":
        assert found == pytest.approx(expected, abs=1e-9)


def test_masked_weights_written_on_some_inputs():
    """A masked weight that is clamped on some inputs only: outputs and gradients of plain copies, by every route."""

    class Late(nn.Module):
        def __init__(self, how):
            super().__init__()
            self.w, self.how = nn.Parameter(torch.randn(D, D).double()), how

        def forward(self, x):
            if bool(x.sum() > 0):
                with torch.no_grad():
                    (self.w.data if self.how == "data" else self.w).clamp_(min=0)
            return x @ self.w

    first, second, *_ = batches()
    for how in ("data", "in place"):
        for executor in ("auto", "loop"):
            model = Late(how)
            stacked = modhook.stack(model, ((first,), {}), samples=K, executor=executor)
            given = torch.stack([model.w.detach(), -model.w.detach()]).requires_grad_()
            kept = given.detach().clone()
            stacked({"w": given}, modhook.shared(second)).square().sum().backward()
            for k in range(K):
                plain = Late(how)
                plain.w.data.copy_(kept[k])
                plain(second).square().sum().backward()
                torch.testing.assert_close(given.grad[k], plain.w.grad)
            assert torch.equal(given, kept)


def test_numpy_views():
    """A buffer that is written through a numpy array, which torch does not see, is as it was after `evaluate`."""

    class Array(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(D))
            self.array = self.count.numpy()

        def forward(self, x):
            self.array += 1
            return x + self.count

    model = Array()
    assert modhook.evaluate(model, None, [torch.zeros(2, D)] * 3, lambda net, x: net(x)[:, 0]) == 2.0
    assert not model.count.any()


def test_values_that_are_no_numbers():
    """NaN in a buffer is no change, and no tensor is compared that was spared."""
    model = nn.BatchNorm1d(D)
    model.running_mean.fill_(float("nan"))
    guard = Guard(model, ["weight"])
    assert guard.written(thorough=True) == frozenset()
    model.running_mean.data[0] = 0
    model.weight.data[0] = 5
    assert guard.written(thorough=True) == {"running_mean"}
    guard.put_back()
    assert model.running_mean.isnan().all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.bfloat16, torch.complex64, torch.complex128])
def test_every_type(dtype):
    """A number of any type and layout that is written without a trace is found and put back, in expanded tensors too."""
    model = nn.Module()
    model.register_buffer("plain", torch.zeros(4, 6).to(dtype))
    model.register_buffer("turned", torch.zeros(4, 6).to(dtype).t())
    model.register_buffer("wide", torch.zeros(1).to(dtype).expand(5, 1))
    guard = Guard(model)
    for name in ("plain", "turned", "wide"):
        dict(model.named_buffers())[name].data[0, 0:1].fill_(1)
        assert guard.written() == {name}
        guard.put_back()
        assert not dict(model.named_buffers())[name].to(torch.complex128).abs().any()


def test_copies_share_memory_as_their_originals_do():
    """A buffer that is a view of another is a view of the copy."""
    base = torch.zeros(4, 3)
    first, view = copies([base, base[1]])
    first[1, 2] = 1
    assert view.tolist() == [0, 0, 1]
    view, first = copies([base[1], base])
    first[1, 2] = 1
    assert view.tolist() == [0, 0, 1]
    assert not base.any()


def test_loss_functions_see_plain_numbers():
    """`F.mse_loss` on a network whose embedding shrinks its rows learns as on plain copies, and restores the rows."""
    torch.manual_seed(0)
    model = Words()
    kept = model.emb.weight.detach().clone()
    x = torch.rand(B, D)
    modhook.fit_masks(model, [(x, x)], lambda n, b: F.mse_loss(n(b[0]), b[1]), steps=3, samples=K, progress=False)
    assert torch.equal(model.emb.weight, kept)
