"""Checks of the arguments of public functions, by the same annotations as a study's keys."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Annotated, Any, get_args, get_origin

import annotated_types as at

from modhook.errors import UserError, near_miss
from modhook.values.bounds import Rejected, check_bounds
from modhook.values.numbers import real, truth, whole

_LONGEST = 60
MOST = 10_000
"""Batches without a length that are waited for."""
_KINDS: dict[Any, tuple[Callable[[Any], Any], str]] = {
    int: (whole, "a whole number"),
    float: (real, "a finite number"),
    bool: (truth, "True or False"),
}


def checked(name: str, value: Any, wanted: Any) -> Any:
    """Return a number or truth value as Python's own.

    Args:
        name: what the argument is called, for the message.
        value: what was given; numbers of numpy and torch are numbers.
        wanted: int, float or bool, with bounds as `Annotated[int, Ge(1)]`.

    Raises:
        UserError: it is something else, or breaks a bound.
    """
    kind, *bounds = get_args(wanted) if get_origin(wanted) is Annotated else (wanted,)
    convert, words = _KINDS[kind]
    try:
        found = convert(value)
        check_bounds(found, bounds)
    except Rejected:
        raise UserError(f"{name} must be {words}{_spoken(bounds)}, not {shown(value)}.") from None
    return found


def optional(name: str, value: Any, wanted: Any) -> Any:
    """Return None as it is, and anything else as `checked` does. Raises `UserError`."""
    return None if value is None else checked(name, value, wanted)


def instance(name: str, value: Any, kinds: type | tuple[type, ...], words: str) -> None:
    """Raise `UserError` unless a value is of one of these kinds; `words` says of which: "an nn.Module"."""
    if not isinstance(value, kinds):
        raise UserError(f"{name} must be {words}, not {shown(value)}.")


def function(name: str, value: Any, call: str) -> None:
    """Raise `UserError` unless a value can be called with as many arguments as `call` shows: "loss(net, batch)".

    A loss with the attribute `complement` takes one more (`modhook.objectives.pair`).
    """
    if not callable(value):
        raise UserError(f"{name} must be a function, {call}, not {shown(value)}.")
    try:
        signature = inspect.signature(value, follow_wrapped=False)
    except (TypeError, ValueError):  # what is compiled may tell nothing of itself
        return
    count = call.count(",") + 1 + bool(getattr(value, "complement", False))
    try:
        signature.bind(*[None] * count)
    except TypeError:
        own = getattr(value, "__name__", type(value).__name__)
        raise UserError(f"{name} must be a function that is called as {call}, but {own}{signature} is given.") from None


def one_of(name: str, value: Any, valid: Iterable[str]) -> None:
    """Raise `UserError` unless a value is one of these texts; the message lists them, and names the nearest."""
    valid = tuple(valid)
    if not isinstance(value, str) or value not in valid:
        hint = near_miss(value, valid) if isinstance(value, str) else ""
        raise UserError(f"unknown {name} {shown(value)}{hint}; valid are {', '.join(valid)}.")


def ended(name: str, batches: Iterable[Any]) -> list[Any]:
    """Return the batches as a list. Raises `UserError` where they have no length and are more than `MOST`: they may never end."""
    try:
        length: int | None = len(batches)  # type: ignore[arg-type]
    except TypeError:  # a generator; a DataLoader of a data set without a length
        length = None
    found = list(batches if length is not None else islice(batches, MOST + 1))
    if length is None and len(found) > MOST:
        raise UserError(
            f"{name} gives more than {MOST:,} batches, and may never end; all of them are kept and measured each time, so give some: "
            f"list(itertools.islice({name}, 16))."
        )
    return found


def batches_of(name: str, value: Any) -> None:
    """Raise `UserError` unless a value can be iterated over, batch by batch; a single batch is none of it."""
    if isinstance(value, Mapping) or _is_tensor(value) or (isinstance(value, tuple) and value and all(map(_is_tensor, value))):
        raise UserError(f"{name} must be an iterable of batches, not one batch; give [batch] for a single one.")
    if single_items(value):
        raise UserError(
            f"{name} must be an iterable of batches, but are a data set of single items; give torch.utils.data.DataLoader(it, "
            "batch_size=...), with None if its items are batches."
        )
    if isinstance(value, str | bytes) or not (hasattr(value, "__iter__") or hasattr(value, "__getitem__")):
        hint = "; call it first" if callable(value) else ""
        raise UserError(f"{name} must be an iterable of batches, not {shown(value)}{hint}.")


def _is_tensor(value: Any) -> bool:
    """Return whether a value is a tensor; torch is not imported for it."""
    return any((kind.__module__, kind.__name__) == ("torch", "Tensor") for kind in type(value).__mro__)


def single_items(value: Any) -> bool:
    """Return whether a value is a data set of torch or of `datasets`, which gives one item after the other; neither is imported."""
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(value).__mro__}
    if ("torch", "IterableDataset") in kinds and ("datasets", "IterableDataset") not in kinds:
        return False  # it may well give batches
    return bool(kinds & {("torch", "Dataset"), ("datasets", "Dataset"), ("datasets", "IterableDataset"), ("datasets", "DatasetDict")})


def shown(value: Any) -> str:
    """Write a number, text or the like on one line, cut when it is long; of anything else its kind, and shape."""
    plain = value is None or isinstance(value, bool | int | float | complex | str | bytes)
    if plain or getattr(value, "shape", None) == ():
        text = " ".join(repr(value).split())
        return text if len(text) <= _LONGEST else text[: _LONGEST - 4] + " ..."
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"{kind} of shape {tuple(value.shape)}" if hasattr(value, "shape") else kind


def _spoken(bounds: Iterable[Any]) -> str:
    """Write bounds in words: " of at least 1"."""
    words = []
    for bound in bounds:
        match bound:
            case at.Ge(ge=limit):
                words.append(f"of at least {limit}")
            case at.Gt(gt=limit):
                words.append(f"greater than {limit}")
            case at.Le(le=limit):
                words.append(f"of at most {limit}")
            case at.Lt(lt=limit):
                words.append(f"less than {limit}")
    return f" {' and '.join(words)}" if words else ""
