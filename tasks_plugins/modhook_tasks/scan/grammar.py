"""SCAN's grammar: all 20,910 commands with their actions, generated exactly.

Source: Lake & Baroni, "Generalization without Systematicity" (ICML 2018), figure 6 (phrase structure) and figure 7
(meaning). No torch here: a command is a string of words, its meaning a tuple of action names.
"""

from __future__ import annotations

from functools import cache

import attrs

_VERB_WORDS = ("walk", "look", "run", "jump", "turn")
WORDS = (*_VERB_WORDS, "left", "right", "opposite", "around", "twice", "thrice", "and", "after")
ACTIONS = ("I_WALK", "I_LOOK", "I_RUN", "I_JUMP", "I_TURN_LEFT", "I_TURN_RIGHT")

_PRIMITIVES = {"walk": ("I_WALK",), "look": ("I_LOOK",), "run": ("I_RUN",), "jump": ("I_JUMP",)}
_VERBS: dict[str, tuple[str, ...]] = {**_PRIMITIVES, "turn": ()}
_TURNS = {"left": ("I_TURN_LEFT",), "right": ("I_TURN_RIGHT",)}
_REPEATS = {"twice": 2, "thrice": 3}


@attrs.frozen
class Example:
    """One command, such as `"jump twice"`, and its actions, such as `("I_JUMP", "I_JUMP")`."""

    command: str
    actions: tuple[str, ...]


def _verb_phrases() -> list[Example]:
    """V -> U | X D | X opposite D | X around D: 34 phrases."""
    phrases = [Example(word, actions) for word, actions in _PRIMITIVES.items()]
    for verb, act in _VERBS.items():
        for direction, turn in _TURNS.items():
            phrases.append(Example(f"{verb} {direction}", turn + act))
            phrases.append(Example(f"{verb} opposite {direction}", turn + turn + act))
            phrases.append(Example(f"{verb} around {direction}", (turn + act) * 4))
    return phrases


def _sentences() -> list[Example]:
    """S -> V | V twice | V thrice: 102 phrases."""
    phrases = _verb_phrases()
    repeated = [Example(f"{p.command} {word}", p.actions * n) for p in phrases for word, n in _REPEATS.items()]
    return phrases + repeated


@cache
def examples() -> tuple[Example, ...]:
    """Return every command of C -> S | S and S | S after S with its meaning, sorted by command: 20,910 examples."""
    sentences = _sentences()
    found = list(sentences)
    for x in sentences:
        for y in sentences:
            found.append(Example(f"{x.command} and {y.command}", x.actions + y.actions))
            found.append(Example(f"{x.command} after {y.command}", y.actions + x.actions))
    return tuple(sorted(found, key=lambda example: example.command))
