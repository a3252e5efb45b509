"""Functions by name: what a user called them, and what the cube calls them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from modhook.errors import UserError, listing, near_miss
from modhook.values.arguments import function, instance, shown

_TAKEN = ("unmasked", "control")
T = TypeVar("T")


def normal(name: Any) -> str:
    """Return a name as the cube has it: composed signs (NFKC), single spaces, none at its ends."""
    return " ".join(unicodedata.normalize("NFKC", str(name)).split())


def named(what: str, given: Mapping[Any, T]) -> dict[str, T]:
    """Return a mapping by normal names. Raises `UserError` for two of the same name, and for names that nothing can have."""
    found: dict[str, T] = {}
    first: dict[str, Any] = {}
    for key, value in given.items():
        if not isinstance(key, str | int):
            raise UserError(f"{what} must be named by texts, not {shown(key)}.")
        name = normal(key)
        bad = any(unicodedata.category(sign)[0] == "C" for sign in name)
        if not name or name.casefold() in _TAKEN or bad or "(" in name or "/" in name or len(name) > 100:
            raise UserError(
                f"a function cannot be called {shown(key)}: names are 1 to 100 signs without brackets and slashes, and "
                f"{' and '.join(map(repr, _TAKEN))} mean something else."
            )
        other = first.setdefault(name.casefold(), key)
        if other is not key:
            raise UserError(
                f"two functions have the same name, {shown(other)} and {shown(key)}; call one of them otherwise."
            )
        found[name] = value
    return found


def among(what: str, given: Mapping[Any, T], functions: Mapping[str, Any]) -> dict[str, T]:
    """Return a mapping by the names of known functions. Raises `UserError` for a name that is none."""
    found = named(what, given)
    for name in found:
        if name not in functions:
            raise UserError(
                f"{what} name {name!r}, which is no function that was asked for{near_miss(name, functions)}; those are "
                f"{listing(functions)}."
            )
    return found


def per_function(what: str, given: Any, functions: Mapping[str, Any], call: str) -> dict[str, Callable[..., Any]]:
    """Return {function: callable} of one callable for all, or of one for each. Raises `UserError`."""
    if not isinstance(given, Mapping):
        function(what, given, call)
        return dict.fromkeys(functions, given)
    found = among(f"the keys of {what}", given, functions)
    if missing := [name for name in functions if name not in found]:
        raise UserError(
            f"{what} has nothing for {listing(map(repr, missing))}; give {{function: {call}}} for each, or one for all."
        )
    for name, value in found.items():
        function(f"{what}[{name!r}]", value, call)
    return found


def mapping(what: str, given: Any) -> None:
    """Raise `UserError` unless a value is a mapping with something in it."""
    instance(what, given, Mapping, "a mapping {function: batches}")
    if not given:
        raise UserError(f"{what} must name at least one function: {{'vowels': batches, ...}}.")
