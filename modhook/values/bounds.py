"""Bounds written in an annotation (`Annotated[int, Ge(1)]`), and their messages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any

import annotated_types as at
import attrs

from modhook.values.text import written

Count = Annotated[int, at.Ge(1)]
CountOrZero = Annotated[int, at.Ge(0)]
Positive = Annotated[float, at.Gt(0)]
NotNegative = Annotated[float, at.Ge(0)]


class Rejected(ValueError):
    """One value is refused; the text says why, without its path."""


class OutOfBounds(Rejected):
    """A value of the right kind that breaks a bound."""


@attrs.frozen
class Matches:
    """The text must match `pattern` as a whole; `what` says it in words."""

    pattern: str
    what: str


PLAIN_NAME = Matches(r"[A-Za-z0-9_-]{1,100}", "made of letters, digits, - and _ (1 to 100 of them)")
"""What a study or a variant may be called: it becomes a file name."""


def check_bounds(value: Any, metadata: Iterable[Any]) -> None:
    """Raise `Rejected` for the first bound that the value breaks. Unknown metadata is left alone."""
    for bound in metadata:
        if isinstance(bound, at.GroupedMetadata):
            check_bounds(value, bound)
        elif text := _broken(value, bound):
            raise OutOfBounds(f"must {text}, not {written(value)}")


def _broken(value: Any, bound: Any) -> str:
    """Return what the value must do and does not, or an empty text."""
    match bound:
        case at.Ge(ge=limit) if not value >= limit:
            return f"be at least {written(limit)}"
        case at.Gt(gt=limit) if not value > limit:
            return f"be greater than {written(limit)}"
        case at.Le(le=limit) if not value <= limit:
            return f"be at most {written(limit)}"
        case at.Lt(lt=limit) if not value < limit:
            return f"be less than {written(limit)}"
        case at.MultipleOf(multiple_of=step) if value % step != 0:
            return f"be a multiple of {written(step)}"
        case at.MinLen(min_length=limit) if len(value) < limit:
            return "not be empty" if limit == 1 else f"have at least {limit} entries"
        case at.MaxLen(max_length=limit) if len(value) > limit:
            return f"have at most {limit} entries"
        case Matches() if not re.fullmatch(bound.pattern, value):
            return f"be {bound.what}"
    return ""
