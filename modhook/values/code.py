"""Compiled code as text that tells it from other code, where nobody has its source or only the code counts."""

from __future__ import annotations

import hashlib
import re
import types
from typing import Any


def compiled(code: types.CodeType) -> str:
    """Return a digest of compiled code and of what is compiled inside it, which is the same in every process of one Python."""
    constants = [compiled(c) if isinstance(c, types.CodeType) else repr(_ordered(c)) for c in code.co_consts]
    found = hashlib.blake2b(code.co_code, digest_size=8)
    found.update(re.sub(r" at 0x[0-9a-f]+", "", repr((constants, code.co_names, code.co_varnames))).encode())
    return found.hexdigest()


def _ordered(constant: Any) -> Any:
    """Return a constant as every process writes it, a set in order."""
    return sorted(constant, key=repr) if isinstance(constant, frozenset) else constant
