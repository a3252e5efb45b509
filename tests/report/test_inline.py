"""Figures inside the page: what their marks say, and that nothing but shapes, text and pictures gets in."""

from __future__ import annotations

import io
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from matplotlib.figure import Figure

from modhook.plotting.settings import defaults
from modhook.report.hover import hovered
from modhook.report.inline import MOST, inline

SVG = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 9 9">{}</svg>'


def drawn(figure: Figure) -> tuple[str, dict[str, list[str]]]:
    """A figure's SVG as the report makes it, and what its marks say."""
    figure.draw_without_rendering()
    titles = hovered(figure)
    file = io.StringIO()
    with defaults("x"):
        figure.savefig(file, format="svg")
    return file.getvalue(), titles


def said(markup: str) -> list[str]:
    """The titles in the order of the page."""
    return [str(e.text) for e in ET.fromstring(markup).iter("title")]


def test_bars_and_points_say_their_values() -> None:
    """A bar says its name, its series and its height; a point its place and its value, those that are not drawn left out."""
    figure = Figure()
    left, right = figure.subplots(1, 2)
    left.bar([0, 1], [0.25, 97.5], 0.4, label="sums")
    left.set_xticks([0, 1], ["control", "add"])
    right.plot([1e-4, 1e-3, 1e-2], [3.0, float("nan"), 12345.678], "o-", label="mul <b>")
    right.plot([1e-4, 1e-2], [1, 2])
    right.set_xscale("log")
    markup = inline(*(lambda svg, titles: (svg, "two panels", titles))(*drawn(figure)))
    assert markup is not None
    assert said(markup) == ["control, sums: 0.25", "add, sums: 97.5", "0.0001, mul <b>: 3", "0.01, mul <b>: 1.235e+04"]


def test_what_is_inside_is_the_page_s_own() -> None:
    """No style that the policy would have to allow, and names that two figures of a page do not share; references follow them."""
    pages = []
    for value in (1, 2):
        figure = Figure()
        figure.subplots().bar([0], [value], hatch="//")
        markup = inline(*(lambda svg, titles: (svg, "bars", titles))(*drawn(figure)))
        assert markup is not None
        root = ET.fromstring(markup)
        assert {"style", "script", "metadata"} & {e.tag for e in root.iter()} == set()
        names = {e.get("id") for e in root.iter()} - {None}
        for element in root.iter():
            assert "style" not in element.attrib
            for value_ in element.attrib.values():
                if "url(" in value_:
                    assert value_.removeprefix("url(#").removesuffix(")") in names
            assert element.get("href", "#").startswith("#")
            assert element.get("href", "#")[1:] in {*names, ""}
        assert (root.get("role"), root.get("aria-label")) == ("img", "bars")
        pages.append(names)
    assert not pages[0] & pages[1]


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        '<path d="M0 0" onload="alert(1)"/>',
        '<image xlink:href="https://example.org/x.png"/>',
        '<image xlink:href="javascript:alert(1)"/>',
        '<a xlink:href="https://example.org"><path d="M0 0"/></a>',
        "<foreignObject><p>text</p></foreignObject>",
        '<rect fill="url(https://example.org/x)"/>',
        '<rect style="fill: url(//example.org/x)"/>',
        "<animate attributeName='href' to='javascript:alert(1)'/>",
        "<path",
        f"<text>{'x' * MOST}</text>",
    ],
)
def test_anything_else_stays_an_image(inside: str) -> None:
    """What is not known to be harmless, broken or very long is not put into the page."""
    assert inline(SVG.format(inside), "x", {}) is None
    assert inline(SVG.format('<path d="M0 0" style="fill: #ffffff; cursor: url(x)"/>'), "x", {}) is not None


def test_fonts_need_no_style() -> None:
    """The shorthand of a font becomes attributes, which a page without inline styles shows."""
    style = "font: italic bold 7.5px 'DejaVu Sans', sans-serif; text-anchor: middle"
    found: Any = inline(SVG.format(f'<text style="{style}">a</text>'), "x", {})
    text = next(ET.fromstring(found).iter("text"))
    font = {"font-style": "italic", "font-weight": "bold", "font-size": "7.5px", "font-family": "'DejaVu Sans', sans-serif"}
    assert text.attrib == {**font, "text-anchor": "middle"}
