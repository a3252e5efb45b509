"""Units as gates on activations: the numbers of masks of weights, without a copy of a weight, wherever that is so; else by weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook import Masks
from modhook.errors import StackError
from modhook.noise.seeding import derive
from modhook.unit.group import Group

pytestmark = pytest.mark.filterwarnings("ignore::modhook.TrustWarning")
K, B, START = 4, 8, 1.0


class Net(nn.Module):
    """Layers, and what is done with them."""

    def __init__(self, does: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.does = does

    def forward(self, x: Tensor) -> Tensor:
        """Whatever it does."""
        return self.does(self, x)


class Attention(nn.Module):
    """Causal attention with four heads on two sets of keys and values, whose output layer is x W + b."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = 4, 2
        self.q, self.k, self.v = nn.Linear(6, 8), nn.Linear(6, 4), nn.Linear(6, 4)
        self.o = Turned(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 6) -> (B, T, 6)."""
        b, t, _ = x.shape
        q = self.q(x).view(b, t, 4, 2).transpose(1, 2)
        k, v = (y.view(b, t, 2, 2).transpose(1, 2).repeat_interleave(2, 1) for y in (self.k(x), self.v(x)))
        return self.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, 8))


class Turned(nn.Module):
    """A linear layer with its weight turned, as that of GPT-2."""

    def __init__(self, given: int, made: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(given, made)), nn.Parameter(torch.empty(made))

    def forward(self, x: Tensor) -> Tensor:
        """(..., given) -> (..., made)."""
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)


def recurrent(kind: Callable[..., nn.RNNBase] = nn.LSTM, **options: Any) -> Net:
    """A recurrent layer of two levels in both directions, read at its end and by its states."""
    return Net(
        lambda n, x: n.out((y := n.rnn(x))[0][:, -1]) + n.last((y[1][0] if kind is nn.LSTM else y[1])[-1]),
        rnn=kind(3, 4, 2, batch_first=True, bidirectional=True, **options),
        out=nn.Linear(8, 2),
        last=nn.Linear(4, 2),
    )


def stated() -> Net:
    """An LSTM that starts from what another layer gives, so that more than its rows decide about a unit."""
    return Net(
        lambda n, x: n.out(n.rnn(n.a(x).relu(), (h := n.b(x[:, 0])[None], h))[0].mean(1)),
        a=nn.Linear(3, 5),
        b=nn.Linear(3, 4),
        rnn=nn.LSTM(5, 4, batch_first=True),
        out=nn.Linear(4, 2),
    )


def images() -> Net:
    """Convolutions with batch norm, a depthwise one, a sum of two, a transposed one."""
    return Net(
        lambda n, x: n.out(torch.flatten(F.max_pool2d(n.up(n.two(y := n.deep(F.gelu(n.norm(n.one(x))))) + n.skip(y)), 2), 1)),
        one=nn.Conv2d(2, 5, 3, padding=1, padding_mode="reflect"), norm=nn.BatchNorm2d(5),
        deep=nn.Conv2d(5, 5, 3, padding="same", groups=5), two=nn.Conv2d(5, 4, 3, padding=1, bias=False), skip=nn.Conv2d(5, 4, 1),
        up=nn.ConvTranspose2d(4, 3, 2, stride=2), out=nn.Linear(48, 2),
    )  # fmt: skip


SEQUENCE = (5, 3)
HALVES = {
    "low": {"a.weight": slice(0, 3), "a.bias": slice(0, 3)},
    "high": {"a.weight": slice(3, 5), "a.bias": slice(3, 5)},
    "some": {"b.weight": (slice(None), [1, 4])},
}
ACTING: dict[str, tuple[Callable[[], nn.Module], Sequence[int], Any]] = {
    "a chain": (
        lambda: nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Sigmoid(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)),
        (3,),
        "neuron",
    ),
    "neurons, layers and blocks": (
        lambda: nn.Sequential(
            nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 6, bias=False)), nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
        ),
        (3,),
        ["neuron", "layer", "block"],
    ),
    "weights that are turned": (
        lambda: Net(
            lambda n, x: F.linear((x @ n.a.weight.T).tanh(), n.b.weight) @ n.c.weight,
            a=nn.Linear(3, 5, bias=False), b=nn.Linear(5, 4), c=nn.Linear(2, 4),
        ),
        (3,),
        {"row": {"a.weight": 1}, "column": {"b.weight": (slice(None), 2)}, "layer": {"c.weight": ...}},
    ),
    "rows and columns that are given": (
        lambda: Net(lambda n, x: n.b(n.a(x).tanh()), a=nn.Linear(3, 5), b=nn.Linear(5, 2)), (3,), HALVES
    ),
    "convolutions": (images, (2, 4, 4), "channel"),
    "an LSTM": (recurrent, SEQUENCE, "neuron"),
    "an LSTM without biases": (lambda: recurrent(bias=False), SEQUENCE, "neuron"),
    "a GRU": (lambda: recurrent(nn.GRU), SEQUENCE, "neuron"),
    "a GRU without biases": (lambda: recurrent(nn.GRU, bias=False), SEQUENCE, ["neuron", "layer"]),
    "a plain recurrent layer": (lambda: recurrent(nn.RNN, nonlinearity="relu"), SEQUENCE, "neuron"),
    "an LSTM's layers": (recurrent, SEQUENCE, ["neuron", "layer"]),
    "an encoder layer": (
        lambda: nn.TransformerEncoderLayer(6, 3, 8, batch_first=True, norm_first=True), (5, 6), ["head", "neuron"]
    ),
    "attention with shared keys": (Attention, (5, 6), "head"),
}  # fmt: skip


def drawn(make: Callable[[], nn.Module]) -> nn.Module:
    """A network in float64 with weights and statistics that are all different."""
    model = make().double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_floating_point():
                tensor.copy_(
                    torch.rand(tensor.shape, generator=generator) + 0.5
                    if "running_var" in name
                    else torch.randn(tensor.shape, generator=generator) * 0.5
                )
    return model  # fmt: skip


def batch(shape: Sequence[int], number: int = 0) -> tuple[Tensor, ...]:
    """Inputs of one step."""
    return (torch.randn(B, *shape, generator=torch.Generator().manual_seed(number)).double(),)


def loss(net: Any, batch: Any) -> Tensor:
    """A mean that every output has a part in."""
    return (net(batch[0]).sin() ** 2).mean()


def both(net: Any, batch: Any, complement: Callable[[], Any]) -> Tensor:
    """The loss, less half of that under the complement."""
    kept = loss(net, batch)
    with complement():
        return kept - 0.5 * loss(net, batch)


both.complement = True  # type: ignore[attr-defined]


def fitted(model: nn.Module, inputs: Any, objective: Any = loss, **options: Any) -> modhook.Fit:
    """One step whose update is the gradient, unless asked for otherwise."""
    given = {
        "samples": K,
        "steps": 1,
        "lr": 1.0,
        "beta": 0.0,
        "clip": None,
        "optimizer": "sgd",
        "init": START,
        "seed": 5,
    }
    return modhook.fit_masks(model, [inputs], objective, progress=False, **{**given, **options})


def looped(model: nn.Module, inputs: Any, groups: Sequence[Group]) -> tuple[float, dict[str, Tensor]]:
    """The loss and the logits' gradient, by a plain loop over K deep copies in which what decides about a unit is set to zero."""
    generators = [torch.Generator().manual_seed(derive(5, "", "mask noise", k)) for k in range(K)]
    total, gradient = 0.0, {g.name: torch.zeros(len(g), dtype=torch.float64) for g in groups}
    own = dict(model.named_parameters())
    for k in range(K):
        noise = {g.name: torch.empty(len(g), dtype=torch.float64).uniform_(generator=generators[k]) for g in groups}
        twin = copy.deepcopy(model)
        weights = dict(twin.named_parameters())
        kept = {n: u > torch.sigmoid(torch.tensor(-START, dtype=torch.float64)) for n, u in noise.items()}
        with torch.no_grad():
            for group in groups:
                for part in group.gates:
                    weights[part.parameter].mul_(part.spread(kept[group.name]))
        value = loss(twin, (inputs[0].view(K, B // K, *inputs[0].shape[1:])[k],))
        value.backward()
        total += float(value.detach()) / K
        for group in groups:
            # The weight of a unit is its gate times w times all other gates on it.
            slope = torch.zeros(len(group), dtype=torch.float64)
            for part in group.gates:
                others = own[part.parameter].detach().clone()
                for other in groups:
                    for more in other.gates:
                        if more.parameter == part.parameter and (other.name, more) != (group.name, part):
                            others *= more.spread(kept[other.name])
                product = weights[part.parameter].grad * others
                for unit in range(len(group)):
                    one = torch.zeros(len(group), dtype=torch.float64)
                    one[unit] = 1
                    mine = part.spread(one) - part.spread(torch.zeros(len(group), dtype=torch.float64))
                    slope[unit] += (product * mine).sum()
            soft = torch.sigmoid(torch.logit(noise[group.name]) + START)
            gradient[group.name] += slope * soft * (1 - soft) / K
    return total, gradient


@pytest.mark.parametrize("name", ACTING)
def test_a_step_is_that_of_networks_without_the_units(name: str) -> None:
    """Loss and gradient are those of K deep copies in which the units' weights are zero, whatever multiplies them."""
    make, shape, units = ACTING[name]
    model, inputs = drawn(make), batch(shape)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    fit = fitted(model, inputs, units=units)
    assert fit.route["route"] == "activations", fit.route["reason"]
    assert fit.masks.units is not None
    total, gradient = looped(model, inputs, list(fit.masks.units.values()))
    assert float(fit.history["loss"][0]) == pytest.approx(total, rel=1e-9)
    for group, slope in gradient.items():
        torch.testing.assert_close(fit.logits[group], START - slope, rtol=0, atol=1e-9)
        assert len(slope.unique()) > 1 or slope.numel() == 1
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


@pytest.mark.parametrize("objective", [loss, both])
@pytest.mark.parametrize("fixed", [False, True])
def test_both_routes_give_the_same_history(objective: Any, fixed: bool) -> None:
    """Losses, those of the deterministic mask and without any, and logits are those of masks of weights, step by step."""
    model, batches = drawn(ACTING["convolutions"][0]), [batch((2, 4, 4), n) for n in range(3)]
    options: dict[str, Any] = {
        "steps": 20,
        "lr": 0.1,
        "optimizer": "adam",
        "beta": 1e-3,
        "clip": 1.0,
        "units": "channel",
    }
    if fixed:
        generator = torch.Generator().manual_seed(0)
        options["fixed"] = Masks(
            {
                n: torch.rand(p.shape, generator=generator) > 0.3
                for n, p in model.named_parameters()
                if n in ("two.weight", "out.weight")
            }
        )
    fits = [
        modhook.fit_masks(model, batches, objective, samples=K, progress=False, executor=executor, **options)
        for executor in ("auto", "vmap", "loop")
    ]
    assert [f.route["route"] for f in fits] == ["activations", "vmap", "loop"]
    for other in fits[1:]:
        for name, logits in fits[0].logits.items():
            torch.testing.assert_close(logits, other.logits[name], rtol=0, atol=1e-9)
        for name in ("loss", "mask_loss", "unmasked_loss", "gradient_norm"):
            torch.testing.assert_close(
                *(torch.from_numpy(f.history[name].values) for f in (fits[0], other)),
                rtol=1e-9,
                atol=1e-12,
                equal_nan=True,
            )
    assert float(fits[0].history["unmasked_loss"][-1]) == pytest.approx(
        float(fits[1].history["unmasked_loss"][-1]), rel=1e-12
    )


def test_it_goes_on_to_the_bit(tmp_path: Path) -> None:
    """A fit that was stopped in the middle goes on by the same route, to the same bits."""
    model, batches = (
        drawn(ACTING["an LSTM"][0]).float(),
        [tuple(t.float() for t in batch(SEQUENCE, n)) for n in range(3)],
    )

    def fit(stop: int | None = None, **more: Any) -> modhook.Fit:
        def after(step: int, trainer: object) -> None:
            if step == stop:
                raise ZeroDivisionError

        return modhook.fit_masks(
            model, batches, loss, steps=8, lr=0.1, units="neuron", progress=False, callback=after, **more
        )

    whole = fit()
    with pytest.raises(ZeroDivisionError):
        fit(stop=5, checkpoint=tmp_path / "fit.ckpt", checkpoint_every=0)
    again = fit(checkpoint=tmp_path / "fit.ckpt")
    assert [f.route["route"] for f in (whole, again)] == ["activations"] * 2
    assert all(torch.equal(whole.logits[n], again.logits[n]) for n in whole.logits)


class Counted(nn.Linear):
    """A linear layer that uses its weight otherwise from its tenth call on, which is after the checks."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """(B, in) -> (B, out)."""
        Counted.calls += 1
        return (
            (x[:, None] * self.weight).sum(-1) + self.bias if Counted.calls > 9 else F.linear(x, self.weight, self.bias)
        )


LINEAR = {"a": nn.Linear(3, 5), "b": nn.Linear(5, 2)}
WEIGHTS: dict[str, tuple[Callable[[], nn.Module], Sequence[int], dict[str, Any], str]] = {
    "a state to start from": (stated, SEQUENCE, {}, "'rnn.weight_hh_l0' is used otherwise"),
    "projected outputs": (
        lambda: Net(lambda n, x: n.out(n.rnn(x)[0][:, -1]), rnn=nn.LSTM(3, 4, proj_size=2, batch_first=True), out=nn.Linear(2, 2)),
        SEQUENCE, {}, "is used otherwise",
    ),
    "items of several lengths": (
        lambda: Net(
            lambda n, x: n.out(n.rnn(nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3]), batch_first=True))[1][0]),
            rnn=nn.GRU(3, 4), out=nn.Linear(4, 2),
        ),
        SEQUENCE, {}, "is used otherwise",
    ),
    "a penalty on weights": (
        lambda: Net(lambda n, x: n.b(n.a(x)) + n.b.weight.square().sum(), **LINEAR), (3,),
        {"units": {"one": {"b.weight": (slice(None), 2)}}}, "'b.weight' is used otherwise",
    ),
    "units that cross": (
        lambda: Net(lambda n, x: n.b(n.a(x)), **LINEAR), (3,),
        {"units": {"one": {"a.weight": (0, 1)}, "two": {"a.weight": (1, 2)}}}, "'a.weight' is used otherwise",
    ),
    "what is put in the place of weights": (lambda: Net(lambda n, x: n.b(n.a(x)), **LINEAR), (3,), {"off": "shuffled"}, ""),
    "single weights, too": (lambda: Net(lambda n, x: n.b(n.a(x)), **LINEAR), (3,), {"units": ["neuron", "weight"]}, ""),
    "weights that learn": (
        lambda: Net(lambda n, x: n.b(n.a(x)), **LINEAR), (3,), {"train_weights": {"b.bias": torch.ones(2, dtype=torch.bool)}}, ""
    ),
    "a norm over all weights": (lambda: Net(lambda n, x: n.b(n.a(x)), **LINEAR), (3,), {"clip_over": "all", "clip": 1.0}, ""),
    "dropout that draws": (
        lambda: Net(lambda n, x: n.b(F.dropout(n.a(x), 0.5, n.training)), **LINEAR).train(), (3,), {}, "draws random numbers"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_multiplied_where_activations_are_not_enough(name: str) -> None:
    """Where gates on activations are not all, the route is that of masks of weights, as if asked for, and says why."""
    make, shape, options, said = WEIGHTS[name]
    training = name.startswith("dropout")
    model = drawn(make).train(training)
    options = {"units": "neuron", **options}
    torch.manual_seed(0)
    fit = fitted(model, batch(shape), **options)
    assert fit.route["route"] == "vmap"
    assert said in fit.route["reason"]
    assert bool(said) == ("multiplied" in fit.route["reason"])
    torch.manual_seed(0)
    other = fitted(model, batch(shape), executor="vmap", **options)
    assert all(torch.equal(logits, other.logits[n]) for n, logits in fit.logits.items())


def test_a_network_that_changes_its_ways() -> None:
    """A weight that is used otherwise in a later step only is multiplied from there on: same draws, same numbers."""
    make = lambda: Net(lambda n, x: n.b(n.a(x)), a=nn.Linear(3, 5), b=Counted(5, 2))  # noqa: E731
    fits = []
    for executor in ("auto", "vmap"):
        Counted.calls = 0
        fits.append(
            fitted(drawn(make), batch((3,)), executor=executor, units={"one": {"b.weight": (slice(None), 2)}}, steps=12)
        )
    assert [f.route["route"] for f in fits] == ["vmap", "vmap"]
    assert "'b.weight' is used otherwise" in fits[0].route["reason"]
    torch.testing.assert_close(fits[0].logits["units"], fits[1].logits["units"], rtol=0, atol=1e-9)


def test_a_weight_that_is_kept_elsewhere() -> None:
    """A weight that is read from a list, where no mask reaches it, is refused as it is for masks of weights."""
    model = Net(lambda n, x: F.linear(n.a(x).tanh(), n.kept[0]), **LINEAR)
    model.kept = [model.b.weight]
    with pytest.raises(StackError, match=r"'b\.weight' from its attribute 'kept'"):
        fitted(drawn(lambda: model), batch((3,)), units={"one": {"b.weight": (slice(None), 2)}})


def test_no_copy_of_a_weight_is_made() -> None:
    """A step of a fit over neurons makes no tensor of K times the size of a weight; that is what masks of weights need."""
    model = nn.Sequential(nn.Linear(16, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 2)).eval()
    given = (torch.randn(K, 16, generator=torch.Generator().manual_seed(0)),)
    largest: dict[str, int] = {}
    for executor in ("auto", "vmap"):
        sizes: list[int] = []

        def after(step: int, trainer: Any, sizes: list[int] = sizes) -> None:
            sizes.extend(numel for numel, _ in trainer.workspace._buffers)

        fitted(model, given, units="neuron", executor=executor, steps=2, callback=after)
        largest[executor] = max(sizes, default=0)
    assert largest == {"auto": 0, "vmap": K * 512 * 512}


def test_memory_counts_no_copies_where_there_are_none() -> None:
    """Gates on activations hold no masked weights, so that any `memory=` is enough, and all samples run at once; where weights are
    multiplied it counts them."""
    make, shape, units = ACTING["a chain"]
    model, seen = drawn(make), []

    def after(step: int, trainer: Any) -> None:
        seen.append(trainer.chunk)

    fit = fitted(model, batch(shape), units=units, memory=1, callback=after)
    assert fit.route["route"] == "activations"
    assert seen == [K]
    with pytest.raises(modhook.UserError, match="memory=1 bytes is less than"):
        fitted(model, batch(shape), units=units, memory=1, off="shuffled")
