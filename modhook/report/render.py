"""Fills the template. Every text is escaped, and the page may load nothing: its policy allows its own style and images alone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup


def render(values: Mapping[str, Any], page: str = "report.html.j2") -> str:
    """Return the page. `values` come from `collect`, or for `several.html.j2` from `collect_several`."""
    folder = files("modhook.report")
    style = folder.joinpath("report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    engine = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = engine.get_template(page)
    # Escaped, the style would not be the one that the policy allows.
    return template.render(values, style=Markup(style), policy=policy)  # noqa: S704 - our own file, no user's text
