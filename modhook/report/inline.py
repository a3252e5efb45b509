"""A figure's SVG inside the page: it can be hovered, and the page's policy still holds, for it has no script, style, event or address."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

MOST = 400_000
"""A longer SVG, in bytes, is shown as an image: pages of many thousand marks open slowly."""
_ELEMENTS = {"svg", "g", "defs", "path", "use", "clipPath", "rect", "circle", "text", "tspan", "image", "pattern", "title"}
_DROPPED = {"metadata", "style", "desc"}
_STROKE = {"width", "opacity", "linejoin", "linecap", "dasharray", "dashoffset", "miterlimit"}
_STYLES = {"stroke", *(f"stroke-{part}" for part in _STROKE), *(f"font-{part}" for part in ("size", "family", "style", "weight"))}
_STYLES |= {"fill", "fill-opacity", "fill-rule", "opacity", "text-anchor", "image-rendering"}
_PLACES = {"x", "y", "dx", "dy", "width", "height", "rx", "ry", "cx", "cy", "r", "d", "transform", "viewBox", "preserveAspectRatio"}
_ATTRIBUTES = _STYLES | _PLACES | {"id", "clip-path", "href", "patternUnits"}
_ADDRESS = re.compile(r"#[\w.-]+|data:image/png;base64,[A-Za-z0-9+/=\s]+")
_REFERENCE = re.compile(r"url\(#([\w.-]+)\)")
_FONT = re.compile(r"^(?:(italic|oblique|normal)\s+)?(?:(bold|\d{3}|normal)\s+)?([\d.]+px)\s+(.+)$")


def inline(svg: str, label: str, titles: Mapping[str, Sequence[str]]) -> str | None:
    """Return the SVG as markup for the page; None where it has something that is not known to be harmless, or is too long.

    Args:
        svg: what matplotlib wrote.
        label: what the figure shows, for whoever cannot see it.
        titles: {id of a group: what its marks say when they are hovered, one for all of them or one each}.
    """
    if len(svg.encode()) > MOST:
        return None
    try:
        root = ET.fromstring(svg)  # noqa: S314 - matplotlib wrote it just now
    except ET.ParseError:
        return None
    own = f"f{hashlib.sha256(f'{label}{svg}'.encode()).hexdigest()[:8]}-"
    found = _copied(root, own, titles)
    if found is None:
        return None
    for name in ("width", "height"):
        found.attrib.pop(name, None)
    found.attrib |= {"role": "img", "aria-label": label, "stroke-linejoin": "round", "stroke-linecap": "butt"}
    return ET.tostring(found, encoding="unicode", short_empty_elements=False)


def _copied(element: ET.Element, own: str, titles: Mapping[str, Sequence[str]]) -> ET.Element | None:
    """Return an element with all below it, every name in it with `own` before it; None where something is unknown."""
    tag = _local(element.tag)
    attributes = {_local(name): value for name, value in element.attrib.items()}
    if tag not in _ELEMENTS or any(name.startswith("on") for name in attributes):
        return None
    styles = dict(_declared(attributes.pop("style", "")))
    kept = {name: value for name, value in {**attributes, **styles}.items() if name in _ATTRIBUTES}
    if "href" in kept and not _ADDRESS.fullmatch(kept["href"]):
        return None
    for name, value in kept.items():
        if name == "id":
            kept[name] = own + value
        elif name == "href" and value.startswith("#"):
            kept[name] = f"#{own}{value[1:]}"
        elif "url(" in value:
            kept[name], count = _REFERENCE.subn(rf"url(#{own}\1)", value)
            if count != value.count("url("):
                return None
    made = ET.Element(tag, kept)
    made.text, made.tail = element.text, element.tail
    for child in element:
        if _local(child.tag) in _DROPPED:
            continue
        copied = _copied(child, own, titles)
        if copied is None:
            return None
        made.append(copied)
    if said := titles.get(attributes.get("id", "")):
        _say(made, said)
    return made


def _say(group: ET.Element, said: Sequence[str]) -> None:
    """Give each mark of a group its title, or the group one for all."""
    marks = list(group.iter("use"))
    each = list(zip(marks, said, strict=True)) if len(marks) == len(said) > 0 else [(group, said[0])] if len(said) == 1 else []
    for element, text in each:
        title = ET.Element("title")
        title.text = text
        element.insert(0, title)


def _declared(style: str) -> list[tuple[str, str]]:
    """Return the declarations of a style, its `font` taken apart: as attributes they need no leave of the page's policy."""
    found = []
    for part in style.split(";"):
        name, _, value = (x.strip() for x in part.partition(":"))
        if name == "font" and (font := _FONT.match(value)):
            names = ("font-style", "font-weight", "font-size", "font-family")
            found += [(n, v) for n, v in zip(names, font.groups(), strict=True) if v]
        elif name in _STYLES:
            found.append((name, value))
    return found


def _local(name: str) -> str:
    return name.rpartition("}")[2]
