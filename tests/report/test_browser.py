"""The report in a real browser: Chromium, on a phone's and on a desktop's width, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_browser as chromium

from modhook.plugin.manager import plugins
from modhook.report import write_report

pytestmark = pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing() or "all is there")

SHOWN = """
return [...document.images].map(i => [i.complete, i.naturalWidth, i.getBoundingClientRect().width, i.alt.length])
"""
WIDER = """
const width = document.documentElement.clientWidth;
return [...document.querySelectorAll('body *')]
  .filter(e => !e.closest('.scroll') && e.getBoundingClientRect().right > width + 0.5)
  .map(e => e.tagName + ' ' + e.className);
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser with an empty profile."""
    with chromium.browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def opened(driver: Any, page: Path, width: int, dark: bool = False) -> None:
    """Open a page with everything unfolded, and check what holds for every report at every width."""
    driver.get_log("browser")
    chromium.show(driver, page, width, dark)
    driver.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert driver.get_log("browser") == []
    root = "return document.documentElement"
    assert driver.execute_script(f"{root}.scrollWidth") <= driver.execute_script(f"{root}.clientWidth") <= width
    assert driver.execute_script(WIDER) == []
    for complete, natural, drawn, alt in driver.execute_script(SHOWN):
        assert complete
        assert min(natural, drawn, alt) > 0


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1200])
def test_report_reads_well(width: int, dark: bool, driver: Any, real_page: Path) -> None:
    """No console message, every figure shown, nothing sticks out sideways; text and ground differ enough to be read."""
    opened(driver, real_page, width, dark)
    assert driver.execute_script("return document.images.length") >= 1
    ink, paper = driver.execute_script("const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]")
    light, deep = sorted((_luminance(ink), _luminance(paper)), reverse=True)
    assert (light + 0.05) / (deep + 0.05) >= 7  # WCAG 2, level AAA
    assert (_luminance(paper) < 0.1) is dark


def test_style_is_applied(driver: Any, one_page: Path) -> None:
    """The policy lets the page's own style through: the wide tables scroll in their own boxes."""
    opened(driver, one_page, 400)
    boxes = driver.execute_script(
        "return [...document.querySelectorAll('.scroll')].map(b => [getComputedStyle(b).overflowX, b.scrollWidth - b.clientWidth])"
    )
    assert {overflow for overflow, _ in boxes} == {"auto"}
    assert max(more for _, more in boxes) > 0


def test_hostile_text_does_nothing(driver: Any, make: Any, tmp_path: Path) -> None:
    """Markup, endless words and lines in a study's texts neither run, nor load, nor push the page sideways."""
    text = "<script>document.title='gone'</script><img src=x onerror=\"document.title='gone'\">" + "endless" * 60
    attrs = {"study": {"study": {"name": text, "description": f"{text}\n" * 3}, "task": {"name": text}}}
    cube = make(tmp_path / "c.zarr", np.full((1, 4, 3), 0.5), attrs, ("a", text))
    cube.set_status({"seed": 1, "model.kind": text}, "mul", "failed", reason=text)
    opened(driver, write_report(cube.path, tmp_path / "r.html", plugins()), 400)
    foreign = "[...document.images].filter(i => !i.src.startsWith('data:image/')).length"
    assert driver.execute_script(f"return [document.scripts.length, {foreign}]") == [0, 0]
    assert driver.title == "c · modhook report"
    assert text in driver.execute_script("return document.body.textContent")


def test_policy_stops_what_is_put_in(driver: Any, one_page: Path, tmp_path: Path) -> None:
    """Were markup ever let through, the page's policy would still neither run a script nor load an image from elsewhere."""
    page = tmp_path / "attacked.html"
    (tmp_path / "x.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    attack = "<img id=in src=x.svg><script>document.title='gone'</script>"
    page.write_text(one_page.read_text(encoding="utf-8").replace("<main>", f"<main>{attack}"), encoding="utf-8")
    chromium.show(driver, page, 400)
    assert driver.title == "tiny-one · modhook report"
    assert driver.execute_script("return document.getElementById('in').naturalWidth") == 0
    assert len(driver.get_log("browser")) >= 2


def _luminance(color: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, by the formula of WCAG 2."""
    parts = [int(p) / 255 for p in color.removeprefix("rgb(").removesuffix(")").split(",")]
    r, g, b = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
