"""The task `behaviours`: positions, losses and scores against a plain loop, one text at a time, without padding, in float64."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import modhook
from modhook import Masks, UserError
from modhook_tasks.behaviours import task as module
from modhook_tasks.behaviours.task import Behaviours, BehavioursOptions
from modhook_tasks.behaviours.tokens import Pretrained

sys.path.insert(0, str(Path(__file__).parent))
from behaviours_toys import PIECES, Toy, made

AGREE = [
    {"prompt": "the cat near the dogs", "answer": " runs", "contrast": " run", "corrupted": "the cats near the dogs"},
    {"prompt": "the dogs", "answer": " sit", "contrast": " sits", "corrupted": "the dog"},
    {"prompt": "the cats near the dog", "answer": " sit", "contrast": " sits", "corrupted": "the cat near the dog"},
    {"prompt": "the dog near the cat near the dogs", "answer": " running", "contrast": " run", "corrupted": "the dogs"},
]
COPY = [
    {"prompt": "a b c ; a", "answer": " b c", "contrast": " c b d"},
    {"prompt": "d c ; d", "answer": " c"},
    {"prompt": "b a d c ; b a", "answer": " d c", "contrast": " c"},
]
"""One item has no contrast; the others' have other lengths than their answers."""
Make = Callable[..., Behaviours]


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return a task of these rows with the toy tokenizer; rows of all functions are for learning and for testing, too."""

    def make(functions: dict[str, list[dict[str, str]]], frame: str = "before", **options: Any) -> Behaviours:
        named = [(name, row) for name, found in functions.items() for row in found]
        rows = [{**row, "function": name, "split": split} for name, row in named for split in ("test", "train")]
        for number, row in enumerate(rows):  # lines that say the same are refused
            row["prompt"] = row["prompt"] if row["split"] == "test" else f"{row['prompt']}{'!' * (number % 3 + 1)}"
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        monkeypatch.setattr(module, "tokens_of", lambda name, texts: Pretrained(Toy(frame)))
        made = Behaviours(BehavioursOptions(file=str(tmp_path / "rows.jsonl"), tokenizer="toy", **options))
        made.load()
        return made

    return make


# -- the reference: texts and numbers by hand


def ids(text: str) -> list[int]:
    """Return the tokens of a text, the first mark before them."""
    return [1, *Toy("")(text)["input_ids"]]


def asked(net: nn.Module, row: dict[str, str], what: str, prompt: str = "prompt") -> list[tuple[Tensor, int]]:
    """Return (logits (V,), token) for every token of an answer, from one text without padding."""
    before, whole = ids(row[prompt]), ids(row[prompt] + row[what])
    assert whole[: len(before)] == before
    logits = net(torch.tensor([whole])).logits[0]
    return [(logits[i - 1], whole[i]) for i in range(len(before), len(whole))]


def log_p(found: list[tuple[Tensor, int]]) -> float:
    """Return the sum of the tokens' log-probabilities."""
    return sum(float(logits.log_softmax(0)[token]) for logits, token in found)


def difference(net: nn.Module, row: dict[str, str], prompt: str = "prompt") -> float:
    """Return log p(answer) - log p(contrast), or the least lead over any other token."""
    right = asked(net, row, "answer", prompt)
    if "contrast" in row:
        return log_p(right) - log_p(asked(net, row, "contrast", prompt))
    return min(float(logits[t] - torch.cat([logits[:t], logits[t + 1 :]]).max()) for logits, t in right)


def kl(whole: nn.Module, net: nn.Module, row: dict[str, str]) -> float:
    """Return the mean over the answer's tokens of KL(whole || net)."""
    pairs = zip(asked(whole, row, "answer"), asked(net, row, "answer"), strict=True)
    each = [float((p.softmax(0) * (p.log_softmax(0) - q.log_softmax(0))).sum()) for (p, _), (q, _) in pairs]
    return sum(each) / len(each)


def half(net: nn.Module) -> Masks:
    """Return masks of about two thirds of all weights."""
    generator = torch.Generator().manual_seed(4)
    return Masks({n: torch.rand(p.shape, generator=generator) < 0.67 for n, p in net.named_parameters()}, net)


def batches(task: Behaviours, split: str, size: int) -> list[dict[str, Tensor]]:
    """Return the items of a split in order, prepared."""
    data = task.test_set(split)
    count = len(data["function"])
    parts = [{n: t[i : i + size] for n, t in data.items()} for i in range(0, count, size)]
    return [task.prepare(part, np.random.default_rng(0), False) for part in parts]


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("frame", ["before", "both"])
@torch.no_grad()
def test_scores_are_those_of_a_plain_loop(task: Make, padding: str, frame: str) -> None:
    """Answers and contrasts of several tokens, with and without contrast and corrupted prompts, padded on either side."""
    functions = {"agree": AGREE, "copy": COPY}
    made_task, net = task(functions, frame, padding=padding), made()
    masks = half(net)
    masked = masks.materialize(net)
    for name, rows in functions.items():
        for one, mask in ((net, None), (masked, masks)):
            own = [difference(one, row) for row in rows]
            floor = [difference(net, row, "corrupted") if "corrupted" in row else 0.0 for row in rows]
            whole = [difference(net, row) for row in rows]
            expected = {
                "accuracy": np.mean([d > 0 for d in own]),
                "logit_difference": np.mean(own),
                "kl": np.mean([kl(net, one, row) for row in rows]),
                "faithfulness": (np.mean(own) - np.mean(floor)) / (np.mean(whole) - np.mean(floor)),
            }
            for size in (len(rows), 2):
                scores = modhook.evaluate(net, mask, batches(made_task, name, size), made_task.score)
                assert scores == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert modhook.evaluate(net, None, batches(made_task, "copy", 3), made_task.score)["faithfulness"] == pytest.approx(1)


@pytest.mark.parametrize("objective", ["cross_entropy", "logit_difference", "kl"])
def test_losses_and_their_gradients(task: Make, objective: str) -> None:
    """Each objective is the plain loop's, in value and in the gradient of every weight, whatever the padding beside an item."""
    rows = AGREE if objective == "logit_difference" else COPY
    made_task, net = task({"one": rows}, objective=objective), made()
    masks = half(net)
    (batch,) = batches(made_task, "one", len(rows))
    with masks.applied_to(net):
        loss = made_task.loss(net, batch)
        found = torch.autograd.grad(loss, list(net.parameters()))
    whole, masked = made(), masks.materialize(made())
    if objective == "cross_entropy":
        each = [-logits.log_softmax(0)[token] for row in rows for logits, token in asked(masked, row, "answer")]
    elif objective == "kl":
        each = []
        for row in rows:
            for (p, _), (q, _) in zip(asked(whole, row, "answer"), asked(masked, row, "answer"), strict=True):
                each.append((p.detach().softmax(0) * (p.detach().log_softmax(0) - q.log_softmax(0))).sum())
    else:
        each = []
        for row in rows:
            parts = [sum(logits.log_softmax(0)[token] for logits, token in asked(masked, row, what)) for what in ("answer", "contrast")]
            each.append(parts[1] - parts[0])
    expected = torch.stack(each).mean()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
    for one, other in zip(found, torch.autograd.grad(expected, list(masked.parameters())), strict=True):
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-10)


@torch.no_grad()
def test_answers_in_the_place_of_a_mask(task: Make) -> None:
    """An encoder is asked at the mask, which is there once for every token of the answer."""
    rows = [
        {"prompt": "the<mask> near the dogs", "answer": " cat", "contrast": " cats"},
        {"prompt": "the dogs near the<mask> run", "answer": " cat near the dog"},
    ]
    made_task, net = task({"fill": rows}, "both", kind="mask"), made(causal=False)
    expected = []
    for row in rows:
        logs = []
        for what in ("answer", "contrast"):
            if what not in row:
                continue
            tokens = Toy("")(row[what])["input_ids"]
            left, right = (Toy("")(part)["input_ids"] for part in row["prompt"].split("<mask>"))
            text = [1, *left, *[4] * len(tokens), *right, 2]
            logits = net(torch.tensor([text])).logits[0][1 + len(left) : 1 + len(left) + len(tokens)]
            logs.append((logits, tokens))
        if len(logs) == 2:
            right, other = (float(found.log_softmax(-1)[range(len(t)), t].sum()) for found, t in logs)
            expected.append(right - other)
        else:
            logits, tokens = logs[0]
            own = logits[range(len(tokens)), tokens].clone()
            logits[range(len(tokens)), tokens] = -torch.inf
            expected.append(float((own - logits.max(-1).values).min()))
    (batch,) = batches(made_task, "fill", 2)
    assert made_task.score(net, batch)["logit_difference"].tolist() == pytest.approx(expected, rel=1e-9)


@torch.no_grad()
def test_answers_that_are_labels(task: Make) -> None:
    """A classifier is asked for the class of the whole text; labels have the numbers of their order."""
    rows = [{"prompt": "the cats run", "answer": "many", "contrast": "one"}, {"prompt": "the dog near the cats runs", "answer": "one"}]
    made_task, net = task({"count": rows}, "both", kind="label", labels=("one", "some", "many")), made(causal=False, classes=3)
    logits = [net(torch.tensor([[*ids(row["prompt"]), 2]])).logits[0] for row in rows]
    (batch,) = batches(made_task, "count", 2)
    found = made_task.score(net, batch)["logit_difference"].tolist()
    assert found == pytest.approx([float(logits[0][2] - logits[0][0]), float(logits[1][0] - logits[1][1:].max())], rel=1e-9)
    assert made_task.decode(batch)[0].endswith(" -> many")


def test_masks_are_learned_by_every_route(task: Make) -> None:
    """The losses run stacked; a loop gives the same masks, and the unmasked network's own divergence is 0."""
    made_task, net = task({"agree": AGREE, "copy": COPY}, objective="kl"), made()
    twice = {n: torch.cat([t, t]) for n, t in made_task.train_set("agree").items()}
    data = made_task.prepare(twice, np.random.default_rng(0), True)
    assert not any(name.startswith("corrupted") for name in data)
    options: dict[str, Any] = {"samples": 2, "steps": 20, "lr": 0.5, "progress": False}
    fits = [modhook.fit_masks(net, [data], made_task.loss, executor=executor, **options) for executor in ("vmap", "loop")]
    assert [fit.route["route"] for fit in fits] == ["vmap", "loop"]
    assert torch.allclose(*(torch.as_tensor(fit.history["loss"].values) for fit in fits))
    assert float(fits[0].history["unmasked_loss"].dropna("step")[-1]) == pytest.approx(0, abs=1e-12)
    assert float(fits[0].history["loss"][0]) > 1e-4


def test_nonsense_answers(task: Make) -> None:
    """Every token of a function's answers is another one, in what is read, too; prompts stay, and training and tests change alike."""
    made_task = task({"agree": AGREE, "copy": COPY})
    names: dict[int, int] = {}
    for data in (made_task.train_set("copy"), made_task.test_set("copy")):
        changed = made_task.nonsense(data, "copy", 5)
        old, new = (d["target"][d["target"] >= 0].tolist() for d in (data, changed))
        for one, other in zip(old, new, strict=True):
            assert names.setdefault(one, other) == other
            assert one != other
        for item in range(len(data["ids"])):
            for which in range(2):
                where, target = data["where"][item, which].tolist(), changed["target"][item, which]
                count = int((target >= 0).sum())
                read = data["ids"][item, which].clone()
                for j in range(count - 1):
                    read[where[j] + 1] = target[j]
                assert changed["ids"][item, which].tolist() == read.tolist()
    assert set(names) == set(names.values())


class Bare(nn.Module):
    """A network without a head, or with one for fewer tokens."""

    def __init__(self, size: int, dims: int = 3) -> None:
        super().__init__()
        self.embed, self.dims = nn.Embedding(40, size), dims

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return what it has, (B, T, size) or (B, size)."""
        found = self.embed(input_ids)
        return found if self.dims == 3 else found.mean(1)


def test_a_network_without_a_head(task: Make) -> None:
    """What gives no logits of these answers is refused in a sentence that names the file and what was found."""
    made_task = task({"agree": AGREE})
    (batch,) = batches(made_task, "agree", 4)
    with pytest.raises(UserError, match=r"rows.jsonl: the network Bare has no head for these answers: it tells 5 classes apart"):
        made_task.loss(Bare(5), batch)
    with pytest.raises(UserError, match=r"logits of shape \(\d, 40\), and not logits \(items, positions, tokens\)"):
        made_task.score(Bare(40, dims=2), batch)
    labelled = task({"count": [{"prompt": "the cats run", "answer": "many"}]}, kind="label", labels=("one", "some", "many"))
    (batch,) = batches(labelled, "count", 1)
    with pytest.raises(UserError, match="no head for these answers: it tells 2 classes apart, and there are 3 labels"):
        labelled.score(Bare(2, dims=2), batch)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"prompt": "the cat", "answer": "s"}, "the answer 's' is no continuation of the prompt's tokens in this tokenizer; begin it with"),
        ({"prompt": "the ", "answer": "cat"}, "the answer 'cat' is no continuation of the prompt's tokens in this tokenizer; leave the"),
        ({"prompt": "the cats", "answer": " fly"}, "the answer ' fly' holds what this tokenizer does not know"),
        ({"prompt": "the cat", "answer": " run", "contrast": "s"}, "as a contrast, the answer 's' is no continuation"),
        ({"prompt": "the cats", "answer": "s", "corrupted": "the cat"}, "after the corrupted prompt: the answer 's' is no continuation"),
        ({"prompt": "", "answer": " run"}, "'prompt' is empty"),
    ],
)
def test_answers_that_are_none(task: Make, row: dict[str, str], sentence: str) -> None:
    """An answer that this tokenizer does not read as a continuation is refused with file and line."""
    with pytest.raises(UserError, match=r"rows.jsonl, line \d+: .*") as caught:
        task({"agree": [*AGREE, row]} if "corrupted" in row else {"copy": [*COPY, row]})
    assert sentence in str(caught.value)


def test_pieces_meet_as_the_reference_believes() -> None:
    """The toy tokenizer merges over boundaries: the tests above are about something."""
    assert [PIECES[t] for t in Toy("")("the cats")["input_ids"]] == ["the", " cats"]
    assert [PIECES[t] for t in Toy("both")("the running")["input_ids"]] == ["<s>", "the", " run", "ning", "</s>"]
