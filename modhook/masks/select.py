"""Which parameters of a network are masked: shell-style patterns over parameter names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from modhook.errors import PatternError, UserError, listing, near_miss
from modhook.values.arguments import shown

if TYPE_CHECKING:
    from torch import nn

DEFAULT_INCLUDE = ("*",)
DEFAULT_EXCLUDE = ("*bias*",)


def parameter_names(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return every parameter's first name and all of its names: tied weights are one parameter with several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {aliases[0]: tuple(aliases) for aliases in names.values()}


def maskable(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return `parameter_names` of the parameters that a mask can be put on: floating point ones with at least one element."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return {
        n: a for n, a in parameter_names(model).items() if parameters[n].is_floating_point() and parameters[n].numel()
    }


def select(
    model: nn.Module, include: str | Sequence[str] | None = None, exclude: str | Sequence[str] | None = None
) -> tuple[str, ...]:
    """Return the names of the parameters to mask, in the model's order.

    Args:
        model: any `nn.Module`.
        include: pattern or patterns (`*`, `?`, `[abc]`; matched against the full name); default `"*"`. A whole name means that
            parameter, whatever signs are in it, and so do brackets that match nothing else: `heads[0].*`.
        exclude: pattern or patterns taken out again; default `"*bias*"`. `()` takes nothing out.

    A tied parameter is one parameter: it is taken if any of its names matches `include` and none matches `exclude`.

    Raises:
        PatternError: a pattern that was given (not a default) matches no parameter, or nothing is left to mask.
    """
    names = maskable(model)
    wanted = patterns(include, DEFAULT_INCLUDE)
    unwanted = patterns(exclude, DEFAULT_EXCLUDE)
    _all_match("include", wanted if include is not None else (), names)
    _all_match("exclude", unwanted if exclude is not None else (), names)
    found = _but(names, wanted, unwanted)
    if not found:
        raise PatternError(
            f"no parameter is left to mask with include={list(wanted)} and exclude={list(unwanted)}; "
            f"the network's parameters are: {listing(names)}."
        )
    return found


def chosen(
    names: Mapping[str, tuple[str, ...]], include: str | Sequence[str], exclude: str | Sequence[str]
) -> tuple[str, ...]:
    """Return which of some masked parameters, given with all of their names, patterns choose.

    Raises `PatternError` if a pattern matches none of them, or nothing is left; `UserError` for what is no pattern.
    """
    wanted, unwanted = _texts("include", include), _texts("exclude", exclude)
    _all_match("include", wanted, names, "these masks cover")
    _all_match("exclude", unwanted, names, "these masks cover")
    found = _but(names, wanted, unwanted)
    if not found:
        raise PatternError(
            f"no masked parameter is left with include={list(wanted)} and exclude={list(unwanted)}; "
            f"these masks cover: {listing(names)}."
        )
    return found


def _texts(what: str, given: str | Sequence[str]) -> tuple[str, ...]:
    several = isinstance(given, Sequence) and not isinstance(given, bytes)
    if not several or not all(isinstance(pattern, str) for pattern in given):
        raise UserError(f"{what} must be a pattern or a list of patterns such as 'encoder.*', not {shown(given)}.")
    return (given,) if isinstance(given, str) else tuple(given)


def _but(names: Mapping[str, tuple[str, ...]], wanted: Sequence[str], unwanted: Sequence[str]) -> tuple[str, ...]:
    taken, left = _matched(wanted, names), _matched(unwanted, names)
    return tuple(n for n, aliases in names.items() if taken & {*aliases} and not left & {*aliases})


def patterns(given: str | Sequence[str] | None, default: tuple[str, ...]) -> tuple[str, ...]:
    """Return patterns as a tuple; one string is one pattern."""
    if given is None:
        return default
    return (given,) if isinstance(given, str) else tuple(given)


def matching(model: nn.Module, wanted: Sequence[str], what: str) -> tuple[str, ...]:
    """Return the names of maskable parameters that match any of `wanted`. Raises `PatternError` if one matches nothing."""
    names = maskable(model)
    _all_match(what, wanted, names)
    found = _matched(wanted, names)
    return tuple(n for n, aliases in names.items() if found & {*aliases})


def _matched(wanted: Sequence[str], names: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Return every name, of those of all parameters, that any pattern matches."""
    everything = [alias for aliases in names.values() for alias in aliases]
    return {name for pattern in wanted for name in _of(pattern, everything)}


def _of(pattern: str, everything: Sequence[str]) -> list[str]:
    """Return the names that a pattern matches; signs of patterns may also be part of a name."""
    if pattern in everything:
        return [pattern]
    found = [name for name in everything if fnmatchcase(name, pattern)]
    return found or [name for name in everything if fnmatchcase(name, pattern.replace("[", "[[]"))]


def _all_match(
    what: str,
    wanted: Sequence[str],
    names: Mapping[str, tuple[str, ...]],
    whose: str = "the network's parameters are",
) -> None:
    everything = [alias for aliases in names.values() for alias in aliases]
    for pattern in wanted:
        if not _of(pattern, everything):
            raise PatternError(
                f"{what} pattern {pattern!r} matches no parameter{near_miss(pattern.strip('*'), everything)}; "
                f"{whose}: {listing(everything)}."
            )
