"""What a plugin's class must be before it is used: of its kind, with everything that its kind needs, and with names where names belong."""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any

import attrs

from modhook.errors import listing

_NAMES = {"figures": {"requires": "group/variable", "tasks": "name"}}
"""Class variables that are tuples of names, by kind, and what each name looks like. Those of tasks, which may depend on options, are
looked at where a study has made one."""


def mistake(kind: str, thing: Any, wanted: type) -> str:
    """Return what is wrong with what a plugin brings, as the end of a sentence that begins with its name, or an empty text."""
    if not (isinstance(thing, type) and issubclass(thing, wanted)):
        shown = f"the class {thing.__name__}" if isinstance(thing, type) else f"a {type(thing).__name__}"
        return f"must be a subclass of modhook.{wanted.__name__}, but it is {shown}"
    if lacking := sorted(getattr(thing, "__abstractmethods__", ())):
        return f"does not define {listing(lacking)}, which a {wanted.__name__} needs"
    if said := _other_calls(thing, wanted):
        return said
    options = getattr(thing, "Options", None)
    if options is not None and not (isinstance(options, type) and attrs.has(options)):
        return f"has {options!r} as its Options, which must be an attrs class: decorate it with @attrs.frozen"
    for name, form in _NAMES.get(kind, {}).items():
        if said := _no_names(getattr(thing, name), name, form):
            return said
    rank = getattr(thing, "rank", 0)
    if kind == "figures" and (not isinstance(rank, int) or isinstance(rank, bool)):
        return f"has rank = {rank!r}, which must be a whole number"
    return ""


def _other_calls(thing: type, wanted: type) -> str:
    """Say which method cannot be called as its interface says, and what is a method where it must not be, or the other way."""
    for name, base in vars(wanted).items():
        own: Any = inspect.getattr_static(thing, name)
        if name.startswith("_") or own is base:
            continue
        if not inspect.isfunction(base):
            if inspect.isfunction(own):
                return f"has {name} as a method, but it is read without a call: write @property above it"
            continue
        asked = list(inspect.signature(base).parameters)[1:]
        call = f"{name}({', '.join(asked)})"
        if isinstance(own, property):
            return f"has {name} as a property, but it is called, {call}: take @property away"
        if not callable(getattr(thing, name)):
            return f"has {name} = {own!r}, but it is called, {call}"
        if not isinstance(own, FunctionType | staticmethod | classmethod):
            continue  # something else that can be called; it says itself what it takes
        signature = inspect.signature(getattr(thing, name))
        try:
            signature.bind(*([None] if isinstance(own, FunctionType) else []), *asked)
        except TypeError:
            return f"has {name}{signature}, but it is called as {call}"
    return ""


def _no_names(value: Any, name: str, form: str) -> str:
    if value is None and name == "tasks":
        return ""
    if isinstance(value, property) or callable(value):
        return ""  # it depends on the options
    if isinstance(value, str):
        return f"has {name} = {value!r}, a text where a tuple is wanted: write ({value!r},)"
    if not isinstance(value, tuple | list) or not all(isinstance(n, str) for n in value):
        return f"has {name} = {value!r}, which must be a tuple of names"
    wrong = [n for n in value if form == "group/variable" and not all(n.partition("/")[::2])]
    return f"has {name} = {value!r}, but variables are named 'group/variable'" if wrong else ""
