"""Imports mathematics_dataset 1.0.1 on today's numpy and sympy, without changing what is installed.

Its file `sample/polynomials.py` uses three names that have moved or gone since: sympy's `base_solution_linear`, `np.object`
and `ndarray.itemset`. The file is read, these lines are replaced in memory, and the result is put where an import finds it.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from typing import Any

from modhook.errors import DataError

PACKAGE = "mathematics_dataset"
_MODULE = f"{PACKAGE}.sample.polynomials"
_FIXES = (  # old, new, how often
    ("from sympy.solvers.diophantine import base", "from sympy.solvers.diophantine.diophantine import base", 1),
    ("dtype=np.object)", "dtype=object)", 3),
    ("coeffs.itemset(index, value)", "coeffs[index] = value", 1),
    ("expanded_coefficients.itemset(power, coeffs)", "expanded_coefficients[power] = coeffs", 1),
)


def installed() -> bool:
    """Whether the package is there; nothing of it is imported."""
    return importlib.util.find_spec(PACKAGE) is not None


def fixed(source: str) -> str:
    """Return the source of `sample/polynomials.py` with its fixes. Raises `DataError` if it is not that of version 1.0.1."""
    for old, new, times in _FIXES:
        if source.count(old) != times:
            raise DataError(
                f"the installed {PACKAGE} is not version 1.0.1: its sample/polynomials.py has {old!r} {source.count(old)} "
                f'times and not {times}; install it with `pip install "modhook[mathematics]"`.'
            )
        source = source.replace(old, new)
    return source


class _Fixing(importlib.machinery.SourceFileLoader):
    """Loads a source file with its fixes."""

    def source_to_code(self, data: Any, path: Any, **options: Any) -> Any:  # type: ignore[override]
        """Return the code of the fixed source; importlib runs it as it does any module's."""
        return super().source_to_code(fixed(importlib.util.decode_source(data)).encode(), path, **options)

    def path_stats(self, path: Any) -> Any:
        """Say that there is no time of change: compiled code that was kept is of the file as it was."""
        raise OSError("this module is compiled anew in every process")


def import_fixed() -> None:
    """Make the fixed module importable; the first thing to do in a process that generates. Raises `DataError`."""
    if _MODULE in sys.modules:
        return
    if not installed():
        raise DataError(
            f'generating questions needs the package {PACKAGE}; install it with `pip install "modhook[mathematics]"`.'
        )
    found = importlib.util.find_spec(_MODULE)
    if found is None or not isinstance(found.loader, importlib.machinery.SourceFileLoader):
        raise DataError(f"the installed {PACKAGE} has no source file sample/polynomials.py; install version 1.0.1.")
    loader = _Fixing(_MODULE, found.loader.path)
    spec = importlib.util.spec_from_loader(_MODULE, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[_MODULE]
        raise
    sys.modules[f"{PACKAGE}.sample"].polynomials = module  # type: ignore[attr-defined]
