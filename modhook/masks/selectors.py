"""What chooses parameters: patterns of names, paths of modules, modules themselves, their types, and functions.

A selector chooses names out of all names that parameters have. What a pattern matches by parameters' names alone, it means;
only where that is nothing, it is read as the path of modules, whose parameters it then chooses, those of submodules too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from fnmatch import fnmatchcase
from typing import Any

import attrs
from torch import nn

from modhook.errors import PatternError, UserError, listing, near_miss
from modhook.values.arguments import shown
from modhook.values.numbers import is_truth

Selector = str | nn.Module | type[nn.Module] | Callable[..., Any]
"""A pattern or a path, a module, a type of modules, or a function(name, parameter[, module]) that returns True or False."""
Selectors = Selector | Sequence[Selector] | Set[Selector]


@attrs.frozen
class Known:
    """Parameters that can be chosen: by their first names, all names of each; the network, and how a message calls them."""

    names: Mapping[str, tuple[str, ...]]
    model: nn.Module | None = None
    whose: str = "the network's parameters are"

    @property
    def every(self) -> list[str]:
        """All names of all parameters."""
        return [alias for aliases in self.names.values() for alias in aliases]


def selectors_of(what: str, given: Any) -> tuple[Selector, ...]:
    """Return what was given as a tuple; one selector is one. Raises `UserError` for what is none."""
    single = isinstance(given, str | nn.Module) or callable(given)
    several = isinstance(given, Sequence | Set) and not isinstance(given, bytes)
    found = (given,) if single else tuple(given) if several else (given,)
    for one in found:
        if isinstance(one, str | nn.Module) or (callable(one) and not isinstance(one, type)):
            continue
        if isinstance(one, type) and issubclass(one, nn.Module):
            continue
        got = f"the type {one.__qualname__}" if isinstance(one, type) else shown(one if several or single else given)
        raise UserError(
            f"{what} must be a pattern or a list of patterns, such as 'encoder.*', or modules, their paths, types such as nn.Linear, or "
            f"functions of a parameter's name and the parameter, not {got}."
        )
    return found


def chosen_by(what: str, given: Sequence[Selector], known: Known) -> set[str]:
    """Return every name that any selector chooses. Raises `PatternError` for one that chooses none."""
    return {name for one in given for name in _checked(what, one, known)}


def names_by(given: Sequence[Selector], known: Known) -> set[str]:
    """Return every name that any selector chooses, if any does."""
    return {name for one in given for name in _of(one, known)}


def words(given: Sequence[Selector]) -> list[str]:
    """Return selectors as a message shows them."""
    return [one if isinstance(one, str) else _called(one) for one in given]


def below(path: str, names: Sequence[str]) -> list[str]:
    """Return those of the names that lie in the module at a path."""
    return [name for name in names if name.startswith(f"{path}.")]


def _of(one: Selector, known: Known) -> list[str]:
    if isinstance(one, str):
        return _of_text(one, known.every)
    model = known.model
    if model is None:
        raise UserError(
            f"{_called(one)} chooses among the modules of a network, and these masks know none: give it, "
            "masks.select(..., model=model)."
        )
    if isinstance(one, nn.Module):
        return _within(model, lambda module: module is one, known)
    if isinstance(one, type):
        return _within(model, lambda module: isinstance(module, one), known)
    return list(_asked(one, model, known))


def _of_text(pattern: str, every: Sequence[str]) -> list[str]:
    """Return the names that a pattern matches, or that lie in the modules it matches; its signs may also be part of a name."""
    if found := _matches(pattern, every):
        return found
    inside = dict.fromkeys(name for path in _matches(pattern, _paths(every)) for name in below(path, every))
    return list(inside)


def _matches(pattern: str, words: Sequence[str]) -> list[str]:
    if pattern in words:
        return [pattern]
    found = [word for word in words if fnmatchcase(word, pattern)]
    return found or [word for word in words if fnmatchcase(word, pattern.replace("[", "[[]"))]


def _paths(every: Sequence[str]) -> list[str]:
    """Return the paths of all modules that hold these parameters, or whose submodules do."""
    found: dict[str, None] = {}
    for name in every:
        while name := name.rpartition(".")[0]:
            found[name] = None
    return list(found)


def _within(model: nn.Module, wanted: Callable[[nn.Module], bool], known: Known) -> list[str]:
    """Return the names below all modules that are wanted; a module, and a tied weight, may stand at several places."""
    own = [module for module in model.modules() if wanted(module)]
    inside = {id(parameter) for module in own for parameter in module.parameters()}
    named = dict(model.named_parameters(remove_duplicate=False))
    return [name for name in known.every if name in named and id(named[name]) in inside]


def _asked(function: Callable[..., Any], model: nn.Module, known: Known) -> Iterator[str]:
    """Yield the names for which a function returns True."""
    named = dict(model.named_parameters(remove_duplicate=False))
    takes_module = _takes_three(function)
    for name in known.every:
        if name not in named:
            continue
        more = (model.get_submodule(name.rpartition(".")[0]),) if takes_module else ()
        try:
            answer = function(name, named[name], *more)
        except Exception as error:
            why = str(error).partition("\n")[0]
            raise UserError(f"{_called(function)} fails at {name!r}: {type(error).__name__}: {why}.") from error
        if not is_truth(answer):
            raise UserError(f"{_called(function)} must return True or False, but returned {shown(answer)} for {name!r}.")
        if answer:
            yield name


def _takes_three(function: Callable[..., Any]) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C
        return False
    positional = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    # A third argument that has a default is the function's own: lambda name, parameter, least=10: ...
    needed = [p for p in positional if p.default is p.empty]
    return len(needed) > 2 or any(p.kind == p.VAR_POSITIONAL for p in signature.parameters.values())


def _checked(what: str, one: Selector, known: Known) -> list[str]:
    found = _of(one, known)
    if found:
        return found
    every, whose = known.every, f"{known.whose}: {listing(known.every)}."
    if isinstance(one, str):
        if known.model is not None and one in (paths := dict(known.model.named_modules(remove_duplicate=False))) and one:
            what_it_is = f"{type(paths[one]).__name__}, and no parameter in it can be masked"
            raise PatternError(f"{what} pattern {one!r} matches no parameter: that is a {what_it_is}; {whose}")
        own = {} if known.model is None else dict(known.model.named_parameters())
        if wrong := _matches(one, [n for n, p in own.items() if not p.is_floating_point()]):
            kind = str(own[wrong[0]].dtype).removeprefix("torch.")
            raise PatternError(f"{what} pattern {one!r} matches {wrong[0]!r}, which is {kind}: only real weights can be masked; {whose}")
        near = near_miss(one.strip("*"), [*every, *_paths(every)])
        raise PatternError(f"{what} pattern {one!r} matches no parameter{near}; {whose}")
    assert known.model is not None
    if isinstance(one, type):
        kinds = list(dict.fromkeys(type(module).__name__ for module in known.model.modules()))
        near = near_miss(one.__name__, kinds)
        raise PatternError(
            f"{what}: no {one.__name__} of the network holds a parameter that can be masked{near}; its modules are: {listing(kinds)}."
        )
    if isinstance(one, nn.Module):
        if not any(module is one for module in known.model.modules()):
            raise PatternError(
                f"{what}: the {type(one).__name__} that was given is no module of this network (of a copy of it?); give "
                "its path, or the network's own."
            )
        raise PatternError(f"{what}: no parameter of the {type(one).__name__} that was given can be masked; {whose}")
    raise PatternError(f"{what}: {_called(one)} returns True for no parameter; {whose}")


def _called(one: Any) -> str:
    if isinstance(one, nn.Module):
        return f"the module {type(one).__name__}"
    if isinstance(one, type):
        return f"the type {one.__name__}"
    return f"the function {getattr(one, '__qualname__', type(one).__qualname__)}"
