"""A notebook as Markdown, with its stored outputs; nothing is run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import DictLoader
from nbconvert import MarkdownExporter

# Figures stay in the page, and are described by the heading above them.
_TEMPLATE = """
{%- extends "markdown/index.md.j2" -%}
{%- block input %}
```python
{{ cell.source }}
```
{% endblock input -%}
{%- block data_png %}
<div class="output"><img src="data:image/png;base64,{{ output.data["image/png"] | trim }}" alt="{{ cell.metadata.alt }}"></div>
{% endblock data_png -%}
{%- block data_html %}
<div class="output" tabindex="0" role="region" aria-label="{{ cell.metadata.alt }}">{{ output.data["text/html"] | oneline }}</div>
{% endblock data_html -%}
{%- block stream %}
```{ .text .output }
{{ output.text | trim("\n") }}
```
{% endblock stream -%}
{%- block data_text %}
```{ .text .output }
{{ output.data["text/plain"] | trim("\n") }}
```
{% endblock data_text -%}
"""


def markdown(path: Path) -> str:
    """Return the notebook's cells and outputs as one page."""
    found = nbformat.read(path, as_version=4)
    heading = path.stem
    for cell in found.cells:
        if cell.cell_type == "markdown" and (said := re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)):
            heading = said[-1]
        cell.metadata["alt"] = f"Output: {_plain(heading)}"
        for output in cell.get("outputs", []):
            _without_xarray(output)
    exporter = MarkdownExporter(extra_loaders=[DictLoader({"site.md.j2": _TEMPLATE})], template_file="site.md.j2")
    exporter.register_filter("oneline", _oneline)
    text: str = exporter.from_notebook_node(found)[0]
    return text


def _without_xarray(output: Any) -> None:
    """Leave xarray's text: its HTML brings colours of its own, which a dark page makes unreadable."""
    if "xr-text-repr-fallback" in output.get("data", {}).get("text/html", ""):
        del output["data"]["text/html"]


def _plain(heading: str) -> str:
    return re.sub(r"[`*\"<>&]", "", heading)


def _oneline(html: Any) -> str:
    """Return HTML without empty lines, which would end it as a block of Markdown."""
    return re.sub(r"\n\s*\n+", "\n", str(html)).strip()
