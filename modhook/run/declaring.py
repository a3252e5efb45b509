"""What an analysis declares, looked at before anything is laid out or computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from modhook.errors import ModhookError, PluginError
from modhook.plugin.culprit import told
from modhook.plugin.interfaces import Analysis, Task
from modhook.plugin.variables import Variable

T = TypeVar("T")
_OURS = ("scores", "masks", "history", "runs", "timing")
"""Groups that no analysis writes into."""


def variables_of(name: str, analysis: Analysis, task: Task) -> tuple[Variable, ...]:
    """Return the variables that an analysis declares. Raises `PluginError` for what is no declaration."""
    what = f"variables of the analysis {name!r}"
    found: Any = _asked(what, lambda: analysis.variables(task))
    if isinstance(found, Variable):
        raise PluginError(f"{what} must return a tuple, not one Variable: write (Variable(...),).")
    if isinstance(found, str) or not isinstance(found, Sequence) or not all(isinstance(v, Variable) for v in found):
        raise PluginError(f"{what} must return a tuple of modhook.Variable, not {found!r:.80}.")
    names = [variable.name for variable in found]
    if again := next((n for n in names if names.count(n) > 1), None):
        raise PluginError(f"{what} declares {again} twice; rename one of them.")
    for variable in found:
        if variable.name.partition("/")[0] in _OURS:
            group = variable.name.partition("/")[0]
            raise PluginError(
                f"{what} declares {variable.name}, but the group {group!r} is modhook's own; name another, such as {name}/{variable.short}."
            )
    return tuple(found)


def labels_of(name: str, analysis: Analysis, task: Task, stages: Sequence[str]) -> Mapping[str, Sequence[Any]]:
    """Return the labels of dimensions that only this analysis has. Raises `PluginError`."""
    what = f"labels of the analysis {name!r}"
    found: Any = _asked(what, lambda: analysis.labels(task, stages))
    lists = isinstance(found, Mapping) and not any(isinstance(v, str) or not isinstance(v, Sequence) for v in found.values())
    if not lists:
        raise PluginError(f"{what} must return {{dimension: list of labels}}, not {found!r:.80}.")
    if twice := next((dim for dim, labels in found.items() if len(set(labels)) < len(labels)), None):
        raise PluginError(f"{what} gives {twice!r} one label twice; every label must be there once.")
    result: Mapping[str, Sequence[Any]] = found
    return result


def once(declared: Mapping[str, Sequence[Variable]]) -> None:
    """Raise `PluginError` where two analyses, {name: variables}, declare the same variable."""
    owners: dict[str, str] = {}
    for name, variables in declared.items():
        for variable in variables:
            owner = owners.setdefault(variable.name, name)
            if owner != name:
                raise PluginError(
                    f"{variable.name} is declared by the analyses {owner!r} and {name!r}; leave one out, or let one name it otherwise."
                )


def _asked(what: str, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except ModhookError:
        raise
    except Exception as error:
        raise PluginError(f"{what} fails: {told(error)}.") from error
