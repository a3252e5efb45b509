"""The report in a real browser: Chromium, on a phone's and on a desktop's width, light and dark."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_browser as chromium

from modhook.plugin.manager import KINDS, Plugins, plugins
from modhook.report import write_report

pytestmark = pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing() or "all is there")

SHOWN = """
return [...document.querySelectorAll('figure img, figure svg')].map(i => [
  i.tagName != 'IMG' || i.complete, i.naturalWidth ?? 1, i.getBoundingClientRect().width, (i.alt ?? i.getAttribute('aria-label')).length])
"""
# Every text beside figures, with the contrast of its colour to what lies below it (WCAG 2), where that is less than its size asks for.
FAINT = """
const numbers = c => { const p = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  p.fillStyle = c; p.fillRect(0, 0, 1, 1); return [...p.getImageData(0, 0, 1, 1).data] };
const light = ([r, g, b]) => [r, g, b].map(x => x / 255).map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
  .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
const ground = e => { const over = [];
  for (let at = e; at; at = at.parentElement) {
    const c = numbers(getComputedStyle(at).backgroundColor); over.push(c); if (c[3] == 255) break }
  return over.reverse().reduce((below, c) =>
    c[3] == 0 ? below : below.map((x, i) => (c[i] * c[3] + x * (255 - c[3])) / 255), [255, 255, 255]) };
const known = new Map(), found = [];
for (const e of document.querySelectorAll('body *:not(figure .scroll *, figure .scroll)')) {
  if (![...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim()) || !e.getClientRects().length) continue;
  const style = getComputedStyle(e), a = light(numbers(style.color)), b = light(ground(e));
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), large = parseFloat(style.fontSize) >= 24;
  if (contrast < (large ? 3 : 4.5))
    found.push(e.tagName + '.' + e.className + ' ' + e.textContent.trim().slice(0, 30) + ' ' + contrast.toFixed(2));
}
return found;
"""
UNNAMED = """
return [...document.querySelectorAll('a, input, summary, [role=region]')]
  .filter(e => !(e.textContent.trim() && e.matches('a, summary')) && !e.getAttribute('aria-label')).map(e => e.outerHTML.slice(0, 80))
  .concat([...document.querySelectorAll('[id]')].map(e => e.id).filter((id, i, all) => all.indexOf(id) != i));
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


@pytest.fixture(scope="module")
def both_page(real: Path, one: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on both cubes; do not change it."""
    others = [e for kind in KINDS if kind != "figures" for e in plugins().entries(kind)]
    few = Plugins([*others, plugins().find("figures", "addmul_performance")], ())
    return write_report([real, one], tmp_path_factory.mktemp("pages") / "both.html", few)


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
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("page", ["real_page", "both_page"])
def test_report_reads_well(page: str, width: int, dark: bool, driver: Any, request: pytest.FixtureRequest) -> None:
    """No message, every figure shown, nothing sticks out sideways; contrast, headings, names and texts for who cannot see figures."""
    opened(driver, request.getfixturevalue(page), width, dark)
    assert driver.execute_script("return document.querySelectorAll('figure').length") >= 1
    ink, paper = driver.execute_script("const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]")
    light, deep = sorted((_luminance(ink), _luminance(paper)), reverse=True)
    assert (light + 0.05) / (deep + 0.05) >= 7  # WCAG 2, level AAA
    assert (_luminance(paper) < 0.1) is dark
    assert driver.execute_script(FAINT) == []
    assert driver.execute_script(UNNAMED) == []
    levels = driver.execute_script("return [...document.querySelectorAll('h1, h2, h3, h4')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(b - a for a, b in itertools.pairwise(levels)) == 1, "no level is left out"


@pytest.mark.parametrize("page", ["real_page", "both_page"])
def test_print_shows_everything(page: str, driver: Any, request: pytest.FixtureRequest) -> None:
    """On paper what is folded is open, with nothing cut off at the page's edge, and colours are those of light paper."""
    chromium.show(driver, request.getfixturevalue(page), 688, dark=True)  # A4 between margins of 14 mm, in CSS pixels
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        folded = "[...document.querySelectorAll('details')]"
        assert driver.execute_script(f"return {folded}.filter(d => !d.open).length") >= 1
        hidden = f"return {folded}.filter(d => d.lastElementChild.getBoundingClientRect().height == 0).length"
        assert driver.execute_script(hidden) == 0
        assert driver.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": 1017, "height": 688, "deviceScaleFactor": 1, "mobile": False}
        )
        wide = "return [...document.querySelectorAll('.many table')].filter(t => t.getBoundingClientRect().width > 1018).length"
        assert driver.execute_script(wide) == 0
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": 688, "height": 1017, "deviceScaleFactor": 1, "mobile": False}
        )
        narrow = "return [...document.querySelectorAll('main table, main pre')].filter(t => !t.closest('.many')"
        assert driver.execute_script(f"{narrow} && t.getBoundingClientRect().right > 689).map(t => t.textContent.slice(0, 60))") == []
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_figures_can_be_hovered_and_enlarged(driver: Any, real_page: Path) -> None:
    """Bars and points have titles with their values; a figure is larger while its box is ticked, without a script."""
    opened(driver, real_page, 1280)
    titles = driver.execute_script("return [...document.querySelectorAll('figure svg title')].map(t => t.textContent)")
    assert len(titles) > 10
    assert all(t.rpartition(": ")[2].strip() for t in titles)
    width = "return document.querySelector('figure svg').getBoundingClientRect().width"
    before = driver.execute_script(width)
    driver.find_element("css selector", "figure .zoom input").click()
    assert driver.execute_script(width) > 1.5 * before
    assert driver.execute_script("return document.scripts.length") == 0


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
