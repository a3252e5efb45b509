"""What a fit does where nobody says how to learn: rank, learn among what the ranking keeps under a relative pull, cut by the loss."""

from __future__ import annotations

import copy
import itertools
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import modhook
from modhook import Masks, TrustWarning, UserError, fit_masks
from modhook.fit.recovered import Recovered, looked_at
from modhook.fit.settled import turnover
from modhook.fit.usual import SAYS_HOW, USUAL, samples_for
from modhook_plugins.samplers.hard_concrete import HardConcrete
from modhook_tasks import known


def loss(net: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(net(batch[0]), batch[1])


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """A network that says which of two inputs is larger, and of the other two nothing."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).double(), torch.randn(256, 4).double()
    y = (x[:, 0] > x[:, 1]).long()
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(300):
        optimizer.zero_grad()
        loss(net, (x, y)).backward()
        optimizer.step()
    return net.requires_grad_(False), list(zip(x.split(32), y.split(32), strict=True))


def test_a_known_module_is_found_with_nothing_but_batches_and_a_loss() -> None:
    """The compiled program `hist`: as many weights as brute force needs, none idle, every answer right on items that chose nothing."""
    built = known.build("hist")
    wanted = built.functions["hist"]
    with pytest.warns(TrustWarning, match="embeddings"):
        fit = fit_masks(built.model, wanted.batches(seed=0, size=128), wanted.loss, progress=False)
    assert modhook.evaluate(built.model, fit.masks, wanted.test_batches(), wanted.score) == 1
    assert built.truth.necessary is not None
    assert fit.masks.kept() <= sum(int(m.sum()) for m in built.truth.necessary["hist"].values())
    assert fit.among is not None
    assert all(not (m & ~fit.among[n]).any() for n, m in fit.masks.items())
    assert fit.turnover() == 0


def test_the_default_is_what_it_is_said_to_be(trained: Any) -> None:
    """The same call with every argument written out gives the same bits; with one that belongs to a sampler it is `gumbel`."""
    net, batches = trained
    fit = fit_masks(net, batches, loss, steps=40, progress=False)
    said = {"steps": 40, "samples": 16, "lr": 0.1, "init": 3.0, "beta": 50.0, "beta_start": 0.01, "relative_beta": True}
    same = fit_masks(
        net, batches, loss, sampler="hard_concrete", among="integrated_gradients", within=0.003, progress=False, **said
    )
    assert all(torch.equal(same.logits[n], fit.logits[n]) for n in fit.logits)
    assert (same.masks, same.among) == (fit.masks, fit.among)
    score = lambda net, batch: (net(batch[0]).argmax(-1) == batch[1]).double()  # noqa: E731
    scored = fit_masks(net, batches, loss, steps=40, score=score, valid=batches, progress=False)
    by = fit_masks(
        net, batches, loss, sampler="hard_concrete", among="integrated_gradients", within=0.001, score=score, valid=batches,
        progress=False, **said,
    )  # fmt: skip
    assert (scored.masks, scored.among) == (by.masks, by.among)


@pytest.mark.filterwarnings("ignore::modhook.TrustWarning")
@pytest.mark.parametrize("name", sorted(set(SAYS_HOW) - {"carried", "relative_beta", "units"}))
def test_a_call_that_says_how_to_learn_means_gumbel(trained: Any, name: str) -> None:
    """Scripts that were written for the paper's sampler keep it: logits start at 2, and the masks are its threshold."""
    net, batches = trained
    given = {
        "beta": 1e-3, "beta_start": 1e-5, "init": 2.0, "density": 0.5, "train_weights": {"0.bias": torch.ones(8) > 0}, "optimizer": "sgd",
        "clip_over": "all", "warmup": 2, "reg_batch": 8, "scale_regulariser": True, "stop": "settled",
    }  # fmt: skip
    options = {name: given[name], **({"beta": 1e-3} if name == "beta_start" else {})}
    fit = fit_masks(net, batches, loss, steps=1, lr=1e-6, progress=False, **options)
    named = fit_masks(net, batches, loss, steps=1, lr=1e-6, progress=False, sampler="gumbel", **options)
    assert all(torch.equal(fit.logits[n], named.logits[n]) for n in fit.logits)
    assert fit.among is None


def test_what_masks_recover_is_what_a_plain_loop_says(trained: Any) -> None:
    """Mean losses over items of unequal batches, of a copy with the weights set to zero by hand, in float64."""
    net, batches = trained
    uneven = [batches[0], (batches[1][0][:5], batches[1][1][:5])]
    half = {n: torch.rand(p.shape, generator=torch.Generator().manual_seed(1)) < 0.5 for n, p in net.named_parameters() if "bias" not in n}
    ones, zeros = ({n: torch.full_like(m, kept) for n, m in half.items()} for kept in (True, False))
    found = Recovered(net, uneven, loss, Masks(ones, net), Masks(zeros, net))

    def plain(masks: dict[str, Tensor]) -> float:
        twin = copy.deepcopy(net)
        with torch.no_grad():
            for name, mask in masks.items():
                twin.get_parameter(name).mul_(mask)
            return sum(float(loss(twin, b)) * len(b[1]) for b in uneven) / sum(len(b[1]) for b in uneven)

    expected = (plain(zeros) - plain(half)) / (plain(zeros) - plain(ones))
    assert found(Masks(half, net)) == pytest.approx(expected, rel=1e-12)
    assert found.unit == pytest.approx(plain(zeros) - plain(ones), rel=1e-12)


def test_a_relative_pull_is_the_formula(trained: Any) -> None:
    """One step of plain descent: every logit falls by lr beta (L(nothing) - L(whole)) / N times the slope."""
    net, batches = trained
    first = {n: torch.full(p.shape, 3.0, dtype=torch.float64) for n, p in net.named_parameters() if "bias" not in n}
    options: dict[str, Any] = {"sampler": "hard_concrete", "init": 3.0, "optimizer": "sgd", "lr": 0.5, "clip": None, "steps": 1}
    options |= {"samples": 2, "progress": False, "beta": 4.0, "executor": "loop"}
    flat = fit_masks(net, batches[:1], loss, relative_beta=1e-300, **options).logits
    pulled = fit_masks(net, batches[:1], loss, relative_beta=True, **options).logits
    x, y = batches[0]
    nothing = float(F.cross_entropy(net[2].bias.expand(len(y), 2), y))
    unit = (nothing - float(loss(net, (x, y)))) / sum(v.numel() for v in first.values())
    for name, start in first.items():
        fall = 0.5 * 4.0 * unit * HardConcrete().penalty_slope(start)
        torch.testing.assert_close(pulled[name], flat[name] - fall, rtol=1e-9, atol=1e-12)


def test_a_relative_pull_does_not_care_what_the_loss_counts_in(trained: Any) -> None:
    """Adam's steps and a relative beta are the same for a loss a thousand times as large, up to Adam's epsilon."""
    net, batches = trained
    one, thousand = (
        fit_masks(net, batches, lambda net, batch, by=by: by * loss(net, batch), steps=60, clip=None, progress=False)
        for by in (2**20, 2**30)
    )
    assert one.among is not None
    assert one.among == thousand.among
    for name, logit in one.logits.items():
        among = one.among[name]  # the others sink below -30 by slopes that Adam's epsilon may hold back
        torch.testing.assert_close(thousand.logits[name][among], logit[among], rtol=1e-4, atol=1e-4)
        assert bool((logit[~among] <= -30).all())


class Stateful:
    """A source that knows where it is."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.at += 1
        return self.at

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


def test_looking_at_batches_takes_none_away() -> None:
    """Whoever learns from them afterwards gets what it would have got: a list, a generator, a shuffling loader, a source with a state."""
    torch.manual_seed(0)
    data = TensorDataset(torch.arange(20))
    for make, count in (
        (lambda: list(range(20)), 3),
        (lambda: iter(range(20)), 3),
        (lambda: (i for i in range(2)), 3),
        (Stateful, 3),
        (lambda: DataLoader(data, batch_size=4, shuffle=True), 3),
    ):
        torch.manual_seed(5)
        expected = [str(b) for b, _ in zip(make(), range(9), strict=False)]
        torch.manual_seed(5)
        seen, left = looked_at(make(), count)
        assert [str(b) for b in seen] == expected[:count]
        assert [str(b) for b, _ in zip(left, range(9), strict=False)] == expected
    with pytest.raises(UserError, match="there is no batch to learn from"):
        looked_at(iter(()), 3)


def test_turnover_is_a_count() -> None:
    """Of as many weights as the mask keeps, those that were not among the largest logits before."""
    generator = torch.Generator().manual_seed(0)
    before = {"a": torch.randn(7, generator=generator), "b": torch.randn(5, generator=generator)}
    masks = {"a": torch.rand(7, generator=generator) < 0.4, "b": torch.rand(5, generator=generator) < 0.6}
    flat, now = torch.cat([*before.values()]).tolist(), torch.cat([*masks.values()]).tolist()
    largest = set(sorted(range(12), key=lambda i: -flat[i])[: sum(now)])
    assert turnover(before, masks) == pytest.approx(sum(k and i not in largest for i, k in enumerate(now)) / sum(now))
    assert str(turnover({}, masks)) == "nan"


def test_a_ranking_of_a_loss_that_compares_with_the_network() -> None:
    """The divergence from the unmasked network is measured from the trained weights, not from those that the ranking has put there."""
    torch.manual_seed(0)
    net, x = nn.Linear(4, 3), torch.randn(16, 4)
    fit = fit_masks(net, [x], modhook.objectives.kl(), sampler="integrated_gradients", steps=1, density=0.5, progress=False)
    assert float(fit.logits["weight"].abs().sum()) > 0.01


def test_shared_tensors_reach_the_first_ranking_as_they_reach_a_group(trained: Any) -> None:
    """A batch with a shared table is ranked, recovered and learned from."""
    net, batches = trained
    data = [(x, y, modhook.shared(torch.ones(4).double())) for x, y in batches]
    fit = fit_masks(net, data, lambda net, b: loss(net, (b[0] * b[2], b[1])), steps=30, progress=False)
    assert fit.among is not None


def test_a_network_that_saves_nothing_is_told() -> None:
    """Where the loss is no higher without the weights no size can be chosen by it: masks are the sampler's own, and a warning says why."""
    torch.manual_seed(0)
    net, x = nn.Linear(4, 2), torch.randn(32, 4)
    batch = (x, net(x).argmin(-1).detach())
    with pytest.warns(TrustWarning, match="it saves nothing by them; masks were learned among all weights, .* trained for"):
        fit = fit_masks(net, [batch], loss, steps=20, progress=False)
    assert fit.among is None
    assert fit.masks == fit.threshold
    with pytest.raises(UserError, match=r"within= cannot be measured by the loss here: .*give score= and valid="):
        fit_masks(net, [batch], loss, steps=20, within=0.1, sampler="hard_concrete", progress=False)


@pytest.mark.parametrize("by", [2.0**-30, 2.0**20])
def test_a_very_small_or_large_loss_is_learned_from(trained: Any, by: float) -> None:
    """With clipping and Adam's epsilon as they are, the logits are those of the loss divided by hand by what the network saves on it."""
    net, batches = trained
    without = copy.deepcopy(net)
    with torch.no_grad():
        without[0].weight.zero_()
        without[2].weight.zero_()
        gain = sum(float(loss(without, b) - loss(net, b)) for b in batches) / len(batches)
    fit = fit_masks(net, batches, lambda net, batch: by * loss(net, batch), steps=40, progress=False)
    counted = fit_masks(net, batches, lambda net, batch: loss(net, batch) / gain, steps=40, progress=False)
    assert fit.among is not None
    assert fit.among == counted.among
    for name, logit in fit.logits.items():
        torch.testing.assert_close(logit, counted.logits[name], rtol=1e-6, atol=1e-6)
    assert max(float((v[fit.among[n]] - 3).abs().max()) for n, v in fit.logits.items()) > 1


def test_a_loss_that_is_a_sum_is_pulled_by_what_its_groups_save(trained: Any) -> None:
    """The sum over a group is its mean times its items: the same logits, although of a whole batch the sum is 16 times as much."""
    net, batches = trained
    total = fit_masks(
        net, batches, lambda net, b: F.cross_entropy(net(b[0]), b[1], reduction="sum"), steps=40, samples=16, progress=False
    )
    mean = fit_masks(net, batches, lambda net, b: 2 * loss(net, b), steps=40, samples=16, progress=False)
    assert total.among == mean.among
    for name, logit in total.logits.items():
        torch.testing.assert_close(logit, mean.logits[name], rtol=1e-6, atol=1e-6)


def test_draws_of_dropout_are_the_same_for_all_masks(trained: Any) -> None:
    """In training mode, too, all weights recover everything, by the loss and by a score; whose random numbers these are is nobody's."""
    net, batches = trained
    drops = nn.Sequential(net[0], nn.Dropout(0.1), net[1], net[2]).train()
    ones = {n: torch.ones_like(p, dtype=torch.bool) for n, p in drops.named_parameters() if "bias" not in n}
    every, none = Masks(ones, drops), Masks({n: ~m for n, m in ones.items()}, drops)
    before = torch.get_rng_state()
    found = Recovered(drops, batches, loss, every, none)
    assert [found(every), found(every), found(none)] == [1, 1, 0]
    assert torch.equal(torch.get_rng_state(), before)
    options: dict[str, Any] = {"sampler": "magnitude", "within": 0.0, "steps": 1, "progress": False}
    assert fit_masks(drops, batches, loss, **options).masks.kept() > 0
    score = lambda net, b: -F.cross_entropy(net(b[0]), b[1], reduction="none")  # noqa: E731
    assert fit_masks(drops, batches, loss, score=score, valid=batches, **options).masks.kept() > 0


class Inverse(nn.Module):
    """A network that divides by the size of its weights, or raises where they are all zero."""

    def __init__(self, *, raises: bool) -> None:
        super().__init__()
        self.inner, self.raises = nn.Linear(4, 2), raises

    def forward(self, x: Tensor) -> Tensor:
        size = self.inner.weight.norm()
        if self.raises and not float(size.detach()):
            raise ZeroDivisionError("no weights")
        return self.inner(x) / size


@pytest.mark.parametrize(
    ("raises", "said"),
    [(False, "without any .* it is no finite number, so that what it saves"), (True, "raises 'ZeroDivisionError: no weights', so")],
)
def test_a_network_that_breaks_without_weights_is_told(raises: bool, said: str) -> None:
    """What it saves is not known, which is not that it saves nothing; masks are learned all the same, among all weights."""
    torch.manual_seed(0)
    net, x = Inverse(raises=raises), torch.randn(32, 4)
    batch = (x, net(x).argmax(-1).detach())
    with pytest.warns(TrustWarning, match=said):
        fit = fit_masks(net, [batch], loss, steps=3, executor="loop", progress=False)
    assert fit.among is None
    with pytest.raises(UserError, match=said):
        fit_masks(net, [batch], loss, steps=3, within=0.1, sampler="hard_concrete", progress=False)


def test_inference_mode_changes_nothing(trained: Any) -> None:
    """A ranking takes gradients there as steps do: the same bits."""
    net, batches = trained
    fit = fit_masks(net, batches, loss, steps=3, progress=False)
    with torch.inference_mode():
        same = fit_masks(net, batches, loss, steps=3, progress=False)
    assert all(torch.equal(same.logits[n], fit.logits[n]) for n in fit.logits)
    assert (same.masks, same.among) == (fit.masks, fit.among)


def test_weights_outside_of_those_that_masks_are_learned_among_are_told(trained: Any) -> None:
    """Those that it takes to lose so little were not learned about: a count of them."""
    net, batches = trained
    some = Masks({"0.weight": torch.arange(32).reshape(8, 4) % 2 == 0, "2.weight": torch.arange(16).reshape(2, 8) % 2 == 0}, net)
    with pytest.warns(TrustWarning, match="of the [0-9]+ weights that are kept are none of those that masks were learned among") as warned:
        fit = fit_masks(net, batches, loss, steps=3, among=some, progress=False)
    count = sum(int((m & ~some[n]).sum()) for n, m in fit.masks.items())
    assert count
    assert any(str(w.message).startswith(f"{count} of the {fit.masks.kept()} weights") for w in warned)


def test_the_default_goes_on_from_its_file(trained: Any, tmp_path: Path) -> None:
    """Stopped in its last tenth, it ends with the bits of an unbroken one: ranking, pull, earlier logits, cut."""
    net, batches = trained
    whole = fit_masks(net, batches, loss, steps=40, progress=False)
    file = tmp_path / "fit"
    with pytest.warns(modhook.ModhookWarning, match="after 38 of 40"):
        fit_masks(
            net, batches, loss, steps=40, progress=False, checkpoint=file,
            callback=lambda step, _: signal.raise_signal(signal.SIGINT) if step == 38 else None,
        )  # fmt: skip
    fit = fit_masks(net, batches, loss, steps=40, progress=False, checkpoint=file)
    assert all(torch.equal(fit.logits[n], whole.logits[n]) for n in whole.logits)
    assert all(torch.equal(fit.earlier[n], whole.earlier[n]) for n in whole.logits)
    assert (fit.masks, fit.among, fit.turnover()) == (whole.masks, whole.among, whole.turnover())
    fit.save(tmp_path / "saved")
    again = modhook.Fit.load(tmp_path / "saved", net)
    assert (again.among, again.turnover()) == (fit.among, fit.turnover())


def test_samples_divide_the_batch() -> None:
    """K is the largest divisor of the items up to 16, and up to fewer for many weights, by a count."""
    for items in range(1, 70):
        assert samples_for(torch.zeros(items, 1), 10) == max(k for k in range(1, USUAL.samples + 1) if items % k == 0)
    assert [samples_for(torch.zeros(64, 1), n) for n in (2**17, 2**18, 2**19, 2**30)] == [16, 8, 4, 4]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"among": "gumbel"}, "among must be masks, or a ranking without training, .* not Gumbel"),
        ({"among": "no_such"}, "unknown sampler 'no_such'"),
        ({"among": 3}, "among must be masks, or a ranking"),
        ({"relative_beta": -1.0}, "relative_beta must be a finite number greater than 0, not -1.0"),
        ({"relative_beta": "yes"}, "relative_beta must be"),
        ({"relative_beta": 0.0}, "relative_beta must be a finite number greater than 0, not 0.0"),
        ({"valid": itertools.repeat((torch.zeros(2, 4), torch.zeros(2)))}, "valid gives more than 10,000 batches, and may never end"),
        ({"among": "snip", "density": 0.1, "sampler": "hard_concrete"}, "holds a density of all weights"),
        ({"relative_beta": True, "train_weights": {"0.bias": torch.ones(8) > 0}}, "weights that learn .* have no loss to measure by"),
    ],
)
def test_what_cannot_be_is_one_sentence(trained: Any, options: dict[str, Any], said: str) -> None:
    """Before anything is learned."""
    net, batches = trained
    steps: list[int] = []
    with pytest.raises(UserError, match=said):
        fit_masks(net, batches, loss, progress=False, callback=lambda step, _: steps.append(step), **options)
    assert not steps
