"""What an entry point leads to must be a module with hooks: of names that there are, marked as hooks, and without arguments."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import pluggy

from modhook.errors import PluginError, listing, near_miss
from modhook.plugin import hookspecs

HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("modhook_"))


def check_hooks(manager: pluggy.PluginManager, module: Any) -> None:
    """Raise `PluginError` for a hook that is misspelt, not marked or asks for arguments, and where there is none at all."""
    file, found = getattr(module, "__file__", None) or repr(module), 0
    for name in dir(module):
        hook: Any = getattr(module, name)
        marked = manager.parse_hookimpl_opts(module, name)
        if marked is None:
            own = inspect.isfunction(hook) and hook.__module__ == getattr(module, "__name__", None)
            if own and name in HOOKS:
                raise PluginError(f"{name} in {file} is not marked as a hook; write @modhook.hookimpl above it")
            continue
        if (marked.get("specname") or name) not in HOOKS:
            if marked.get("optionalhook"):
                continue
            raise PluginError(
                f"there is no hook {name!r}{near_miss(name, HOOKS)}, which stands in {file}; the hooks are {listing(HOOKS)}"
            )
        found += 1
        asked = [p.name for p in inspect.signature(hook).parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if inspect.isfunction(hook) and asked:
            raise PluginError(f"{name} in {file} asks for {listing(asked)}, but a hook is called without arguments; leave them away")
    if not found and isinstance(module, ModuleType):
        raise PluginError(
            f"there is no hook in {file}; let the entry point name the module whose functions are marked @modhook.hookimpl"
        )
