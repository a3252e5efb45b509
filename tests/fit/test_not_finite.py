"""Numbers that are not finite, networks and batches that nothing can be learned with: one sentence that says what it is, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

import modhook
from modhook import ModhookError, RunError, TrustWarning, UserError, fit_masks
from modhook.errors import PatternError
from modhook.fit.trust import told_later

X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
BATCH = (X, (X[:, 0] > 0).long())


def loss(net: Any, batch: Any) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(net(batch[0]), batch[1])


def fit(net: nn.Module, batch: Any = BATCH, **options: Any) -> modhook.Fit:
    """Learn masks of which the first samples drop nearly everything."""
    usual: dict[str, Any] = {"loss": loss, "sampler": "gumbel", "init": -6.0, "steps": 10, "samples": 2, "progress": False}
    with told_later():
        return fit_masks(net, [batch], **{**usual, **options})


class Divides(nn.Module):
    """Divides by its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x) / self.f.weight.abs().sum()  # type: ignore[no-any-return]


class Attends(nn.Module):
    """Holds a mask of attention as a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(3, 2)
        self.causal = nn.Parameter(torch.full((2, 2), -torch.inf).triu(1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.f((self.causal.softmax(-1) @ x.view(-1, 2, 3))[:, 0])  # type: ignore[no-any-return]


class Complex(nn.Module):
    """Has a complex weight."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.h = nn.Parameter(torch.randn(6, 4, dtype=torch.cfloat)), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.h((x.to(torch.cfloat) @ self.w).abs())  # type: ignore[no-any-return]


def old_weight_norm() -> nn.Module:
    """A layer under the hook of torch.nn.utils."""
    with pytest.warns(FutureWarning):
        return nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(6, 2)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Sequential(weight_norm(nn.Linear(6, 2))), "remove_parametrizations on '0'"),
        (old_weight_norm, "remove_weight_norm on '0'"),
        (Divides, "divides by 0, or the like; leave the weights that it divides by out"),
    ],
)
def test_a_loss_that_only_masks_make_nan(make: Callable[[], nn.Module], words: str) -> None:
    """The network's own loss is told beside it, and what of its weights to change; never the learning rate of masks."""
    net = make()
    with pytest.raises(RunError, match="nan at step 1; without masks the loss is ") as failed:
        fit(net)
    assert words in str(failed.value)
    assert f"without masks the loss is {float(loss(net, BATCH).detach()):.3g}: " in str(failed.value)
    assert "learning rate" not in str(failed.value)


def test_a_loss_that_is_nan_without_masks() -> None:
    """Then the masks are not why."""
    with pytest.raises(RunError, match="without masks the loss is nan as well: look at the data"):
        fit(nn.Linear(6, 2), (X * torch.nan, BATCH[1]), init=6.0)


@pytest.mark.parametrize("more", [{}, {"units": "neuron"}, {"units": ["neuron", "weight"]}])
def test_a_group_that_has_no_label(more: dict[str, Any]) -> None:
    """A mean over the labels of a group is NaN where it has none, by whichever route: the batch in one piece is told beside it."""
    net, labels = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), torch.zeros(len(X), dtype=torch.long)
    labels[: len(X) // 4] = -100

    def mean(net: Any, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(net(batch[0]), batch[1])

    whole = float(mean(net, (X, labels)).detach())
    with pytest.raises(RunError, match="model_loss") as failed:
        fit_masks(net, [(X, labels)], mean, samples=4, steps=2, progress=False, **more)
    assert f"without masks the loss of the batch is {whole:.3g}, and nan where it is cut into 4 groups" in str(failed.value)


def test_weights_that_are_not_finite() -> None:
    """A constant that was registered as a parameter is named before the first step; left out, it does no harm."""
    with pytest.raises(UserError, match=r"causal holds a number that is not finite.*exclude="):
        fit(Attends())
    assert fit(Attends(), exclude=["*bias*", "causal"], init=2.0).masks.keys() == {"f.weight"}


def test_a_score_that_is_nan_under_some_masks() -> None:
    """Such masks are not enough, and the fit is kept; of the network itself it is an error, and a curve says under which size."""

    def spread(net: Any, batch: Any) -> Tensor:
        out = net(batch[0])[:, 1] - net(batch[0])[:, 0]
        return ((out / out.std() > 0) == (batch[1] > 0)).float() + 0 * out / out.std()  # nothing kept: 0/0

    net = nn.Linear(6, 2, bias=False)
    found = fit(net, score=spread, valid=[BATCH], within=0.5, init=2.0)
    assert 0 < found.masks.kept() <= 12
    with pytest.raises(UserError, match="the score is nan under masks that keep 0 of 12 weights"):
        found.curve([BATCH], spread)
    with pytest.raises(UserError, match="the score is nan, which cannot be compared"):
        found.smallest([BATCH], lambda m, b: spread(m, b) * torch.nan)


def test_complex_weights_are_told_of() -> None:
    """They stay whole, which a warning says; a pattern that chooses one is refused with its type."""
    with pytest.warns(TrustWarning, match="w is complex and cannot be masked"):
        found = fit_masks(Complex(), [BATCH], loss, sampler="magnitude", density=0.5, progress=False)
    assert found.masks.keys() == {"h.weight"}
    with pytest.raises(PatternError, match="'w' matches 'w', which is complex64: only real weights"):
        fit(Complex(), include=["w", "h.weight"])


def test_parametrized_weights_are_told_of() -> None:
    """The default patterns mask what a parametrization computes weights from, and say so."""
    net = nn.Sequential(weight_norm(nn.Linear(6, 2)), nn.Linear(2, 2))
    found = fit(net, init=9.0, steps=2)
    assert any("what parametrizations compute weights from (0.parametrizations.weight.original0, " in text for text in found.cautions)


def made_in_inference_mode() -> nn.Module:
    """A network that nothing can be learned through."""
    with torch.inference_mode():
        return nn.Linear(6, 2)


PACKED = nn.utils.rnn.pack_padded_sequence(torch.randn(4, 5, 6), torch.tensor([5, 4, 3, 1]), batch_first=True)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: fit(made_in_inference_mode()), "'weight' was made under torch.inference_mode()"),
        (lambda: fit(nn.Linear(6, 2, device="meta")), "'weight' is on the meta device and has no values"),
        (lambda: fit(nn.Linear(6, 2), (X.to_sparse(), BATCH[1])), "holds a sparse_coo tensor"),
        (lambda: fit(nn.Linear(6, 2), (PACKED, BATCH[1][:4])), "a PackedSequence cannot be cut"),
        (lambda: fit_masks(nn.Linear(6, 2), BATCH, loss), "batches must be an iterable of batches, not one batch; give [batch]"),
        (lambda: fit_masks(nn.Linear(6, 2), X, loss), "batches must be an iterable of batches, not one batch; give [batch]"),
        (lambda: modhook.evaluate(nn.Linear(6, 2), None, BATCH, loss), "not one batch; give [batch]"),
        (lambda: fit(nn.Linear(6, 2)).masks.materialize(torch.compile(nn.Linear(6, 2), backend="eager")), "on the module itself"),
    ],
)
def test_what_nothing_can_be_learned_with(act: Callable[[], Any], words: str) -> None:
    """Refused in one sentence that names it."""
    with pytest.raises(ModhookError) as refused:
        act()
    assert words in str(refused.value)
