"""What `fit_masks` warns of: each rule at its bound, and each where a real fit breaks it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modhook import ModhookWarning, TrustWarning, fit_masks
from modhook.fit.trust import Course, findings, leaving_out, of_the_uncut, special

SOUND = Course(
    steps=100, weights=1000, kept=100, nearest=2.0, travelled=5.0, changed=900, late=10, loss=1.0, mask_loss=2.0, unmasked_loss=2.5
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({}, None),
        ({"changed": 0, "travelled": 1.9}, "reach"),
        ({"changed": 0, "travelled": 2.0}, None),
        ({"changed": 1, "travelled": 1.9}, None),
        ({"changed": 0, "travelled": math.nan}, None),
        ({"changed": 0, "travelled": 1.9, "own": False}, None),
        ({"kept": 0}, "extreme"),
        ({"kept": 1000}, "extreme"),
        ({"kept": 999}, None),
        ({"kept": 1000, "own": False}, None),
        ({"kept": 1000, "own": False, "within": 0.1}, "cut"),
        ({"kept": 0, "own": False, "within": 0.1}, "cut"),
        ({"kept": 999, "own": False, "within": 0.1}, None),
        ({"own": False, "within": 0.1, "outside": 1}, "outside"),
        ({"mask_loss": 2.01}, "threshold"),
        ({"loss": 0.01, "mask_loss": 0.1, "unmasked_loss": 0.1}, None),
        ({"loss": 0.01, "mask_loss": 0.12, "unmasked_loss": 0.1}, "threshold"),
        ({"loss": -3.0, "mask_loss": -2.0, "unmasked_loss": -3.0}, None),
        ({"mask_loss": 2.01, "own": False}, None),
        ({"late": 11}, "moving"),
        ({"kept": 90, "late": 9}, None),
        ({"kept": 90, "late": 9.5}, "moving"),
        ({"kept": 0, "late": 1}, "extreme"),
        ({"unmasked_loss": 2.6}, "beats"),
        ({"mask_loss": 0.05, "unmasked_loss": 0.14}, None),
        ({"mask_loss": math.nan, "unmasked_loss": math.nan}, None),
        ({"special": {"norm gains": ["a"]}}, "patterns"),
        ({"flat": 0.0}, "flat"),
        ({"flat": 0.0, "kept": 0}, "flat"),
        ({"samples": 4, "share": 0.81}, None),
        ({"samples": 4, "share": 0.79}, "groups"),
        ({"samples": 4, "share": 1.3}, "groups"),
        ({"samples": 4, "share": 0.25}, None),
        ({"samples": 4, "share": 0.3}, None),
        ({"samples": 4, "share": 0.19}, "groups"),
        ({"samples": 4, "share": -1.0}, "groups"),
        ({"samples": 1, "share": 0.5}, None),
    ],
)
def test_every_rule_at_its_bound(change: dict[str, Any], rule: str | None) -> None:
    """One number on either side of a bound; what is not known breaks nothing; each finding is one sentence."""
    found = findings(attrs.evolve(SOUND, **change))
    assert list(found) == ([] if rule is None else [rule])
    assert all(sentence.endswith(".") and ". " not in sentence for sentence in found.values())


def test_sentences_say_which_mask_and_why() -> None:
    """What the sampler's own mask does is not said of a cut of it; a loss that no learned weight changes is not put down to samples."""
    better = attrs.evolve(SOUND, unmasked_loss=2.6)
    assert findings(better)["beats"].startswith("the mask does better")
    cut = findings(attrs.evolve(better, own=False))["beats"]
    assert cut.startswith("the mask at the sampler's own threshold, and not this cut of it, does better")
    assert "give a smaller samples=" in findings(attrs.evolve(SOUND, flat=1.0))["flat"]
    needless = findings(attrs.evolve(SOUND, flat=1.0, unsaved="it saves nothing"))["flat"]
    assert "so that nothing was learned from it; no weight that is learned may change it: look whether what the function needs" in needless


def test_patterns_that_leave_unusual_weights_out() -> None:
    """A number in a name may be any, if no ordinary weight is left out with it; the list can be pasted as it stands."""
    norms = [f"h.{i}.{norm}.weight" for i in range(12) for norm in ("ln_1", "ln_2")]
    ordinary = [f"h.{i}.mlp.weight" for i in range(12)]
    assert leaving_out(["emb.weight", *norms], ["emb.weight", *norms, *ordinary]) == ["emb.weight", "h.*.ln_1.weight", "h.*.ln_2.weight"]
    assert leaving_out(["1.weight", "3.weight"], ["0.weight", "1.weight", "2.weight", "3.weight"]) == ["1.weight", "3.weight"]
    assert leaving_out(["h.0.ln.weight"], ["h.0.ln.weight", *ordinary]) == ["h.0.ln.weight"]
    told = findings(attrs.evolve(SOUND, special={"norm gains": norms}, leaving=["h.*.ln_1.weight", "h.*.ln_2.weight"]))["patterns"]
    assert told.endswith("to leave them out, give exclude=['*bias*', 'h.*.ln_1.weight', 'h.*.ln_2.weight'].")


def test_losses_of_a_mask_that_is_cut_later() -> None:
    """A study cuts its masks after the fit: the sentence on the sampler's own mask says so, and others stay."""
    line = f"beats: {findings(attrs.evolve(SOUND, unmasked_loss=2.6))['beats']}"
    assert of_the_uncut(line) == f"beats: {findings(attrs.evolve(SOUND, unmasked_loss=2.6, own=False))['beats']}"
    assert of_the_uncut(of_the_uncut(line)) == of_the_uncut(line)
    assert of_the_uncut("moving: the mask was") == "moving: the mask was"


def test_a_small_mask_that_moves_says_how_small_it_is() -> None:
    """Where few of all logits move, and many beside the mask's size, the sentence has that size; where 1 % of all move, it has not."""
    small = attrs.evolve(SOUND, kept=50, late=9)
    assert "9 of 1000 logits changed side, beside 50 weights that it keeps; learn" in findings(small)["moving"]
    assert "11 of 1000 logits changed side; learn" in findings(attrs.evolve(small, late=11))["moving"]


class First(nn.Module):
    """The first of what it is given."""

    def forward(self, x: tuple[Tensor, Any]) -> Tensor:
        """Outputs and state -> outputs."""
        return x[0]


@pytest.mark.filterwarnings("ignore:.*:modhook.TrustWarning")
def test_a_network_in_training_mode() -> None:
    """Dropout that draws and batch statistics are named; in eval mode, without them, or where weights learn, nothing is said."""

    def said_of(net: nn.Module, **more: Any) -> str:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
        fit = fit_masks(net, [x], lambda m, b: m(b).square().mean(), samples=2, steps=2, progress=False, **more)
        return " ".join(fit.cautions)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1), nn.BatchNorm1d(4), nn.Dropout(0.0))
    told = said_of(net)
    assert "is in training mode: masks were learned, and are measured, under dropout (1) and statistics of each batch (2)" in told
    assert "training mode" not in said_of(net, train_weights={"0.weight": torch.ones(4, 4, dtype=torch.bool)})
    assert "under dropout (0)" in said_of(nn.Sequential(nn.LSTM(4, 4, 2, dropout=0.5), First()))
    assert "training mode" not in said_of(net.eval())
    assert "training mode" not in said_of(nn.Linear(4, 4).train())


def test_a_compiled_network() -> None:
    """It is said before the first step that masks belong to the module itself."""
    net = torch.compile(nn.Linear(4, 4), backend="eager")
    with pytest.warns(ModhookWarning, match=r"is compiled .*learn masks on the module itself, model\._orig_mod"):
        fit_masks(net, [torch.ones(8, 4)], lambda m, b: m(b).square().mean(), sampler="magnitude", density=0.5, progress=False)


def test_what_the_default_patterns_mask() -> None:
    """Embeddings, gains of norms of any class, and weights with two names, by their first; not ordinary weights."""

    class OwnNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(4))

    net = nn.ModuleDict(
        {
            "emb": nn.Embedding(5, 4),
            "tied": nn.Embedding(5, 4),
            "conv": nn.Conv1d(4, 4, 1),
            "bn": nn.BatchNorm1d(4),
            "own": OwnNorm(),
            "head": nn.Linear(4, 5, bias=False),
        }
    )
    net["head"].weight = net["tied"].weight
    names = [n for n, _ in net.named_parameters() if "bias" not in n]
    assert special(net, names) == {
        "embeddings": ["emb.weight"],
        "tied weights": ["tied.weight"],
        "norm gains": ["bn.weight", "own.gain"],
    }
    assert special(net, ["conv.weight"]) == {}


def loss(net: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Squared error."""
    return F.mse_loss(net(batch[0]), batch[1])


def data() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A linear network and what it computes."""
    torch.manual_seed(0)
    net = nn.Linear(6, 3)
    x = torch.randn(8, 6)
    return net, (x, net(x).detach())


def said(**options: Any) -> str:
    """All that a fit warns of, which `fit.cautions` keeps, too."""
    net, batch = data()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = fit_masks(net, [batch], **{"loss": loss, "sampler": "gumbel", "samples": 2, "progress": False, **options})
    assert all(w.category is TrustWarning and w.filename == __file__ for w in caught)
    assert fit.cautions == tuple(str(w.message) for w in caught)
    return "\n".join(fit.cautions)


def test_real_fits_that_break_a_rule() -> None:
    """Too few steps, a pull too strong, logits on the move, a network that never learned."""
    few = said(steps=50)
    assert (
        "no logit could cross 0: each started at least 2 away from it, and the learning rates of all steps (50) add up to 0.5"
        in few
    )
    assert "everything is kept" in few
    assert "nothing is kept" in said(steps=80, lr=0.2, beta=50.0)
    assert "the mask was still changing: in the last tenth of the 20 steps 18 of 18" in said(
        steps=20, lr=0.05, init=0.951, beta=100.0, clip=None, optimizer="adam"
    )
    beaten = said(steps=200, lr=0.1, beta=1.0, loss=lambda m, b: m(b[0]).square().mean())
    assert "the mask does better than the whole network" in beaten


def test_a_threshold_at_which_the_function_is_gone() -> None:
    """Logits just below 0: each sample keeps half of the weights, and the deterministic mask none: 200 squared, not their variance."""
    net = nn.Linear(400, 1, bias=False)
    nn.init.ones_(net.weight)
    batch = torch.ones(8, 400)
    with pytest.warns(TrustWarning, match=r"deterministic mask's loss is 4e\+04, where its samples reach \d{2,3}:"):
        fit_masks(
            net,
            [batch],
            lambda m, b: (m(b) - 200).square().mean(),
            samples=2,
            steps=1,
            init=-1e-3,
            lr=1e-6,
            progress=False,
        )


def test_nothing_to_say_of_a_sound_fit_or_of_a_size_that_was_asked_for() -> None:
    """A mask that has found its weights gives no warning; all weights, where all were asked for, neither."""
    net, (x, _) = data()
    target = (x @ (net.weight * torch.tensor([1.0, 1, 0, 0, 0, 0])).T + net.bias).detach()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = fit_masks(net, [(x, target)], loss, samples=2, steps=600, lr=0.05, beta=0.02, seed=1, progress=False)
        fit_masks(net, [(x, target)], loss, samples=2, steps=5, density=1.0, progress=False)
    assert fit.cautions == ()
    assert 0 < fit.masks.kept() < 18


def test_the_default_patterns_are_named_only_where_they_were_used() -> None:
    """A layer norm's gain is named with how to leave it out; patterns that the user gave are the user's."""
    net = nn.Sequential(nn.Linear(6, 3), nn.LayerNorm(3))
    batch = (torch.randn(8, 6), torch.randn(8, 3))
    options: dict[str, Any] = {"samples": 2, "steps": 1, "progress": False}
    with pytest.warns(TrustWarning, match=r"norm gains \(1\.weight\).*exclude=\['\*bias\*', '1\.weight'\]"):
        fit_masks(net, [batch], loss, **options)
    for given in ({"include": "*weight"}, {"exclude": ["*bias"]}):
        fit = fit_masks(net, [batch], loss, **options, **given)
        assert not any("norm gains" in sentence for sentence in fit.cautions)


def pairs(net: Any, batch: Tensor) -> Tensor:
    """InfoNCE of items and themselves with noise: each item against all others of the batch, and with one item always 0."""
    one, other = net(batch), net(batch + 0.1)
    return nn.functional.cross_entropy(one @ other.T, torch.arange(len(batch)))


def test_a_loss_over_pairs_in_groups_too_small_for_it() -> None:
    """In groups of one item nothing is learned, which a sentence says; in larger ones another says how far they are from the batch."""
    torch.manual_seed(0)
    net, batches = nn.Linear(4, 3, bias=False), list(torch.randn(64, 4).split(16))
    options: dict[str, Any] = {"steps": 12, "progress": False}
    with pytest.warns(TrustWarning, match="the loss was 0 in all 12 steps, so that nothing was learned from it; a group may be too small"):
        fit_masks(net, batches, pairs, samples=16, **options)
    with pytest.warns(TrustWarning, match="cut into 8 groups, .* times as much of its loss by these weights as it does whole"):
        fit_masks(net, batches, pairs, samples=8, relative_beta=True, **options)


@pytest.mark.parametrize("reduced", [Tensor.mean, Tensor.sum])
def test_means_and_sums_over_items_are_the_same_of_groups(reduced: Callable[[Tensor], Tensor]) -> None:
    """A loss that is a mean or a sum over independent items says nothing of groups."""
    torch.manual_seed(0)
    net, x = nn.Linear(4, 3, bias=False), torch.randn(64, 4)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fit_masks(
            net,
            list(x.split(16)),
            lambda n, b: reduced((n(b) - b[:, :3]).square()),
            samples=4,
            steps=12,
            relative_beta=True,
            progress=False,
        )
    assert not any("cut into" in str(w.message) for w in told)
