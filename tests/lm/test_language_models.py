"""The task `behaviours` with networks and tokenizers of transformers, made here and saved: nothing is downloaded."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn

import modhook
from modhook import Masks, UserError
from modhook.cli import main
from modhook_tasks.behaviours.network import LanguageModel, LanguageModelOptions
from modhook_tasks.behaviours.task import Behaviours, BehavioursOptions

os.environ["HF_HUB_OFFLINE"] = "1"
pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")

ROWS = [
    {"prompt": "the keys to the old cabinet", "answer": " are", "contrast": " is", "corrupted": "the key to the old cabinet"},
    {"prompt": "the key", "answer": " is lost", "contrast": " are lost again", "corrupted": "the keys"},
    {"prompt": "the old keys", "answer": " are rusty and lost", "corrupted": "the old key"},
]
TEXTS = [f"{row['prompt']}{row[what]}" for row in ROWS for what in ("answer", "contrast") if what in row] * 3
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40},
    "llama": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
    "gpt_neox": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2},
}
BERT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def byte_pairs(begin: bool) -> Any:
    """Return a byte-level tokenizer as GPT-2's, or as Llama's, which puts a token before every text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(TEXTS, trainer)
    if begin:
        made.post_processor = processors.TemplateProcessing(single="<|end|> $A", special_tokens=[("<|end|>", 0)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>", bos_token="<|end|>", unk_token="<|end|>")


def word_pieces() -> Any:
    """Return a tokenizer as BERT's."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=45, special_tokens=special))
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names)


def saved(folder: Path, kind: str, tokenizer: Any, auto: str, **sizes: Any) -> Any:
    """Save a network and its tokenizer in a folder, and return the network in float64."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, vocab_size=len(tokenizer), **sizes)
    net = getattr(transformers, auto).from_config(config).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(4 if parameter.dim() > 1 else 1)  # differences of some size
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return net


def rows_in(folder: Path, rows: Sequence[dict[str, str]]) -> str:
    """Write rows that are for learning and for testing, and return the file's name."""
    lines = [{**row, "split": "test", "function": "asked"} for row in rows]
    lines += [{**row, "split": "train", "function": "asked", "prompt": f"the {row['prompt']}"} for row in rows]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return str(folder / "rows.jsonl")


def asked(net: nn.Module, tokenizer: Any, prompt: str, answer: str) -> list[tuple[torch.Tensor, int]]:
    """Return (logits, token) of every token of an answer, from one text without padding."""
    before, whole = tokenizer(prompt)["input_ids"], tokenizer(prompt + answer)["input_ids"]
    assert whole[: len(before)] == before
    logits = net(input_ids=torch.tensor([whole])).logits[0]
    return [(logits[i - 1], whole[i]) for i in range(len(before), len(whole))]


def difference(net: nn.Module, tokenizer: Any, row: dict[str, str], prompt: str = "prompt") -> float:
    """Return log p(answer) - log p(contrast), or the least lead over any other token."""
    right = asked(net, tokenizer, row[prompt], row["answer"])
    if "contrast" not in row:
        return min(float(x[t] - torch.cat([x[:t], x[t + 1 :]]).max()) for x, t in right)
    other = asked(net, tokenizer, row[prompt], row["contrast"])
    return sum(float(x.log_softmax(0)[t]) for x, t in right) - sum(float(x.log_softmax(0)[t]) for x, t in other)


def built(task: Behaviours, **options: Any) -> Any:
    """Return the network of a task."""
    return LanguageModel(LanguageModelOptions(**options)).build(task.shape())


@pytest.mark.parametrize(("kind", "begin"), [("gpt2", False), ("llama", True), ("gpt_neox", True)])
@pytest.mark.parametrize("padding", ["right", "left"])
@torch.no_grad()
def test_causal_networks(tmp_path: Path, kind: str, begin: bool, padding: str) -> None:
    """Saved, loaded by the folder's name and scored under masks: the plain loop's numbers, in float64, padded on either side."""
    tokenizer = byte_pairs(begin)
    net = saved(tmp_path / "net", kind, tokenizer, "AutoModelForCausalLM", **SIZES[kind])
    task = Behaviours(BehavioursOptions(rows_in(tmp_path, ROWS), tokenizer=str(tmp_path / "net"), padding=padding))
    task.load()
    loaded = built(task, pretrained=str(tmp_path / "net"), dtype="float64")
    generator = torch.Generator().manual_seed(1)
    masks = Masks({n: torch.rand(p.shape, generator=generator) < 0.7 for n, p in loaded.named_parameters() if p.dim() == 2}, loaded)
    masked = masks.materialize(loaded)
    data = task.test_set("asked")
    found = modhook.evaluate(loaded, masks, [task.prepare(data, np.random.default_rng(0), False)], task.score)
    own, whole, floor = [], [], []
    kls = []
    for row in ROWS:
        own.append(difference(masked, tokenizer, row))
        whole.append(difference(net, tokenizer, row))
        floor.append(difference(net, tokenizer, row, "corrupted"))
        pairs = zip(*(asked(one, tokenizer, row["prompt"], row["answer"]) for one in (net, masked)), strict=True)
        kls.append(np.mean([float((p.softmax(0) * (p.log_softmax(0) - q.log_softmax(0))).sum()) for (p, _), (q, _) in pairs]))
    expected = {
        "accuracy": np.mean([d > 0 for d in own]),
        "logit_difference": np.mean(own),
        "kl": np.mean(kls),
        "faithfulness": (np.mean(own) - np.mean(floor)) / (np.mean(whole) - np.mean(floor)),
    }
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-9)
    assert task.decode(task.prepare(data, np.random.default_rng(0), False))[0].endswith("the keys to the old cabinet ->  are")


@torch.no_grad()
def test_encoders_and_classifiers(tmp_path: Path) -> None:
    """A masked language model is asked at its mask, a classifier for the label that its configuration names."""
    tokenizer = word_pieces()
    net = saved(tmp_path / "net", "bert", tokenizer, "AutoModelForMaskedLM", **BERT)
    rows = [{"prompt": "the keys [MASK] lost", "answer": "are", "contrast": "is"}, {"prompt": "the old key is [MASK]", "answer": "rusty"}]
    task = Behaviours(BehavioursOptions(rows_in(tmp_path, rows), tokenizer=str(tmp_path / "net"), kind="mask"))
    task.load()
    batch = task.prepare(task.test_set("asked"), np.random.default_rng(0), False)
    found = task.score(built(task, pretrained=str(tmp_path / "net"), dtype="float64"), batch)["logit_difference"].tolist()
    expected = []
    for row in rows:
        sums = []
        for what in ("answer", "contrast"):
            if what in row:
                tokens = tokenizer(row[what], add_special_tokens=False)["input_ids"]
                text = row["prompt"].replace("[MASK]", " ".join(["[MASK]"] * len(tokens)))
                ids = tokenizer(text)["input_ids"]
                at = [i for i, token in enumerate(ids) if token == tokenizer.mask_token_id]
                logits = net(input_ids=torch.tensor([ids])).logits[0][at]
                sums.append((logits, tokens))
        if len(sums) == 2:
            expected.append(np.subtract(*(float(x.log_softmax(-1)[range(len(t)), t].sum()) for x, t in sums)))
        else:
            logits, tokens = sums[0]
            expected.append(min(float(x[t] - torch.cat([x[:t], x[t + 1 :]]).max()) for x, t in zip(logits, tokens, strict=True)))
    assert found == pytest.approx(expected, rel=1e-8)

    folder = tmp_path / "labels"
    names = {"id2label": {0: "one", 1: "many"}, "label2id": {"one": 0, "many": 1}}
    net = saved(folder, "bert", tokenizer, "AutoModelForSequenceClassification", **BERT, **names)
    rows = [{"prompt": "the keys are lost", "answer": "many"}, {"prompt": "the old key", "answer": "one", "contrast": "many"}]
    task = Behaviours(BehavioursOptions(rows_in(tmp_path, rows), tokenizer=str(folder), kind="label"))
    task.load()
    batch = task.prepare(task.test_set("asked"), np.random.default_rng(0), False)
    found = task.score(built(task, pretrained=str(folder), dtype="float64"), batch)["logit_difference"].tolist()
    logits = [net(input_ids=torch.tensor([tokenizer(row["prompt"])["input_ids"]])).logits[0] for row in rows]
    assert found == pytest.approx([float(logits[0][1] - logits[0][0]), float(logits[1][0] - logits[1][1])], rel=1e-8)


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    """A hub name without a connection, a folder without the head, unknown configurations and texts that are too long: a sentence each."""
    tokenizer = byte_pairs(False)
    saved(tmp_path / "bare", "llama", tokenizer, "AutoModel", **SIZES["llama"])
    (tmp_path / "empty").mkdir()
    task = Behaviours(BehavioursOptions(rows_in(tmp_path, ROWS), tokenizer="words"))
    task.load()
    for options, sentence in (
        ({"pretrained": "some-nobody/some-network"}, "the Hugging Face hub gave no network 'some-nobody/some-network' .*save_pretrained"),
        ({"pretrained": str(tmp_path / "empty")}, "holds no network that transformers can load"),
        ({"pretrained": str(tmp_path / "bare")}, "has no head for these answers: .* finds no weights there for lm_head.weight"),
        ({"config": {"model_type": "lama"}}, r"transformers knows no model_type 'lama' \(did you mean 'llama'\?\)"),
        ({"config": {"model_type": "llama", "hiden_size": 8}}, r"has no 'hiden_size' \(did you mean 'hidden_size'\?\)"),
        ({"config": {"model_type": "llama", "hidden_size": 10, "num_attention_heads": 3}}, "transformers makes no 'llama'"),
        ({"config": {"model_type": "gpt2", **SIZES["gpt2"], "n_positions": 4}}, "reads 4 tokens at most, but the longest line"),
    ):
        with pytest.raises(UserError, match=sentence) as caught:
            built(task, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="the Hugging Face hub gave no tokenizer 'some-nobody/some-network'"):
        Behaviours(BehavioursOptions(rows_in(tmp_path, ROWS), tokenizer="some-nobody/some-network")).load()


STUDY = """
[study]
name = "loaded"
protocol = "given"
[task]
name = "behaviours"
file = "rows.jsonl"
tokenizer = "net"
objective = "kl"
[model]
name = "language_model"
pretrained = "net"
dtype = "bfloat16"
[masks]
steps = 4
samples = 2
batch = 4
lr = 0.8
exclude = ["*wte*", "*wpe*", "*ln_*", "*bias*"]
"""


def run(*arguments: str | Path) -> Any:
    """Run the command line here, and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def test_a_study_of_a_saved_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A pretrained network in bfloat16, named relative to the study file; an answer that merges with its prompt is refused."""
    saved(tmp_path / "there" / "net", "gpt2", byte_pairs(False), "AutoModelForCausalLM", **SIZES["gpt2"])
    name = rows_in(tmp_path / "there", ROWS)
    (tmp_path / "there" / "loaded.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    assert run("run", "there/loaded.toml", "--out", "out") == 0
    with modhook.open_cube("out/loaded.zarr") as cube:
        scores = cube["scores"].to_dataset().sel(seed=1, split="asked").load()
    assert float(scores["kl"].sel(stage="unmasked")) == 0
    assert float(scores["kl"].sel(stage="asked")) > 0
    with open(name, "a") as file:
        file.write("\n" + json.dumps({"prompt": "the key", "answer": "s", "function": "asked", "split": "test", "corrupted": "a"}))
    capfd.readouterr()
    assert run("run", "there/loaded.toml", "--out", "other") == 2
    assert "rows.jsonl, line 7: the answer 's' is no continuation of the prompt's tokens" in capfd.readouterr().err
    assert not list(Path("other").glob("*.zarr"))


def test_the_example_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smoke of lm_example runs from another folder to its controls."""
    study = Path(__file__).parents[2] / "studies" / "lm_example.toml"
    monkeypatch.chdir(tmp_path)
    assert run("run", study, "--variant", "smoke", "--out", "out") == 0
    with modhook.open_cube("out/lm_example-smoke.zarr") as cube:
        assert list(cube["scores"]["split"].values) == ["agreement", "copying", "brackets"]
        assert bool(cube["controls/scores/accuracy"].notnull().all())
