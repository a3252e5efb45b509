"""Batches as transformers and datasets make them, through `fit_masks`, `ask` and the networks' own loss; heads of their attentions."""

from __future__ import annotations

import collections
import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers as tr
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from torch.utils.data import DataLoader

import modhook
from modhook import objectives
from modhook.errors import UserError
from modhook.fit.groups import cut
from modhook.objectives.own import _shifts
from modhook.stacked import prepare

pytestmark = pytest.mark.filterwarnings("ignore")
K = 4
TEXTS = ["a b c", "d e f g h a", "b", "e", "a a a b", "c d", "f g h a b", "h g f e"]  # two groups are short, one predicts nothing
SIZES = {"vocab_size": 12, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 12, "pad_token_id": 0}


def tokenizer(side: str = "right") -> Any:
    """Words are letters."""
    words = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[MASK]", *"abcdefgh"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    reads = ["input_ids", "attention_mask"]
    return tr.PreTrainedTokenizerFast(tokenizer_object=inner, padding_side=side, model_input_names=reads, **names)


def gpt2() -> nn.Module:
    """A causal language model in float64."""
    torch.manual_seed(0)
    config = tr.GPT2Config(vocab_size=12, n_embd=16, n_layer=2, n_head=4, n_positions=16, bos_token_id=0, eos_token_id=0)
    return tr.GPT2LMHeadModel(config).double().eval()


def encoded(side: str = "right") -> Any:
    """The texts with their labels, as a BatchEncoding."""
    found = tokenizer(side)(TEXTS, padding=True, return_tensors="pt")
    found["labels"] = found["input_ids"].masked_fill(found["attention_mask"] == 0, -100)
    return found


def loaded() -> DataLoader:
    """A loader whose collator pads to the longest of four items, in a pass of two batches."""
    made = tokenizer()
    items = [dict(made(text)) for text in TEXTS]
    return DataLoader(items, batch_size=4, collate_fn=tr.DataCollatorForLanguageModeling(made, mlm=False))


def generated() -> Iterator[Any]:
    """The loader's batches without end."""
    while True:
        yield from loaded()


def summed(net: nn.Module, batch: Any, part: slice) -> tuple[Tensor, int]:
    """The sum of -log p over the labels of some items, text by text without any padding, and their number."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for ids, mask in zip(batch["input_ids"][part], batch["attention_mask"][part], strict=True):
        own = ids[mask.bool()][None]
        chances = net(input_ids=own).logits[0].log_softmax(-1)
        for t in range(1, own.shape[1]):
            total, count = total - chances[t - 1, own[0, t]], count + 1
    return total, count


@pytest.mark.parametrize("kind", ["encoding", "dict", "user dict", "left"])
def test_padded_groups_against_unpadded_texts(kind: str) -> None:
    """K weight sets on K padded groups have the losses and gradients of plain copies that read each text alone, without padding."""
    net, batch = gpt2(), encoded("left" if kind == "left" else "right")
    if kind == "left":  # places count from where a text begins, and nothing predicts its first token but padding
        batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        batch["labels"][batch["attention_mask"].cumsum(1) == 1] = -100
    batch = {"dict": dict, "user dict": collections.UserDict}.get(kind, lambda x: x)(batch)
    objective = objectives.model_loss()
    groups = cut(objective.whole(net, batch, K), K)
    torch.manual_seed(1)
    names = [n for n, _ in net.named_parameters() if "weight" in n]
    own = dict(net.named_parameters())
    factors = {n: 1 + 0.3 * torch.randn(K, *own[n].shape, dtype=torch.float64) for n in names}
    sets = {n: (own[n].detach() * factor).requires_grad_() for n, factor in factors.items()}
    losses = prepare(net, objective, None, tuple(names), K)(sets, groups)
    losses.sum().backward()
    total = sum(summed(net, batch, slice(0, 8))[1:])
    for k in range(K):
        twin = copy.deepcopy(net)
        places = dict(twin.named_parameters())
        with torch.no_grad():
            for name in names:
                places[name].copy_(sets[name][k])
        right = summed(twin, batch, slice(2 * k, 2 * k + 2))[0] * K / total
        assert losses[k].item() == pytest.approx(right.item(), rel=1e-6, abs=1e-9)  # transformers compute losses in float32
        if right.requires_grad:
            right.backward()
        for name in names:
            wanted = torch.zeros_like(places[name]) if places[name].grad is None else places[name].grad
            torch.testing.assert_close(sets[name].grad[k], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [lambda: [encoded()], loaded, generated, lambda: [dict(encoded("left"))]])
def test_fits_take_batches_as_they_come(make: Any) -> None:
    """With every weight kept, the loss of each step is the network's own on the whole batch, as `Trainer` counts it."""
    net, batches = gpt2(), make()
    fit = modhook.fit_masks(net, batches, objectives.model_loss(), samples=4, steps=4, init=60.0, beta=0.0, progress=False)
    passes = [batch for _ in range(4) for batch in (loaded() if make is generated else make())]
    seen = [float(net(**batch).loss) for batch in passes[:4]]
    assert fit.history["loss"].values.tolist() == pytest.approx(seen, rel=1e-6)


def test_datasets() -> None:
    """A data set of `datasets` is refused where single items would be taken for batches; its loaders and batches are as good as lists."""
    datasets = pytest.importorskip("datasets")
    made = tokenizer()
    columns = dict(made(TEXTS, padding=True))
    columns["labels"] = [[i or -100 for i in ids] for ids in columns["input_ids"]]
    data = datasets.Dataset.from_dict(columns).with_format("torch")
    net, options = gpt2(), {"samples": 4, "steps": 2, "init": 60.0, "beta": 0.0, "progress": False}
    for one in (data, data.to_iterable_dataset()):
        with pytest.raises(UserError, match="are a data set of single items"):
            modhook.fit_masks(net, one, objectives.model_loss(), **options)
    plain = float(net(**encoded()).loss)
    for batches in (DataLoader(data, batch_size=8), data.iter(batch_size=8)):
        fit = modhook.fit_masks(net, batches, objectives.model_loss(), **options)
        assert fit.history["loss"].values[0] == pytest.approx(plain, rel=1e-6)


def right_tokens(net: Any, batch: Any) -> Tensor:
    """The share of each text's next tokens that are right; 0 for one of a single token."""
    labels = batch["labels"][:, 1:]
    found = net(**{k: v for k, v in batch.items() if k != "labels"}).logits.argmax(-1)[:, :-1]
    return ((found == labels) & (labels >= 0)).double().sum(1) / (labels >= 0).sum(1).clamp(min=1)


@pytest.mark.parametrize("kind", ["items", "whole"])
def test_ask_takes_them(kind: str) -> None:
    """Equal lengths are taken apart into items, loaders that pad stay whole; scores are those of a plain loop over the batches."""
    net = gpt2()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(20)
    batches = [encoded(), encoded()] if kind == "items" else loaded()
    asked = {"loss": objectives.model_loss(), "score": right_tokens, "seeds": 1, "steps": 3, "include": nn.Module, "analyses": ()}
    answer = modhook.ask(net, {"next": batches}, tests={"next": batches}, threads=1, progress=False, **asked)
    wanted = torch.cat([right_tokens(net, batch) for batch in batches]).mean()
    assert 0 < float(wanted) < 1
    assert answer.scores.sel(stage="unmasked").item() == pytest.approx(float(wanted), abs=1e-12)
    assert answer.failed == ()


MODELS = {
    "GPT2LMHeadModel": tr.GPT2Config(vocab_size=12, n_embd=16, n_layer=1, n_head=4, n_positions=16),
    "LlamaForCausalLM": tr.LlamaConfig(**SIZES, num_key_value_heads=2),
    "OPTForCausalLM": tr.OPTConfig(
        vocab_size=12, hidden_size=16, num_hidden_layers=1, num_attention_heads=4, ffn_dim=8, word_embed_proj_dim=16
    ),
    "GPTNeoXForCausalLM": tr.GPTNeoXConfig(**SIZES),
    "BertLMHeadModel": tr.BertConfig(**SIZES, is_decoder=True),
    "BertForMaskedLM": tr.BertConfig(**SIZES),
    "BertForTokenClassification": tr.BertConfig(**SIZES, num_labels=12),
    "DistilBertForMaskedLM": tr.DistilBertConfig(vocab_size=12, dim=16, n_layers=1, n_heads=4, hidden_dim=8),
    "T5ForConditionalGeneration": tr.T5Config(
        vocab_size=12, d_model=16, d_kv=4, d_ff=8, num_layers=1, num_heads=4, decoder_start_token_id=0
    ),
    "BartForConditionalGeneration": tr.BartConfig(
        vocab_size=12, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=8, decoder_ffn_dim=8,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_which_networks_shift_their_labels(name: str) -> None:
    """Where only the first label is one, a network that shifts has no loss, and any other has: `model_loss` knows which."""
    torch.manual_seed(0)
    net = getattr(tr, name)(MODELS[name]).eval()
    ids = torch.tensor([[3, 4, 5, 6]])
    loss = net(input_ids=ids, labels=torch.tensor([[4, -100, -100, -100]])).loss
    assert _shifts(net) == bool(loss.isnan())


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "GPT2LMHeadModel", "BertForMaskedLM", "OPTForCausalLM", "DistilBertForMaskedLM"])
def test_heads_are_what_the_output_layer_takes(name: str) -> None:
    """Zeroing the weights of one head, as counted, changes what that head gives and nothing that other heads give."""
    torch.manual_seed(0)
    net = getattr(tr, name)(MODELS[name]).double().eval()
    every = {n: torch.ones(p.shape, dtype=torch.bool) for n, p in net.named_parameters()}
    table = modhook.Masks(every, net).heads()
    module = table["module"][0]
    outputs = [n for n, mask in every.items() if n.startswith(f"{module}.") and mask.dim() == 2]
    assert sorted(table[table["module"] == module]["head"]) == [0, 1, 2, 3]
    given: list[Tensor] = []
    last = net.get_submodule(outputs[-1].removesuffix(".weight"))
    last.register_forward_pre_hook(lambda _, args: given.append(args[0].detach().reshape(-1, 16)))
    ids = torch.tensor([[3, 4, 5, 6, 7]])
    net(input_ids=ids)
    for name_ in outputs[:-1]:
        parameter = net.get_parameter(name_)
        for axis in (0, 1):
            for head in range(4):
                mask = torch.ones_like(parameter, dtype=torch.bool)
                width = parameter.shape[axis] // 4
                mask.narrow(axis, head * width, width).fill_(False)
                masks = modhook.Masks({**every, name_: mask}, net)
                counts = masks.heads()[:4]
                touched = set(counts["head"][counts["kept"] < counts["total"]])
                with masks.applied_to(net):
                    net(input_ids=ids)
                moved = (given[-1] - given[0]).abs().view(-1, 4, 4).amax((0, 2)) > 1e-12
                changed = {h for h in range(4) if moved[h]}
                assert changed <= touched
                if len(touched) < 4:
                    assert changed == touched, (name_, axis, head)
