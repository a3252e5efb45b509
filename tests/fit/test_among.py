"""Masks learned among some of the weights only, and a ranking without training that says among which."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import modhook
from modhook import Masks, UserError

WIDE = 12


def loss(net: Any, x: Tensor) -> Tensor:
    """How far the first output is from the sum of the first two inputs."""
    return (net(x)[:, 0] - x[:, 0] - x[:, 1]).square().mean()


def score(net: Any, x: Tensor) -> Tensor:
    """1 for an item whose first output is right to a tenth."""
    return ((net(x)[:, 0] - x[:, 0] - x[:, 1]).abs() < 0.1).double()


@pytest.fixture(scope="module")
def data() -> list[Tensor]:
    """Batches of inputs."""
    return [torch.randn(32, WIDE, generator=torch.Generator().manual_seed(i)) for i in range(8)]


@pytest.fixture
def model() -> nn.Linear:
    """Adds its first two inputs in its first output; everything else is noise that the first output needs not."""
    made = nn.Linear(WIDE, 3, bias=False)
    with torch.no_grad():
        made.weight.copy_(torch.randn(3, WIDE, generator=torch.Generator().manual_seed(5)))
        made.weight[0] = 0.001
        made.weight[0, :2] = 1
    return made


def among_of(model: nn.Module, count: int) -> Masks:
    """Keeps the first weights of the first output."""
    mask = torch.zeros(3, WIDE, dtype=torch.bool)
    mask[0, :count] = True
    return Masks({"weight": mask}, model)


@pytest.mark.parametrize("sampler", ["gumbel", "hard_concrete", "continuous_sparsification"])
def test_no_other_weight_is_ever_kept_and_all_come_last(model: nn.Linear, data: list[Tensor], sampler: str) -> None:
    """Every weight outside ranks behind every weight inside, no sample shows it to the loss, and the start inside is the sampler's own."""
    among, seen = among_of(model, 5), []

    def watched(net: Any, x: Tensor) -> Tensor:
        column = net(torch.eye(WIDE))[:, 0]  # the masked weights of the first output: (WIDE,)
        if column.requires_grad:  # else the loss is only measured, also without any mask
            seen.append(column.detach())
        return loss(net, x)

    options: dict[str, Any] = {"sampler": sampler, "steps": 60, "lr": 0.1, "beta": 2.0, "beta_start": 0.01, "executor": "loop"}
    fit = modhook.fit_masks(model, data, watched, among=among, progress=False, **options)
    inside, outside = fit.logits["weight"][among["weight"]], fit.logits["weight"][~among["weight"]]
    assert outside.max() < inside.min()
    assert not fit.masks["weight"][~among["weight"]].any()
    assert fit.cut(keep=5) == among
    shown = torch.stack(seen[-4 * 50 :])  # before the first step, the route is looked for
    assert (shown[:, 5:].abs() < 1e-6).all(), "no sample keeps what is outside"
    assert (shown[:, :2].abs() > 0.5).any()


def test_everything_among_all_is_the_fit_without(model: nn.Linear, data: list[Tensor]) -> None:
    """Masks that keep every weight, or name no parameter, change no bit."""
    options: dict[str, Any] = {"sampler": "hard_concrete", "steps": 20, "lr": 0.1, "beta": 1.0, "progress": False}
    plain = modhook.fit_masks(model, data, loss, **options).logits["weight"]
    for among in (among_of(model, 5) | ~among_of(model, 5), Masks({}, model)):
        assert torch.equal(modhook.fit_masks(model, data, loss, among=among, **options).logits["weight"], plain)


def test_learned_among_what_a_ranking_keeps(model: nn.Linear, data: list[Tensor]) -> None:
    """The two steps of the recipe: never larger than the ranking's own cut, and as small as the function allows."""
    sized: dict[str, Any] = {"within": 0.001, "score": score, "valid": data[:2], "progress": False}
    first = modhook.fit_masks(model, data, loss, sampler="integrated_gradients", steps=8, **sized)
    rising: dict[str, Any] = {"samples": 16, "steps": 100, "lr": 0.1, "beta": 3.0, "beta_start": 0.003, "init": 3.0}
    fit = modhook.fit_masks(model, data, loss, sampler="hard_concrete", among=first.masks, **rising, **sized)
    assert (fit.masks & ~first.masks).kept() == 0
    assert fit.masks.kept() == 2
    assert fit.masks["weight"][0, :2].all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampler": "magnitude", "within": 0.1}, "ranks weights and learns nothing"),
        ({"density": 0.1}, "density= holds a density of all weights"),
        ({"sampler": "top_k"}, "TopK holds a density of all weights"),
        ({"among": {}}, "among must be masks, or a ranking"),
        ({"among": "none"}, "keeps none of the weights"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(
    model: nn.Linear, data: list[Tensor], arguments: dict[str, Any], message: str
) -> None:
    """Refused before anything is learned."""
    given = {"among": among_of(model, 5)} | arguments
    if given["among"] == "none":
        given["among"] = among_of(model, 0)
    if "within" in given:
        given |= {"score": score, "valid": data[:1]}
    with pytest.raises(UserError, match=message):
        modhook.fit_masks(model, data, loss, steps=1, progress=False, **given)


def deep() -> nn.Sequential:
    """Two hidden layers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 2)).eval()


def gone(model: nn.Module, among: Masks, units: Any) -> dict[str, list[int]]:
    """Which units, or weights, start where no sample keeps them."""
    options: dict[str, Any] = {"steps": 2, "lr": 0.1, "samples": 2, "progress": False}
    fit = modhook.fit_masks(model, [torch.randn(4, 4)], lambda net, x: net(x).square().mean(), units=units, among=among, **options)
    return {n: (v.flatten() < -20).nonzero().flatten().tolist() for n, v in fit.logits.items()}


def test_units_among_weights() -> None:
    """A unit may be kept if one of its weights may: of the row, bias and column of a neuron, those that the masks name."""
    model = deep()
    row, column = torch.zeros(5, 4, dtype=torch.bool), torch.zeros(3, 5, dtype=torch.bool)
    row[1, 2] = row[3, 0] = column[0, 4] = True
    among = Masks({"0.weight": row, "2.weight": column}, model)
    # Of the second layer the third output's weights are gone, and the columns that take it are not named.
    assert gone(model, among, "neuron") == {"neuron:0": [0, 2], "neuron:2": [1, 2]}
    mine = {"unnamed": {"4.bias": 0}, "out": {"0.weight": 0, "4.bias": 1}, "in": {"0.weight": (3, slice(0, 2))}}
    assert gone(model, among, mine) == {"units": [1]}
    everything = Masks({n: torch.zeros_like(p, dtype=torch.bool) for n, p in model.named_parameters()}, model)
    with pytest.raises(UserError, match="keeps none"):
        gone(model, everything, "neuron")


def test_units_and_weights_among_units() -> None:
    """Masks over units say it of the same units, and of others, and of weights, by the weights that they keep."""
    model = deep()
    units = modhook.units(model)
    among = Masks({"neuron:0": torch.tensor([True, False, True, False, True])}, model, units=units)
    assert gone(model, among, "neuron") == {"neuron:0": [1, 3], "neuron:2": []}
    found = gone(model, among, ["neuron", "weight"])
    assert found["neuron:0"] == [1, 3]
    assert found["0.weight"] == [4, 5, 6, 7, 12, 13, 14, 15]
    assert found["2.weight"] == [1, 3, 6, 8, 11, 13]
    assert found["4.weight"] == []
    # Units of one's own that are called as others were are other units.
    mine = {"one": {"0.weight": 1}, "two": {"0.weight": (slice(2, 4), 1)}}
    others = {"a": {"2.weight": 0}, "b": {"0.weight": 1}}
    other = modhook.fit_masks(model, [torch.randn(4, 4)], lambda net, x: net(x).mean(), units=others, steps=1, progress=False)
    kept = Masks({"units": torch.tensor([True, False])}, model, units=other.masks.units)
    assert gone(model, kept, mine) == {"units": [0]}


def test_a_mask_settles_by_the_weights_that_can_move(model: nn.Linear, data: list[Tensor]) -> None:
    """How far logits are from 0 at the start is asked of those that are not gone: else a mask among few weights would never settle."""
    options: dict[str, Any] = {"sampler": "hard_concrete", "steps": 600, "lr": 0.1, "beta": 1.0, "stop": "settled", "progress": False}
    fit = modhook.fit_masks(model, data, loss, among=among_of(model, 2), **options)
    assert fit.stopped == "settled"


def test_the_size_of_what_was_learned_among_is_looked_at() -> None:
    """A cut that keeps exactly those weights scores enough, so none larger is returned, although the search would step over that size."""
    net = nn.Linear(40, 50, bias=False)
    inside = torch.zeros(50, 40, dtype=torch.bool)
    inside.view(-1)[:545] = True
    among = Masks({"weight": inside}, net)

    def exact(under: Any, x: Tensor) -> Tensor:
        kept = (under(x) != 0).T  # (50, 40)
        return torch.full((len(x),), float(bool(kept.all()) or torch.equal(kept, inside)))

    inputs = torch.eye(40)
    fit = modhook.fit_masks(
        net, [inputs], lambda under, x: under(x).square().mean(), steps=1, samples=1, lr=1e-3, init=-1.0, among=among,
        within=0.1, score=exact, valid=[inputs], progress=False,
    )  # fmt: skip
    assert fit.masks == among
