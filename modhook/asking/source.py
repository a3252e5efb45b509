"""What a function is, as text: its source, and the values that it takes with it. A cube records it, and refuses another."""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import hashlib
import inspect
import io
import textwrap
import tokenize
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from modhook.asking.batches import digest_of
from modhook.asking.reduced import RANDOM, is_fixed, made_of
from modhook.errors import UserError
from modhook.network.held import held
from modhook.network.slots import slots_of
from modhook.values.code import compiled

_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.dtype, torch.dtype, torch.device)
_DEPTH = 6
_LONG = 500
"""Characters above which what a value is made of is written as a hash."""
_HELD = (Tensor, np.ndarray, np.generic, tuple, list, set, frozenset, Mapping, enum.Enum)
_MADE = (nn.Module, functools.partial, types.MethodType, types.SimpleNamespace)
_BARE = frozenset(vars(nn.Module())) - {"training"}
"""What every module has: tensors, modules and hooks are told elsewhere, or change nothing by themselves."""


def source_of(what: str, function: Callable[..., Any]) -> str:
    """Return what tells a function from another: its source text, then the values it takes from where it was made.

    Functions without source (from `exec`, or a plain interpreter) are told by their compiled code.

    Raises:
        UserError: a lambda that shares its line with another one.
    """
    return _told(what, function, _DEPTH)


def sources_of(what: str, given: Mapping[str, Callable[..., Any]]) -> dict[str, str]:
    """Return the source of one function per name. Raises `UserError` for two of them that cannot be told apart."""
    found = {name: source_of(f"the {what} of {name!r}", function) for name, function in given.items()}
    first: dict[str, str] = {}
    for name, function in given.items():
        # Lambdas of one loop have one text, whatever values they hold: which is whose would stand nowhere.
        text = _lambda_text(function) or found[name]
        other = first.setdefault(text, name)
        # What calls itself two things by the same values is one; a function made in a loop may hold what nobody sees.
        if given[other] is not function and isinstance(function, types.FunctionType):
            raise UserError(
                f"the {what} of {name!r} and of {other!r} cannot be told apart by their source (made in one loop?); write "
                f"functools.partial({what}, ...) of one function, with what differs as an argument."
            )
    return found


def _told(what: str, value: Any, depth: int) -> str:
    if isinstance(value, functools.partial):
        parts = [_told(what, value.func, depth - 1), *(_value(what, a, depth) for a in value.args)]
        parts += [f"{k}={_value(what, v, depth)}" for k, v in sorted(value.keywords.items())]
        return f"partial({', '.join(parts)})"
    if isinstance(value, types.MethodType):
        return f"{_value(what, value.__self__, depth)}.{_told(what, value.__func__, depth - 1)}"
    if isinstance(value, types.FunctionType):
        return _function(what, value, depth)
    return _value(what, value, depth)


def _function(what: str, function: types.FunctionType, depth: int) -> str:
    text = _text(function)
    if function.__name__ == "<lambda>" and _lambdas(text) > 1:
        raise UserError(
            f"{what} is a lambda on a line with another one, so that their source cannot be told apart; give each its own line, "
            "or write a def."
        )
    own = function.__module__.partition(".")[0] if function.__module__ else ""
    if own in ("torch", "modhook", "numpy"):
        return f"{function.__module__}.{function.__qualname__}"
    values: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            values[name] = cell.cell_contents
        except ValueError:  # not given a value yet
            continue
    arguments = inspect.getfullargspec(function)
    values |= dict(zip(reversed(arguments.args), reversed(arguments.defaults or ()), strict=False))
    values |= arguments.kwonlydefaults or {}
    for name in _globals(function.__code__):
        if name in function.__globals__ and _is_value(found := function.__globals__[name], function.__module__):
            values.setdefault(name, found)
    if not depth or not values:
        return text
    known = {name: _value(what, value, depth - 1) for name, value in sorted(values.items()) if value is not function}
    return "\n".join([text, *(f"# {name} = {value}" for name, value in known.items())])


def _value(what: str, value: Any, depth: int) -> str:
    """Write a value: a number as it is, tensors by their hash, functions by their source, others by their kind."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)} {digest_of([('', value)])}"
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        return f"array {array.shape} {array.dtype} {hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()}"
    if isinstance(value, enum.Enum):
        return str(value)
    if depth <= 0:
        return repr(value) if _is_plain(value) else type(value).__qualname__
    if isinstance(value, nn.Module):
        return _module(what, value, depth)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {_value(what, v, depth - 1)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_value(what, v, depth - 1) for v in value) + "]"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(_value(what, v, depth - 1) for v in value)) + "}"
    if isinstance(value, types.FunctionType | types.MethodType | functools.partial):
        return _told(what, value, depth - 1)
    if isinstance(value, types.BuiltinFunctionType | type | types.ModuleType):
        return getattr(value, "__qualname__", value.__name__)
    if isinstance(value, RANDOM):
        return type(value).__qualname__
    if isinstance(wrapped := getattr(value, "__wrapped__", None), types.FunctionType):  # of functools.cache
        return f"{type(value).__qualname__} {_told(what, wrapped, depth - 1)}"
    kept = {n: getattr(value, n) for n in slots_of(type(value)) if hasattr(value, n)} | getattr(value, "__dict__", {})
    seen = {k: v for k, v in kept.items() if not k.startswith("__")}
    inside = "" if not kept else _value(what, seen, depth - 1)
    if not seen and (parts := made_of(value)):
        inside = ", ".join(_value(what, part, depth - 1) for part in parts)
        inside = inside if len(inside) <= _LONG else hashlib.blake2b(inside.encode(), digest_size=16).hexdigest()
    call = type(value).__dict__.get("__call__")
    body = _text(call) if isinstance(call, types.FunctionType) else ""
    return f"{type(value).__qualname__} {inside} {body}".strip()


def _module(what: str, module: nn.Module, depth: int) -> str:
    """Write a module: every tensor that it holds, by a hash, and of each of its modules the class and the plain attributes."""
    lines = []
    for name, one in module.named_modules():
        own = {k: v for k, v in sorted(vars(one).items()) if k not in _BARE and not isinstance(v, nn.Module | Tensor)}
        forward = getattr(type(one), "forward", None)
        theirs = type(one).__module__.partition(".")[0] == "torch"
        body = _text(forward) if isinstance(forward, types.FunctionType) and not theirs else ""
        kind = f"{type(one).__module__}.{type(one).__qualname__}"
        lines.append(f"{name}: {kind} {_value(what, own, depth)} {body}")
    tensors = sorted((n, t) for n, t in held(module).tensors.items() if not t.is_meta)
    return f"{type(module).__qualname__} {'; '.join(lines)} {digest_of(tensors)}"


def plain_of(module: nn.Module) -> str:
    """Return the plain attributes of a network's modules, which its tensors and its `repr` do not tell; but not its mode."""
    found = []
    for name, one in module.named_modules():
        own = {k: v for k, v in sorted(vars(one).items()) if k not in _BARE and k != "training" and _is_plain(v)}
        found.append(f"{name}: {own!r}")
    return "\n".join(found)


def _is_value(found: Any, module: str) -> bool:
    """Whether a global is a value of its function. Functions are not followed, nor loggers and the like: these change by being used."""
    settings = dataclasses.is_dataclass(found) or attrs.has(type(found)) or type(found).__module__ == module
    value = isinstance(found, (*_PLAIN, *_HELD, *_MADE)) or settings or is_fixed(found)
    return value and not isinstance(found, type)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_plain(v) for v in (*value, *value.values()))
    return all(map(_is_plain, value)) if isinstance(value, tuple | list) else isinstance(value, _PLAIN)


def _globals(code: types.CodeType) -> Iterator[str]:
    """Yield the names of a function's globals, and of those that are made inside it; names of attributes are none."""
    yield from (i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _globals(inner)


def _text(function: types.FunctionType) -> str:
    """Return the source of a function, or a hash of its compiled code where nobody has the source."""
    try:
        return textwrap.dedent(inspect.getsource(function)).strip()
    except (OSError, TypeError):
        return f"{function.__qualname__}, compiled: {compiled(function.__code__)}"


def _lambda_text(function: Any) -> str:
    named = isinstance(function, types.FunctionType) and function.__name__ == "<lambda>"
    return _text(function) if named else ""


def _lambdas(text: str) -> int:
    """Count the lambdas in a piece of source, which may be a part of a statement."""
    count = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            count += token.type == tokenize.NAME and token.string == "lambda"
    except (tokenize.TokenError, IndentationError, SyntaxError):  # a statement without its end
        pass
    return count
