"""SCAN's grammar against an interpreter written the other way round: from the command's text to its meaning."""

from __future__ import annotations

import pytest

from modhook_tasks.scan.grammar import ACTIONS, WORDS, examples

BY_HAND = {
    "jump": "J",
    "walk left": "L W",
    "turn right": "R",
    "look twice": "K K",
    "run thrice": "U U U",
    "turn opposite left": "L L",
    "walk opposite right": "R R W",
    "turn around left": "L L L L",
    "jump around right": "R J R J R J R J",
    "walk and jump": "W J",
    "walk after jump": "J W",
    "jump twice and look opposite left": "J J L L K",
    "turn left thrice after run around right": "R U R U R U R U L L L",
    "look right twice after turn opposite right thrice": "R R R R R R R K R K",
}
LETTERS = {"W": "I_WALK", "K": "I_LOOK", "U": "I_RUN", "J": "I_JUMP", "L": "I_TURN_LEFT", "R": "I_TURN_RIGHT"}


def interpret(command: str) -> list[str]:
    """Return a command's actions by reading its words from the left."""
    if " and " in command:
        first, second = command.split(" and ")
        return interpret(first) + interpret(second)
    if " after " in command:
        first, second = command.split(" after ")
        return interpret(second) + interpret(first)
    words = command.split()
    times = {"twice": 2, "thrice": 3}.get(words[-1], 1)
    if times > 1:
        words.pop()
    act = [] if words[0] == "turn" else ["I_" + words[0].upper()]
    if len(words) == 1:
        return act * times
    turn = ["I_TURN_" + words[-1].upper()]
    if words[1] == "opposite":
        return (turn + turn + act) * times
    if words[1] == "around":
        return (turn + act) * 4 * times
    return (turn + act) * times


@pytest.mark.parametrize(("command", "letters"), BY_HAND.items())
def test_meanings_written_by_hand(command: str, letters: str) -> None:
    """Commands whose meaning a person wrote down keep that meaning."""
    meaning = {example.command: example.actions for example in examples()}
    assert tuple(LETTERS[letter] for letter in letters.split()) == meaning[command]


def test_every_meaning_agrees_with_the_interpreter() -> None:
    """All 20,910 meanings follow from the commands' text by an independent reading."""
    wrong = [e for e in examples() if tuple(interpret(e.command)) != e.actions]
    assert wrong == []


def test_every_command_is_there_once_and_in_order() -> None:
    """The grammar has 20,910 commands; the order is what the packed split counts on."""
    commands = [e.command for e in examples()]
    assert 20_910 == len(commands) == len(set(commands))
    assert sorted(commands) == commands


def test_vocabulary_and_longest() -> None:
    """No token is missing or unused, and the longest command and meaning are those of the paper."""
    assert set(WORDS) == {word for e in examples() for word in e.command.split()}
    assert set(ACTIONS) == {action for e in examples() for action in e.actions}
    assert max(len(e.command.split()) for e in examples()) == 9
    assert max(len(e.actions) for e in examples()) == 48
