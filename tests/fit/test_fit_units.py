"""Fits over units: one logit per unit, and everything that holds for fits over weights."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook import Masks, UserError
from modhook.noise.seeding import derive

pytestmark = pytest.mark.filterwarnings("ignore::modhook.TrustWarning")
K, B = 4, 16


def network() -> nn.Sequential:
    """Two hidden layers in float64."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.Sigmoid(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)).double().eval()


def batch(number: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs and targets of one step."""
    generator = torch.Generator().manual_seed(number)
    return torch.randn(B, 3, generator=generator).double(), torch.randn(B, 2, generator=generator).double()


def loss(net: Any, batch: Any) -> Tensor:
    """The mean squared distance."""
    return F.mse_loss(net(batch[0]), batch[1])


def both(net: Any, batch: Any, complement: Callable[[], Any]) -> Tensor:
    """The loss, and half of the negative loss under the complement."""
    kept = loss(net, batch)
    with complement():
        return kept - 0.5 * loss(net, batch)


both.complement = True  # type: ignore[attr-defined]


def run(model: nn.Sequential, x: Tensor, gates: list[Tensor]) -> Tensor:
    """The network with its hidden activations multiplied by gates, which takes no masks of weights."""
    for i, gate in zip((0, 2), gates, strict=True):
        x = model[i + 1](model[i](x)) * gate
    return model[4](x)


@pytest.mark.parametrize("objective", [loss, both])
@pytest.mark.parametrize("executor", ["vmap", "loop"])
def test_a_step_is_that_of_gates_on_activations(objective: Any, executor: str) -> None:
    """One step moves the logits by the gradient of K networks whose activations are multiplied by sampled gates."""
    model = network()
    sizes = {"neuron:0": 6, "neuron:2": 5}
    fit = modhook.fit_masks(
        model, [batch()], objective, samples=K, steps=1, lr=1.0, beta=0.0, clip=None, optimizer="sgd", units="neuron", init=0.3,
        seed=5, executor=executor, progress=False,
    )  # fmt: skip
    generators = [torch.Generator().manual_seed(derive(5, "", "mask noise", k)) for k in range(K)]
    logits = {n: torch.full((s,), 0.3, dtype=torch.float64) for n, s in sizes.items()}
    noise = {
        n: torch.stack([torch.empty(s, dtype=torch.float64).uniform_(generator=g) for g in generators])
        for n, s in sizes.items()
    }
    expected = {n: torch.zeros(s, dtype=torch.float64) for n, s in sizes.items()}
    for k in range(K):
        x, y = (t.view(K, B // K, -1)[k] for t in batch())
        gates = [(noise[n][k] > torch.sigmoid(-logits[n])).double().requires_grad_() for n in sizes]
        value = F.mse_loss(run(model, x, gates), y)
        if objective is both:
            value = value - 0.5 * F.mse_loss(run(model, x, [1 - g for g in gates]), y)
        for name, gradient in zip(sizes, torch.autograd.grad(value, gates), strict=True):
            soft = torch.sigmoid(torch.logit(noise[name][k]) + logits[name])
            expected[name] += gradient * soft * (1 - soft) / K
    for name in sizes:
        torch.testing.assert_close(fit.logits[name], 0.3 - expected[name], rtol=1e-9, atol=1e-12)


def test_levels_multiply() -> None:
    """With heads of several levels a weight is kept if it and all of its units are; the history measures exactly that network."""
    model = network()
    options: dict[str, Any] = {
        "units": ["neuron", "weight"],
        "exclude": "4.*",
        "lr": 1e-9,
        "steps": 1,
        "progress": False,
    }
    shapes = {
        "neuron:0": (6,),
        "neuron:2": (5,),
        "0.weight": (6, 3),
        "0.bias": (6,),
        "2.weight": (5, 6),
        "2.bias": (5,),
    }
    generator = torch.Generator().manual_seed(0)
    init = {n: torch.where(torch.rand(s, generator=generator) > 0.4, 40.0, -40.0) for n, s in shapes.items()}
    fit = modhook.fit_masks(model, [batch()], loss, init=init, **options)
    masks = fit.masks
    assert list(masks) == list(shapes)
    assert masks.counted == "units and weights"
    one, two = masks["neuron:0"], masks["neuron:2"]
    weights = masks.weights(model)
    assert torch.equal(weights["2.weight"], masks["2.weight"] & two[:, None] & one[None])
    assert torch.equal(weights["0.weight"], masks["0.weight"] & one[:, None])
    assert torch.equal(weights["4.weight"], two[None].expand(2, 5))
    assert torch.equal(weights["2.bias"], masks["2.bias"] & two)
    with torch.no_grad(), masks.applied_to(model):
        measured = float(loss(model, batch()))
    assert float(fit.history["loss"][0]) == pytest.approx(measured, rel=1e-9)
    assert float(fit.history["mask_loss"][0]) == pytest.approx(measured, rel=1e-9)


@pytest.mark.parametrize("sampler", ["gumbel", "hard_concrete", "top_k", "continuous_sparsification"])
def test_any_sampler_draws_units(sampler: str) -> None:
    """Every sampler learns units, at a density, in float32 too: the masks keep that share of the units."""
    model = network().float()
    x, y = batch()
    fit = modhook.fit_masks(
        model,
        [(x.float(), y.float())],
        loss,
        steps=30,
        lr=0.1,
        units="neuron",
        sampler=sampler,
        density=4 / 11,
        progress=False,
    )
    assert fit.masks.kept() == 4
    assert fit.masks.size == 11
    assert fit.masks.counted == "units"


def test_a_fit_of_units_goes_on_to_the_bit(tmp_path: Path) -> None:
    """A fit that was stopped in the middle and called again ends with the bits of one that was not."""
    model, batches = network().float(), [tuple(t.float() for t in batch(n)) for n in range(4)]

    def fit(stop: int | None = None, **options: Any) -> modhook.Fit:
        def after(step: int, trainer: object) -> None:
            if step == stop:
                raise ZeroDivisionError

        return modhook.fit_masks(
            model,
            batches,
            loss,
            steps=12,
            lr=0.1,
            units=["neuron", "weight"],
            density=0.5,
            progress=False,
            callback=after,
            **options,
        )

    whole = fit()
    with pytest.raises(ZeroDivisionError):
        fit(stop=7, checkpoint=tmp_path / "fit.ckpt", checkpoint_every=0)
    again = fit(checkpoint=tmp_path / "fit.ckpt")
    assert all(torch.equal(whole.logits[n], again.logits[n]) for n in whole.logits)


def test_cuts_and_files(tmp_path: Path) -> None:
    """Cuts, curve, smallest, within, and a fit from a file, count units."""
    model = network()

    def score(net: Any, batch: Any) -> Tensor:
        return -((net(batch[0]) - batch[1]) ** 2).mean(1)

    fit = modhook.fit_masks(
        model,
        [batch()],
        loss,
        steps=30,
        lr=0.2,
        units="neuron",
        within=0.2,
        score=score,
        valid=[batch()],
        progress=False,
    )
    fit.save(tmp_path / "fit")
    loaded = modhook.Fit.load(tmp_path / "fit", model)
    assert loaded.cut(keep=3) == fit.cut(keep=3)
    assert fit.cut(keep=3).kept() == 3
    curve = loaded.curve([batch()], score, points=4)
    assert curve["kept"].values.tolist()[-1] == 11
    with fit.cut(keep=1).applied_to(model), torch.no_grad():
        expected = float(score(model, batch()).mean())
    assert float(curve["score"][0]) == pytest.approx(expected, abs=1e-12)
    without = ~fit.cut(keep=1)
    with without.applied_to(model), torch.no_grad():
        expected = float(score(model, batch()).mean())
    assert float(curve["complement"][0]) == pytest.approx(expected, abs=1e-12)
    assert loaded.smallest([batch()], score, within=0.2) == fit.masks


def test_off_replaces_every_weight_of_a_unit() -> None:
    """With weights of a second network, a unit that is out has all of its weights from there, while learning too."""
    model, other = network(), network()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(-0.5)
    init = {"neuron:0": torch.tensor([40.0, -40, 40, -40, 40, 40]), "neuron:2": torch.tensor([40.0, 40, -40, 40, 40])}
    fit = modhook.fit_masks(
        model, [batch()], loss, steps=1, lr=1e-9, units="neuron", off=other, init=init, progress=False
    )
    one, two = init["neuron:0"] > 0, init["neuron:2"] > 0
    mine, theirs = dict(model.named_parameters()), dict(other.named_parameters())
    own = {
        "0.weight": one[:, None],
        "0.bias": one,
        "2.weight": two[:, None] & one,
        "2.bias": two,
        "4.weight": two[None],
        "4.bias": torch.tensor(True),
    }
    mixed = {n: torch.where(m, mine[n], theirs[n]).detach() for n, m in own.items()}
    expected = float(F.mse_loss(torch.func.functional_call(model, mixed, (batch()[0],)), batch()[1]))
    assert float(fit.history["loss"][0]) == pytest.approx(expected, rel=1e-9)
    assert float(fit.history["mask_loss"][0]) == pytest.approx(expected, rel=1e-9)


def test_fixed_units_and_weights_stay() -> None:
    """Fixed masks of some units, or of weights, are applied and not learned beside learned units."""
    model = network()
    some = Masks({"neuron:0": torch.tensor([True, False] * 3)}, units=modhook.units(model))
    fit = modhook.fit_masks(model, [batch()], loss, steps=3, units="neuron", fixed=some, init=30.0, progress=False)
    assert list(fit.logits) == ["neuron:2"]
    with some.applied_to(model), torch.no_grad():
        expected = float(loss(model, batch()))
    assert float(fit.history["loss"][0]) == pytest.approx(expected, rel=1e-9)
    assert torch.equal(fit.masks["neuron:0"], some["neuron:0"])
    plain = Masks({"2.weight": torch.rand(5, 6, generator=torch.Generator().manual_seed(0)) > 0.5})
    fit = modhook.fit_masks(model, [batch()], loss, steps=1, units="neuron", fixed=plain, init=30.0, progress=False)
    with plain.applied_to(model), torch.no_grad():
        expected = float(loss(model, batch()))
    assert float(fit.history["loss"][0]) == pytest.approx(expected, rel=1e-9)
    with fit.masks.applied_to(model), torch.no_grad():
        assert float(loss(model, batch())) == pytest.approx(expected, rel=1e-9)


def test_rankings_count_units() -> None:
    """Magnitude ranks units by the mean of their weights, gradient times weight by the sum, over every weight that they own."""
    model = network()
    own = {n: p.detach() for n, p in model.named_parameters()}
    fit = modhook.fit_masks(model, [batch()], loss, units="neuron", sampler="magnitude", density=0.5, progress=False)
    two = own["2.weight"].abs().sum(1) + own["2.bias"].abs() + own["4.weight"].abs().sum(0)
    torch.testing.assert_close(fit.logits["neuron:2"], two / (6 + 1 + 2))
    fit = modhook.fit_masks(
        model, [batch()], loss, units="neuron", sampler="gradient_weight", density=0.5, steps=1, progress=False
    )
    twin = network()
    loss(twin, batch()).backward()
    each = {n: (p * p.grad).abs().detach() for n, p in twin.named_parameters()}
    torch.testing.assert_close(
        fit.logits["neuron:0"], each["0.weight"].sum(1) + each["0.bias"] + each["2.weight"].sum(0)
    )


def test_weights_are_as_ever() -> None:
    """`units="weight"` is no units: the same logits to the bit."""
    model = network().float()
    batches = [tuple(t.float() for t in batch())]
    one = modhook.fit_masks(model, batches, loss, steps=5, progress=False)
    two = modhook.fit_masks(model, batches, loss, steps=5, units="weight", progress=False)
    assert all(torch.equal(one.logits[n], two.logits[n]) for n in one.logits)
    assert one.masks.units is None


class Odd(nn.Module):
    """Attention that is none: its heads share everything."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 3
        self.q, self.k, self.v, self.o = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 4) -> (B, T, 4)."""
        return self.o((self.q(x) @ self.k(x).mT).softmax(-1) @ self.v(x)).sort(-1)[0]


@pytest.mark.parametrize(
    ("units", "said"),
    [
        ("nueron", "unknown units 'nueron' (did you mean 'neuron'?)"),
        ([], "units must name one kind at least"),
        (7, "units must be one of weight, neuron"),
        (["neuron", "neuron"], "units 'neuron:0' are asked for twice"),
        ("head", "no head was found in Sequential"),
        ({}, "not an empty one"),
        ({"a": {"0.wieght": 1}}, "unit 'a' names '0.wieght' (did you mean '0.weight'?)"),
        ({"a": {"0.weight": 6}}, "unit 'a': the index 6 of '0.weight' leaves the tensor, whose shape is (6, 3)"),
        ({"a": {"0.weight": slice(4, 9)}}, "unit 'a': the index slice(4, 9) of '0.weight' leaves the tensor"),
        ({"a": {"0.weight": (slice(None), slice(0, 4))}}, "leaves the tensor"),
        ({"a": {"0.weight": np.ones((2, 3), dtype=bool)}}, "leaves the tensor"),
        ({"a": {"0.weight": slice(2, 2)}}, "takes no weight of it"),
        ({"a": {"0.weight": "b"}}, "the index 'b' of '0.weight' is none; give a number, a slice"),
        ({"a": {"0.weight": (0, {"b": 1})}}, "of '0.weight' is none; give a number"),
        ({"a": {"0.weight": ["b"]}}, "of '0.weight' is none; give a number"),
        ({"a": {"0.weight": [0.5]}}, "of '0.weight' is none; give a number"),
        ({"a": {"0.weight": [1, 1]}}, "takes a weight twice"),
        ({"a": {"0.weight": 0}, "b": {"0.bias": 1, "0.weight": (..., 2)}}, "unit 'b' owns weights of '0.weight' that unit 'a' owns too"),
        (lambda model: 3, "units as a mapping are {unit name"),
        ({"a": 3}, "unit 'a' must be {parameter name: index}"),
    ],
)  # fmt: skip
def test_one_sentence_for_units_that_are_none(units: Any, said: str, tmp_path: Path) -> None:
    """Unknown kinds, kinds that are not there, and mappings that overlap or leave a tensor: one sentence, and nothing is written."""
    with pytest.raises(UserError, match=re.escape(said)) as error:
        modhook.fit_masks(
            network(),
            [batch()],
            loss,
            units=units,
            checkpoint=tmp_path / "fit.ckpt",
            checkpoint_every=0,
            progress=False,
        )
    assert str(error.value).count(". ") == 0
    assert not any(tmp_path.iterdir())


def test_heads_that_do_not_divide_are_none() -> None:
    """A module that names three heads for four features has none, and the message says why."""
    x = torch.randn(8, 5, 4)
    with pytest.raises(
        UserError,
        match=r"no head was found in Odd \(those of 'Odd' may be heads: Odd is said to have 3, which does not divide",
    ):
        modhook.fit_masks(Odd(), [x], lambda net, x: net(x).mean(), units="head", progress=False)


def test_given_units_are_learned() -> None:
    """A mapping, and a callable that makes one, with rows, several axes, a boolean mask and a tied name, is learned unit by unit."""
    model = network()
    mask = torch.zeros(5, 6, dtype=torch.bool)
    mask[0, 1] = mask[4] = True
    given = {
        "first": {"0.weight": slice(0, 3), "0.bias": [0, 1, 2]},
        "second": {"2.weight": mask},
        "third": {"2.weight": (0, 0), "4.weight": -1},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = modhook.fit_masks(
            model,
            [batch()],
            loss,
            steps=2,
            units=lambda model: given,
            init={"units": torch.tensor([40.0, -40, -40])},
            progress=False,
        )
    weights = fit.masks.weights(model)
    assert fit.masks.units is not None
    assert fit.masks.units["units"].labels == ("first", "second", "third")
    expected = ~mask
    expected[0, 0] = False
    assert torch.equal(weights["2.weight"], expected)
    assert weights["0.weight"].all()
    assert weights["4.weight"].tolist() == [[True] * 5, [False] * 5]


def test_patterns_choose_units() -> None:
    """Patterns choose units by the weight that makes them; what chooses none says so."""
    model = network()
    fit = modhook.fit_masks(model, [batch()], loss, steps=1, units="neuron", include="2.*", progress=False)
    assert list(fit.masks) == ["neuron:2"]
    with pytest.raises(UserError, match="the patterns leave no units"):
        modhook.fit_masks(model, [batch()], loss, steps=1, units="neuron", include="4.*", progress=False)
    shares = {"neuron:0": 0.5, "2.*": 0.2}
    fit = modhook.fit_masks(model, [batch()], loss, steps=1, units="neuron", density=shares, progress=False)
    assert fit.masks.kept(per_tensor=True) == {"neuron:0": 3, "neuron:2": 1}


def test_each_kind_has_a_density_of_its_own() -> None:
    """Beside weights a pattern of units means these, and `*` the weights, too; one that means neither names what there is."""
    fitted = functools.partial(
        modhook.fit_masks, network(), [batch()], loss, steps=1, units=["neuron", "weight"], progress=False
    )
    kept = fitted(density={"neuron:*": 0.5, "*": 0.1}).masks.kept(per_tensor=True)
    assert kept.pop("neuron:0") + kept.pop("neuron:2") == 6  # of 11
    assert sum(kept.values()) == 6  # of 18 + 30 + 10
    kept = fitted(density={nn.Linear: 0.5}).masks.kept()
    assert kept in (34, 35)  # of 69
    with pytest.raises(UserError, match=r"density pattern 'neuron:3' matches no units and no parameter .*: neuron:0, neuron:2, 0"):
        fitted(density={"neuron:3": 0.5, "*": 0.1})


def test_a_reference_of_other_masks_counts_units() -> None:
    """What remains is counted in units of whose weights the reference keeps any, and those of the same masks as they are."""
    model = network()
    weights = {n: torch.zeros_like(p, dtype=torch.bool) for n, p in model.named_parameters() if n in ("0.weight", "2.weight")}
    weights["0.weight"][:2, 1] = True  # rows of neurons 0 and 1
    weights["2.weight"][3, 4] = True  # a column of neuron 4, a row of neuron 3 of the next layer
    how: dict[str, Any] = {"samples": K, "steps": 3, "lr": 2.0, "beta": 0.0, "units": "neuron", "sampler": "gumbel", "progress": False}
    expected = {"neuron:0": [0, 1, 4], "neuron:2": [3]}
    other = modhook.fit_masks(model, [batch()], loss, reference=Masks(weights, model), **how)
    same = {n: torch.zeros_like(m) for n, m in other.masks.items()}
    for name, units in expected.items():
        same[name][units] = True
    for fit in (other, modhook.fit_masks(model, [batch()], loss, reference=Masks(same, model, units=other.masks.units), **how)):
        row = fit.history.isel(step=-1)
        for name, units in expected.items():
            kept = int(fit.logits[name][units].ge(0).sum())
            assert row["remaining"].sel(parameter=name).item() == kept / len(units)
    alone = modhook.fit_masks(model, [batch()], loss, **{**how, "units": "weight", "reference": other.masks})
    row, kept = alone.history.isel(step=-1), other.masks.weights(model)["2.weight"]
    both_kept = int((kept & alone.logits["2.weight"].ge(0)).sum())
    assert row["remaining"].sel(parameter="2.weight").item() == both_kept / int(kept.sum())
