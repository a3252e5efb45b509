"""Which parameters of a network are masked: by patterns of their names, and by modules (`modhook.masks.selectors`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from modhook.errors import PatternError, listing
from modhook.masks.selectors import Known, Selector, Selectors, chosen_by, names_by, selectors_of, words
from modhook.network.threads import using

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


def select(model: nn.Module, include: Selectors | None = None, exclude: Selectors | None = None) -> tuple[str, ...]:
    """Return the names of the parameters to mask, in the model's order.

    Args:
        model: any `nn.Module`.
        include: what chooses parameters, one or a list of them; default `"*"`. Each may be a pattern (`*`, `?`, `[abc]`; matched
            against the full name; a whole name means that parameter, whatever signs are in it, and so do brackets that match nothing
            else: `heads[0].*`); or the path of a module, or a pattern of paths where it matches no parameter's name
            (`"encoder.layer.0.attention"`, `"encoder.layer.?"`): all parameters in these modules and below; a module of the network; a
            type, `nn.Linear`: those in all modules of it; or a function of a parameter's name and the parameter, and if it needs a
            third argument of the module that holds it, which returns True or False.
        exclude: the same, taken out again; default `"*bias*"`. `()` takes nothing out.

    A tied parameter is one parameter: it is taken if any of its names matches `include` and none matches `exclude`.

    Raises:
        PatternError: something that was given (not a default) chooses no parameter, or nothing is left to mask.
        UserError: what chooses nothing by its kind, such as a number; a function that fails, or returns anything else.
    """
    known = Known(maskable(model), model)
    wanted = DEFAULT_INCLUDE if include is None else selectors_of("include", include)
    unwanted = DEFAULT_EXCLUDE if exclude is None else selectors_of("exclude", exclude)
    taken = chosen_by("include", wanted, known) if include is not None else names_by(wanted, known)
    left = chosen_by("exclude", unwanted, known) if exclude is not None else names_by(unwanted, known)
    found = _but(known.names, taken, left)
    if not found:
        raise PatternError(
            f"no parameter is left to mask with include={words(wanted)} and exclude={words(unwanted)}; "
            f"the network's parameters are: {listing(known.names)}."
        )
    return found


def chosen(
    names: Mapping[str, tuple[str, ...]], include: Selectors, exclude: Selectors, model: nn.Module | None = None
) -> tuple[str, ...]:
    """Return which of some masked parameters, given with all of their names, are chosen; `model` where modules choose.

    Raises `PatternError` for what chooses none of them, or if nothing is left; `UserError` for what cannot choose.
    """
    known = Known(names, model, "these masks cover")
    wanted, unwanted = selectors_of("include", include), selectors_of("exclude", exclude)
    found = _but(names, chosen_by("include", wanted, known), chosen_by("exclude", unwanted, known))
    if not found:
        raise PatternError(
            f"no masked parameter is left with include={words(wanted)} and exclude={words(unwanted)}; "
            f"these masks cover: {listing(names)}."
        )
    return found


def matching(model: nn.Module, wanted: Sequence[Selector], what: str) -> tuple[str, ...]:
    """Return the names of maskable parameters that any of `wanted` chooses, each as in `select`.

    Raises `PatternError`, which calls them `what`, if one chooses nothing.
    """
    names = maskable(model)
    found = chosen_by(what, selectors_of(what, tuple(wanted)), Known(names, model))
    return tuple(n for n, aliases in names.items() if found & {*aliases})


def in_words(model: nn.Module, what: str, given: Selectors) -> list[str]:
    """Return selectors as a file can say them: texts as they are, and the names of the parameters that others choose.

    Raises `PatternError`, `UserError`.
    """
    found: dict[str, None] = {}
    with using(model):  # another thread may run it under its own parameters
        for one in selectors_of(what, given):
            found |= dict.fromkeys((one,) if isinstance(one, str) else matching(model, (one,), what))
    return list(found)


def _but(names: Mapping[str, tuple[str, ...]], taken: set[str], left: set[str]) -> tuple[str, ...]:
    return tuple(n for n, aliases in names.items() if taken & {*aliases} and not left & {*aliases})
