"""The attributes of an object whose class has `__slots__`, as a dictionary: `attrs.define` and `dataclass(slots=True)` make such."""

from __future__ import annotations

import types
import weakref
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

_KNOWN: weakref.WeakKeyDictionary[type, dict[str, Any]] = weakref.WeakKeyDictionary()


def slots_of(kind: type) -> Mapping[str, Any]:
    """Return {name: descriptor} of the slots that Python classes among a type's bases declare."""
    found = _KNOWN.get(kind)
    if found is None:
        found = _KNOWN[kind] = {
            name: member
            for base in reversed(kind.__mro__)  # where two declare a name, the first one's slot is seen
            if "__slots__" in vars(base)
            for name, member in vars(base).items()
            if isinstance(member, types.MemberDescriptorType)
        }
    return found


class Slots(MutableMapping[str, Any]):
    """A live view of the attributes in slots, and of those in `__dict__` where there is one; it writes into frozen objects too."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._members = slots_of(type(owner))
        self._others: dict[str, Any] = getattr(owner, "__dict__", {})

    def __getitem__(self, name: str) -> Any:
        if name not in self._members:
            return self._others[name]
        try:
            return self._members[name].__get__(self._owner)
        except AttributeError:  # not set
            raise KeyError(name) from None

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self._members:
            self._members[name].__set__(self._owner, value)
        else:
            self._others[name] = value

    def __delitem__(self, name: str) -> None:
        if name in self._members:
            self._members[name].__delete__(self._owner)
        else:
            del self._others[name]

    def __iter__(self) -> Iterator[str]:
        for name, member in self._members.items():
            try:
                member.__get__(self._owner)
            except AttributeError:
                continue
            yield name
        yield from self._others

    def __len__(self) -> int:
        return sum(1 for _ in self)
