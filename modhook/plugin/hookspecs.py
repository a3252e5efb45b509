"""Every hook of modhook. A plugin implements the ones it wants with `@modhook.hookimpl`.

Hooks return *specs* - a name, one line, and where the object lives - and never the object itself, so that `modhook list`
and `--help` import neither torch nor xarray, whatever is installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import attrs
import pluggy

PROJECT = "modhook"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as one of the hooks below: `@modhook.hookimpl` above `def modhook_tasks():`."""


def _target(_: Any, attribute: attrs.Attribute[Any], value: str) -> None:
    module, colon, name = value.partition(":")
    if not (module and colon and name):
        raise ValueError(f"{attribute.name} must be 'package.module:Object', not {value!r}")


def _name(_: Any, __: Any, value: Any) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", value):
        raise ValueError(f"the name of a Spec must be made of letters a to z, digits, - and _, not {value!r:.80}")


def _summary(_: Any, __: Any, value: Any) -> None:
    if not isinstance(value, str) or not value.strip() or len(value.splitlines()) > 1:
        raise ValueError(f"the summary of a Spec must be one line of text, not {value!r:.80}")


@attrs.frozen
class Spec:
    """One thing a plugin brings: its name, one line of description, and where it is (`"package.module:Object"`)."""

    name: str = attrs.field(validator=_name)
    summary: str = attrs.field(validator=_summary)
    target: str = attrs.field(validator=_target)


@hookspec
def modhook_tasks() -> Iterable[Spec]:  # type: ignore[empty-body]
    """Return the tasks this plugin brings; each target is a `modhook.Task`."""


@hookspec
def modhook_models() -> Iterable[Spec]:  # type: ignore[empty-body]
    """Return the networks this plugin brings; each target is a `modhook.Model`."""


@hookspec
def modhook_analyses() -> Iterable[Spec]:  # type: ignore[empty-body]
    """Return the analyses this plugin brings; each target is a `modhook.Analysis`."""


@hookspec
def modhook_figures() -> Iterable[Spec]:  # type: ignore[empty-body]
    """Return the figures this plugin brings; each target is a `modhook.Figure`."""


@hookspec
def modhook_samplers() -> Iterable[Spec]:  # type: ignore[empty-body]
    """Return the mask samplers this plugin brings; each target is a `modhook.Sampler`."""


@hookspec
def modhook_protocols() -> Iterable[Spec]:  # type: ignore[empty-body]
    """Return the protocols this plugin brings; each target is a `modhook.Protocol`."""


@hookspec
def modhook_trackers() -> Iterable[Spec]:  # type: ignore[empty-body]
    """Return the trackers this plugin brings; each target is a `modhook.Tracker`."""
