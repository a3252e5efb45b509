"""Texts as tokens: a tokenizer of `transformers`, or the words between spaces; and answers as what continues a prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from modhook_tasks.behaviours.hub import found_in, transformers

WORDS = "words"
MASK = "[MASK]"
_PAD, _UNKNOWN = "[PAD]", "[UNK]"


@attrs.frozen
class Framed:
    """A text's tokens, and those that the tokenizer puts around every text."""

    before: tuple[int, ...]
    tokens: tuple[int, ...]
    after: tuple[int, ...]


class Tokens(ABC):
    """What is needed of a tokenizer."""

    size: int
    """Number of tokens."""
    pad: int
    unknown: int | None
    """The token of what the tokenizer does not know."""
    mask: int | None
    mask_text: str | None

    @abstractmethod
    def ids(self, text: str) -> tuple[int, ...]:
        """Return a text's own tokens."""

    @abstractmethod
    def framed(self, text: str) -> Framed:
        """Return a text's tokens with those around it, such as one that begins every text."""

    @abstractmethod
    def text(self, tokens: Sequence[int]) -> str:
        """Return tokens as text, for people."""


class Words(Tokens):
    """Every word between spaces is a token; the vocabulary is that of the given texts, sorted."""

    def __init__(self, texts: Iterable[str]) -> None:
        words = sorted({word for text in texts for word in text.split()} - {_PAD, _UNKNOWN, MASK})
        self.words = [_PAD, _UNKNOWN, MASK, *words]
        self._numbers = {word: number for number, word in enumerate(self.words)}
        self.size, self.pad, self.unknown, self.mask, self.mask_text = len(self.words), 0, 1, 2, MASK

    def ids(self, text: str) -> tuple[int, ...]:
        """Return the numbers of the words."""
        return tuple(self._numbers.get(word, 1) for word in text.split())

    def framed(self, text: str) -> Framed:
        """Return the numbers of the words: nothing is put around them."""
        return Framed((), self.ids(text), ())

    def text(self, tokens: Sequence[int]) -> str:
        """Return the words."""
        return " ".join(self.words[token] for token in tokens)


class Pretrained(Tokens):
    """A tokenizer of `transformers`.

    Args:
        tokenizer: what `AutoTokenizer.from_pretrained` returns, or what can be called in the same way: `tokenizer(text,
            add_special_tokens=...)["input_ids"]`, `decode`, `len`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.size = len(tokenizer)
        found = [getattr(tokenizer, f"{name}_token_id", None) for name in ("pad", "eos", "unk")]
        self.pad = next((int(token) for token in found if token is not None), 0)
        self.unknown = getattr(tokenizer, "unk_token_id", None)
        self.mask = getattr(tokenizer, "mask_token_id", None)
        self.mask_text = getattr(tokenizer, "mask_token", None)
        ends = (getattr(tokenizer, "eos_token_id", None), getattr(tokenizer, "bos_token_id", None))
        if self.unknown in ends:  # GPT-2 calls its end mark so, and knows every text
            self.unknown = None

    def ids(self, text: str) -> tuple[int, ...]:
        """Return the tokens of the text, nothing put around them."""
        return tuple(int(token) for token in self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def framed(self, text: str) -> Framed:
        """Return the text's tokens, and what stands before and after them."""
        own = self.ids(text)
        whole = tuple(int(token) for token in self._tokenizer(text, add_special_tokens=True)["input_ids"])
        for start in range(len(whole) - len(own) + 1):
            if whole[start : start + len(own)] == own:
                return Framed(whole[:start], own, whole[start + len(own) :])
        raise ValueError("the tokenizer writes the text otherwise beside the tokens that it puts around it")

    def text(self, tokens: Sequence[int]) -> str:
        """Return the tokens as text."""
        return str(self._tokenizer.decode(list(tokens)))


def tokens_of(name: str, texts: Iterable[str]) -> Tokens:
    """Return a tokenizer by its name: `words`, a local folder, or a name on the Hugging Face hub. Raises `UserError`."""
    if name == WORDS:
        return Words(texts)
    package = transformers("tokenizer", name)
    return Pretrained(found_in("tokenizer", name, lambda place: package.AutoTokenizer.from_pretrained(place)))


class Mismatch(ValueError):
    """Why an answer is none of a prompt, in this tokenizer: half a sentence."""


def continued(tokens: Tokens, prompt: str, answer: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tokens of a prompt with what the tokenizer begins texts with, and those of the answer that continues it.

    Raises `Mismatch` where the tokens of both texts together do not begin with those of the prompt.
    """
    framed = _framed(tokens, prompt)
    if not framed.tokens:
        raise Mismatch("the prompt has no token, so that nothing is there to continue")
    both = tokens.ids(prompt + answer)
    own = len(framed.tokens)
    if both == framed.tokens:
        raise Mismatch(f"the answer {answer!r} adds no token to the prompt in this tokenizer; give one that does")
    if both[:own] != framed.tokens or len(both) == own:
        hint = _spaced(tokens, prompt, answer)
        raise Mismatch(f"the answer {answer!r} is no continuation of the prompt's tokens in this tokenizer{hint}")
    _known(tokens, answer, both[own:])
    return (*framed.before, *framed.tokens), both[own:]


def filled(tokens: Tokens, prompt: str, answer: str) -> tuple[tuple[int, ...], int, tuple[int, ...], tuple[int, ...]]:
    """Return (tokens before the mask, how many masks, tokens after them, the answer's tokens) of a prompt with one mask.

    Raises `Mismatch` where there is not one mask, or where the answer in its place changes the tokens around it.
    """
    if tokens.mask is None or not tokens.mask_text:
        raise Mismatch("this tokenizer has no mask, so that there is nothing to fill in")
    framed = _framed(tokens, prompt)
    if (count := framed.tokens.count(tokens.mask)) != 1 or prompt.count(tokens.mask_text) != 1:
        raise Mismatch(f"the prompt must hold the mask {tokens.mask_text!r} once, not {count} times")
    at = framed.tokens.index(tokens.mask)
    left, right = framed.tokens[:at], framed.tokens[at + 1 :]
    whole = tokens.ids(prompt.replace(tokens.mask_text, answer))
    inside = whole[len(left) : len(whole) - len(right)]
    if len(whole) <= len(left) + len(right) or whole != (*left, *inside, *right):
        raise Mismatch(f"the answer {answer!r} in the place of {tokens.mask_text} changes the tokens around it in this tokenizer")
    _known(tokens, answer, inside)
    return (*framed.before, *left), len(inside), (*right, *framed.after), inside


def whole(tokens: Tokens, prompt: str) -> tuple[int, ...]:
    """Return all tokens of a text, those around it included. Raises `Mismatch` for a text of none."""
    framed = _framed(tokens, prompt)
    if not framed.tokens:
        raise Mismatch("the prompt has no token")
    return (*framed.before, *framed.tokens, *framed.after)


def _framed(tokens: Tokens, text: str) -> Framed:
    try:
        return tokens.framed(text)
    except ValueError as error:
        raise Mismatch(str(error)) from None


def _spaced(tokens: Tokens, prompt: str, answer: str) -> str:
    """Say that a space is what is missing, where it is."""
    if prompt.endswith(" ") and not answer.startswith(" "):
        return f"; leave the space at the end of the prompt out and begin the answer with it, {' ' + answer!r}"
    own, spaced = tokens.ids(prompt), tokens.ids(f"{prompt} {answer}")
    helps = not answer.startswith(" ") and spaced[: len(own)] == own and len(spaced) > len(own)
    if helps:
        return f"; begin it with a space, {' ' + answer!r}, if it is a word of its own, or put the boundary elsewhere"
    return "; the two run together, so put the boundary elsewhere"


def _known(tokens: Tokens, answer: str, found: Sequence[int]) -> None:
    if tokens.unknown is not None and tokens.unknown in found:
        raise Mismatch(f"the answer {answer!r} holds what this tokenizer does not know")
