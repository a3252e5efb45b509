"""Writes the files of the study `lm_example`: texts with three regularities, and prompts that ask for each of them.

    python studies/lm_example/generate.py

The texts are lines of three kinds, a third each: sentences whose verb agrees in number with the first noun and not with the nearer second
one; four letters that are said again; brackets of three kinds that are closed in the right order. No line of the texts begins
as a prompt of the tests does.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

HERE = Path(__file__).parent
LINES, TRAIN, TEST = 2_500, 192, 96
"""Lines of text, and prompts to learn masks from and to test them, of each kind."""
NOUNS = {noun: f"{noun}s" for noun in ("dog", "cat", "girl", "boy", "bird", "king", "nurse", "horse")}
VERBS = {f"{verb}s": verb for verb in ("run", "sit", "sing", "wait", "sleep", "swim")}
BETWEEN = ("near", "behind", "beside", "above")
LETTERS = list("abcdefghijkl")
PAIRS = {"(": ")", "[": "]", "{": "}"}

Item = dict[str, str]


def agreement(rng: random.Random) -> tuple[str, Item]:
    """Return a sentence, and the prompt that asks for its verb."""
    singular, other, verb = rng.choice(list(NOUNS)), rng.choice(list(NOUNS)), rng.choice(list(VERBS))
    plural, between = rng.random() < 0.5, rng.choice(BETWEEN)
    nouns = [singular, NOUNS[singular]]
    verbs = [verb, VERBS[verb]]
    rest = f"{between} the {rng.choice([other, NOUNS[other]])}"
    prompt = f"the {nouns[plural]} {rest}"
    item = {
        "prompt": prompt,
        "answer": f" {verbs[plural]}",
        "contrast": f" {verbs[not plural]}",
        "corrupted": f"the {nouns[not plural]} {rest}",
    }
    return f"{prompt} {verbs[plural]} .", item


def copying(rng: random.Random) -> tuple[str, Item]:
    """Return four letters twice, and the prompt that asks for the last two."""
    a, b, c, d = rng.sample(LETTERS, 4)
    item = {
        "prompt": f"{a} {b} {c} {d} ; {a} {b}",
        "answer": f" {c} {d}",
        "contrast": f" {d} {c}",
        "corrupted": f"{a} {b} {d} {c} ; {a} {b}",
    }
    return f"{a} {b} {c} {d} ; {a} {b} {c} {d} .", item


def brackets(rng: random.Random) -> tuple[str, Item]:
    """Return a balanced word of eight brackets, and a prompt that asks for one that closes."""
    while True:
        word, closing = _word(rng)
        # Where a bracket closes right behind its own, what was read last would do.
        places = [i for i in range(1, 8) if word[i] in PAIRS.values() and word[i - 1] not in PAIRS]
        if places:
            break
    at = rng.choice(places)
    other = rng.choice([kind for kind in PAIRS if PAIRS[kind] != word[at]])
    opened = closing.index(at)
    item = {
        "prompt": " ".join(word[:at]),
        "answer": f" {word[at]}",
        "contrast": f" {PAIRS[other]}",
        "corrupted": " ".join([*word[:opened], other, *word[opened + 1 : at]]),
    }
    return " ".join([*word, "."]), item


def _word(rng: random.Random) -> tuple[list[str], list[int]]:
    """Return eight brackets, and where each opening one is closed (-1 for one that closes)."""
    word: list[str] = []
    closing = [-1] * 8
    waiting: list[int] = []
    for place in range(8):
        left = 8 - place
        if waiting and (len(waiting) == left or rng.random() < 0.5):
            start = waiting.pop()
            closing[start] = place
            word.append(PAIRS[word[start]])
        else:
            waiting.append(place)
            word.append(rng.choice(list(PAIRS)))
    return word, closing


FUNCTIONS = {"agreement": agreement, "copying": copying, "brackets": brackets}


def files() -> dict[str, str]:
    """Return {name of the file: its text}."""
    rng = random.Random(2026)
    items, texts = [], []
    for name, make in FUNCTIONS.items():
        prompts: dict[str, Item] = {}
        while len(prompts) < TRAIN + TEST:
            _, item = make(rng)
            prompts.setdefault(item["prompt"], item)
        chosen = list(prompts.values())
        held_out = tuple(f"{item['prompt']} " for item in chosen[TRAIN:])
        items += [{"function": name, "split": "train" if i < TRAIN else "test", **item} for i, item in enumerate(chosen)]
        lines: list[str] = []
        while len(lines) < LINES:
            line, _ = make(rng)
            if not line.startswith(held_out):
                lines.append(line)
        texts += lines
    rng.shuffle(texts)
    return {
        "behaviours.jsonl": "".join(f"{json.dumps(item)}\n" for item in items),
        "text.txt": "".join(f"{line}\n" for line in texts),
    }


if __name__ == "__main__":
    for file, text in files().items():
        (HERE / file).write_text(text, encoding="utf-8")
