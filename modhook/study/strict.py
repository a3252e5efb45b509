"""The strict converter: plain TOML values into frozen attrs classes, without guessing.

3.7 is no whole number, "false" is no truth value, true is no number, inf is refused; a whole number is fine where any
number is. Bounds are written in the annotation (`Annotated[int, Ge(1)]`, from `annotated_types`).
"""

from __future__ import annotations

import enum
import numbers
import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import attrs
from cattrs import Converter, IterableValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn

from modhook.errors import near_miss
from modhook.values.bounds import OutOfBounds, Rejected, check_bounds
from modhook.values.numbers import is_truth, real, truth, whole
from modhook.values.text import written

Hook = Callable[[Any, Any], Any]


def text(value: Any, _: Any = None) -> str:
    """Return a text as it is."""
    if not isinstance(value, str):
        raise Rejected(f"{written(value)} is not a text in quotes")
    return value


def plain(value: Any, _: Any = None) -> Any:
    """Return any finite TOML value but dates and times, as it is; for options that are passed through."""
    if isinstance(value, Mapping):
        return _table({str(k): (plain, Any, v) for k, v in value.items()}, Any)
    if isinstance(value, list | tuple):
        return _list([(plain, Any, v) for v in value], Any)
    if value is None or isinstance(value, str):
        return value
    if is_truth(value):
        return truth(value)
    if isinstance(value, numbers.Integral):
        return whole(value)
    if isinstance(value, numbers.Real):
        return real(value)
    raise Rejected(f"{written(value)} is no number, text, truth value, list or table")


def _list(items: Sequence[tuple[Hook, Any, Any]], cls: Any) -> list[Any]:
    return list(_table(dict(enumerate(items)), cls).values())


def _table(items: Mapping[Any, tuple[Hook, Any, Any]], cls: Any) -> dict[Any, Any]:
    """Structure every item, and report all that fail together, each noted with its key or index."""
    done, failed = {}, []
    for key, (hook, wanted, value) in items.items():
        try:
            done[key] = hook(value, wanted)
        except Exception as error:
            error.add_note(IterableValidationNote(f"at {key!r}", key, wanted))
            failed.append(error)
    if failed:
        raise IterableValidationError("items", failed, cls)
    return done


def _any_of(cls: Any, converter: Converter) -> Hook:
    members = [m for m in get_args(cls) if m is not NoneType]
    optional = NoneType in get_args(cls)
    hooks: list[tuple[Hook, Any]] = [(converter.get_structure_hook(m), m) for m in members]

    def structure(value: Any, _: Any) -> Any:
        if value is None and optional:
            return None
        failures = []
        for hook, member in hooks:
            try:
                return hook(value, member)
            except Exception as error:
                failures.append(error)
        # A value of the right kind: the bound says more than a list of kinds.
        if len(failures) == 1 or (failures := [f for f in failures if isinstance(f, OutOfBounds)]):
            raise failures[0]
        raise Rejected(f"{written(value)} is none of: {', '.join(_spoken(m) for m in members)}")

    return structure


def _spoken(cls: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    if get_origin(cls) is Annotated:
        return _spoken(cls.__origin__)
    if get_origin(cls) is Literal:
        return " or ".join(written(v) for v in get_args(cls))
    if (get_origin(cls) or cls) in (list, tuple, Sequence):
        return "a list"
    return names.get(cls, "a table" if (get_origin(cls) or cls) in (dict, Mapping) or attrs.has(cls) else str(cls))


def _one_of(value: Any, valid: Sequence[Any]) -> None:
    if not any(type(value) is type(v) and value == v for v in valid):
        hint = near_miss(value, [v for v in valid if isinstance(v, str)]) if isinstance(value, str) else ""
        raise Rejected(f"{written(value)} is none of {', '.join(written(v) for v in valid)}{hint}")


def _literal(value: Any, cls: Any) -> Any:
    _one_of(value, get_args(cls))
    return value


def _member(value: Any, cls: Any) -> Any:
    _one_of(value, [m.value for m in cls])
    return cls(value)


def _bounded(cls: Any, converter: Converter) -> Hook:
    inner, *metadata = get_args(cls)
    hook = converter.get_structure_hook(inner)

    def structure(value: Any, _: Any) -> Any:
        done = hook(value, inner)
        check_bounds(done, metadata)
        return done

    return structure


def _sequence(cls: Any, converter: Converter) -> Hook:
    kind, members = get_origin(cls) or cls, get_args(cls)
    make = kind if kind in (list, tuple, set, frozenset) else tuple
    fixed = make is tuple and members and members[-1] is not Ellipsis
    members = members if fixed else (members[0] if members else Any,)
    hooks: list[tuple[Hook, Any]] = [(converter.get_structure_hook(m), m) for m in members]

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise Rejected(f"{written(value)} is not a list; write {written([value])}")
        if fixed and len(value) != len(hooks):
            raise Rejected(f"{written(value)} must have {len(hooks)} entries, not {len(value)}")
        each = hooks if fixed else hooks * len(value)
        return make(_list([(hook, member, v) for (hook, member), v in zip(each, value, strict=True)], cls))

    return structure


def _mapping(cls: Any, converter: Converter) -> Hook:
    member = (get_args(cls) or (str, Any))[1]
    hook = converter.get_structure_hook(member)

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise Rejected(f"{written(value)} is not a table")
        return _table({k: (hook, member, v) for k, v in value.items()}, cls)

    return structure


def _attrs(cls: Any, converter: Converter) -> Hook:
    fields = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True)

    def structure(value: Any, wanted: Any) -> Any:
        if not isinstance(value, Mapping):
            raise Rejected(f"{written(value)} is not a table")
        return fields(value, wanted)

    return structure


def _of(*kinds: Any) -> Callable[[Any], bool]:
    return lambda cls: (get_origin(cls) or cls) in kinds


def _is_any(cls: Any) -> bool:
    return cls is Any or cls is object


def _is_enum(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, enum.Enum)


def _is_attrs(cls: Any) -> bool:
    return attrs.has(get_origin(cls) or cls)


def converter() -> Converter:
    """Return a new strict converter."""
    made = Converter(detailed_validation=True, forbid_extra_keys=True)
    for cls, hook in ((int, whole), (float, real), (bool, truth), (str, text)):
        made.register_structure_hook(cls, hook)
    made.register_structure_hook(pathlib.Path, lambda value, _: pathlib.Path(text(value)))
    made.register_structure_hook_func(_is_any, plain)
    made.register_structure_hook_func(_is_enum, _member)
    made.register_structure_hook_func(_of(Literal), _literal)
    register: Any = made.register_structure_hook_factory  # its overloads do not know factories that take the converter
    register(_of(list, tuple, set, frozenset, Sequence), _sequence)
    register(_of(dict, Mapping), _mapping)
    register(_is_attrs, _attrs)
    register(_of(Union, UnionType), _any_of)
    register(_of(Annotated), _bounded)
    return made
