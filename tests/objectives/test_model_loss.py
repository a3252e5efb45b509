"""`model_loss` over groups that are padded unlike: the mean over the labels of the whole batch, against plain torch in float64."""

from __future__ import annotations

import collections
import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook import objectives
from modhook.asking.task import AskedLoss
from modhook.errors import UserError
from modhook.fit.groups import cut
from modhook.stacked import prepare

K, B, T, C = 3, 2, 6, 5
G = torch.Generator().manual_seed(4)
TOKENS = torch.randint(0, C, (K * B + 1, T), generator=G)
LENGTHS = torch.tensor([6, 2, 1, 1, 4, 3, 6])  # the second group predicts nothing where labels are shifted; one item too many
LABELS = TOKENS.roll(1, 1).masked_fill(torch.arange(T) >= LENGTHS[:, None], -100)


class Net(nn.Module):
    """Embeds tokens and predicts; `shift` as causal language models do it."""

    def __init__(self, shift: bool) -> None:
        super().__init__()
        self.tokens, self.out = nn.Embedding(C, 4), nn.Linear(4, C)
        self.shift = shift
        if shift:  # as transformers say it
            self.loss_function = SimpleNamespace(__name__="ForCausalLMLoss")
            self.config = SimpleNamespace(is_encoder_decoder=False)

    def forward(self, ids: Tensor, labels: Tensor | None = None, mask: Tensor | None = None) -> Any:
        """Return logits (B, T, C) and the loss of labels (B, T)."""
        logits = self.out(self.tokens(ids).cumsum(1).tanh())
        if labels is None:
            return {"logits": logits}
        if self.shift:
            labels = F.pad(labels, (0, 1), value=-100)[:, 1:]
        return {"loss": F.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


def made(shift: bool) -> Net:
    """The network in float64."""
    torch.manual_seed(2)
    return Net(shift).double().eval()


@pytest.mark.parametrize("route", ["vmap", "loop"])
@pytest.mark.parametrize("shift", [False, True])
def test_groups_weigh_as_their_labels(shift: bool, route: str) -> None:
    """Losses and gradients of K weight sets are K times each group's sum over the labels of all groups; nothing is NaN."""
    net, objective = made(shift), objectives.model_loss()
    flat = collections.UserDict(ids=TOKENS, labels=LABELS, mask=LABELS >= 0)
    groups = cut(objective.whole(net, flat, K), K)
    sets = {n: p.detach() + 0.1 * torch.randn(K, *p.shape, generator=G, dtype=p.dtype) for n, p in net.named_parameters()}
    found = {n: t.clone().requires_grad_() for n, t in sets.items()}
    losses = prepare(net, objective, None, tuple(sets), K, route)(found, groups)
    losses.sum().backward()
    total = (LABELS[: K * B, 1:] if shift else LABELS[: K * B]).ge(0).sum()
    for k in range(K):
        twin = copy.deepcopy(net)
        twin.load_state_dict({n: t[k] for n, t in sets.items()})
        chance = twin(TOKENS[k * B : k * B + B])["logits"].log_softmax(-1)
        right = torch.zeros((), dtype=torch.float64)
        for i in range(B):
            for t in range(T):
                label = int(LABELS[k * B + i, t])
                if label >= 0 and not (shift and t == 0):
                    right = right - chance[i, t - shift, label]
        right = right * K / total
        assert losses[k].item() == pytest.approx(right.item(), abs=1e-12)
        if right.requires_grad:
            right.backward()
        for name, parameter in twin.named_parameters():
            wanted = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(found[name].grad[k], wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shift", [False, True])
def test_a_fit_learns_the_batches_own_loss(shift: bool) -> None:
    """With every weight kept the K losses have the mean of the plain network's on the whole batch, whatever K is; after valid=, too."""
    net = made(shift)
    batch = {"ids": TOKENS[:6], "labels": LABELS[:6]}
    plain = net(**batch)["loss"].item()
    for samples in (1, 2, 3, 6):
        fit = modhook.fit_masks(
            net, [batch], objectives.model_loss(), valid=[batch], samples=samples, steps=20, init=60.0, beta=0.0, progress=False
        )
        assert fit.history["loss"].values[0] == pytest.approx(plain, rel=1e-6)
        assert fit.history["unmasked_loss"].values[-1] == pytest.approx(plain, rel=1e-6)
    unlike = (F.cross_entropy(net(TOKENS[i : i + 2])["logits"].flatten(0, 1), LABELS[i : i + 2].flatten()) for i in (0, 2, 4))
    assert shift or abs(sum(one.item() for one in unlike) / 3 - plain) > 0.01  # the mean of the groups' means is another


def test_other_labels_and_settings() -> None:
    """Numbers as labels, no labels, and other rules for what counts; in pairs and for `ask`, groups know of the whole, too."""
    loss = objectives.model_loss()
    for labels in (torch.rand(6), None, torch.tensor(3)):
        batch = {"ids": TOKENS[:6], "labels": labels}
        assert loss.whole(made(False), batch, 3) is batch
    named = "modhook_share_of_labels"
    net, batch = made(True), {"ids": TOKENS[:6], "labels": LABELS[:6]}
    shifted = LABELS[:6, 1:].ge(0).sum(1).view(3, 2).sum(1)
    plain = LABELS[:6].ge(0).sum(1).view(3, 2).sum(1)
    for found, counts in ((loss, shifted), (objectives.model_loss(shift=False), plain)):
        share = found.whole(net, batch, 3)[named]
        assert share.view(3, 2)[:, 1].tolist() == pytest.approx((3 * counts / counts.sum()).tolist())
    classes = {"ids": TOKENS[:6], "labels": torch.tensor([1, 0, -1, 2, 3, 1])}
    assert objectives.model_loss(ignore_index=-1).whole(net, classes, 3)[named].tolist() == pytest.approx([1.2, 1.2, 0.6, 0.6, 1.2, 1.2])
    pair = objectives.keep_and_lose(loss, 1.0, complement=(0.0, 0.0)).whole(net, {"keep": batch, "lose": batch}, 3)
    asked = AskedLoss({"f": loss, "g": lambda net, b: 0}).whole(net, {"function": "f", "batch": batch}, 3)
    for one in (pair["keep"], pair["lose"], asked["batch"]):
        assert torch.equal(one[named], loss.whole(net, batch, 3)[named])
    other = {"function": "g", "batch": batch}
    assert AskedLoss({"f": loss, "g": lambda net, b: 0}).whole(net, other, 3) is other


def test_items_and_arrays_are_no_batches() -> None:
    """A data set of single items, and numbers in lists or arrays, are told what to give; items would be taken for batches of places."""
    net = made(False)
    for data in (torch.utils.data.TensorDataset(TOKENS), type("Dataset", (), {"__module__": "datasets.arrow_dataset"})()):
        with pytest.raises(UserError, match=r"batches must be an iterable of batches, but are a data set of single items; give torch"):
            modhook.fit_masks(net, data, objectives.model_loss(), steps=1, progress=False)
    for values in (TOKENS.tolist(), np.zeros((4, 3))):
        with pytest.raises(UserError, match=r"holds none but arrays or lists \(ask a tokenizer for return_tensors='pt'"):
            modhook.fit_masks(net, [{"ids": values}], objectives.model_loss(), steps=1, progress=False)
