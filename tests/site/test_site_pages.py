"""Every page of the built site in a real browser, on a phone's and on a desktop's width, light and dark: `nox -s site`."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
import report_browser as chromium

ROOT = Path(__file__).parents[2]
CHECKS = (Path(__file__).parent / "site_checks.js").read_text(encoding="utf-8")
STARTED = "return document.readyState === 'complete'"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser with an empty profile."""
    assert not chromium.missing()
    with chromium.browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def pages(site: Path) -> list[str]:
    """Return the addresses of all pages, relative to the site."""
    found = sorted(p.parent.relative_to(site).as_posix() for p in site.rglob("index.html"))
    return [f"{page}/".removeprefix("./") for page in found]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_every_page_reads_well(width: int, dark: bool, site: Path, address: str, driver: Any) -> None:
    """No page scrolls sideways, says anything on the console or loads from elsewhere; headings, images, names and contrast are right."""
    from selenium.webdriver.support.wait import WebDriverWait

    faults = {}
    for page in pages(site):
        driver.get_log("browser")
        chromium.show(driver, f"{address}{page}", width, dark)
        WebDriverWait(driver, 60).until(lambda d: d.execute_script(STARTED))
        if found := driver.execute_script(CHECKS) + [entry["message"] for entry in driver.get_log("browser")]:
            faults[page] = found
    assert faults == {}


def test_there_are_the_pages_of_the_repository(site: Path) -> None:
    """README, every page of docs/, every page of the reference and every notebook is a page of the site."""
    files = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "reference").glob("*.md")]
    files += (ROOT / "studies" / "notebooks").glob("*.ipynb")
    made = {f.relative_to(ROOT).with_suffix("").as_posix().removesuffix("README").rstrip("/") for f in files}
    assert {page.rstrip("/") for page in pages(site)} >= made


@pytest.mark.parametrize("width", [400, 1280])
def test_search_finds_a_public_name(width: int, address: str, driver: Any) -> None:
    """What is typed into the search box is found, on a phone too, and the first result leads to the reference."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    chromium.show(driver, address, width)
    if width < 600:
        driver.find_element(By.CSS_SELECTOR, "header label[for=__search]").click()
    box = driver.find_element(By.CSS_SELECTOR, "input.md-search__input")
    WebDriverWait(driver, 60).until(lambda _: box.is_displayed())
    box.send_keys("iomin")
    links = "return [...document.querySelectorAll('a.md-search-result__link')].map(a => a.href)"
    found = WebDriverWait(driver, 60).until(lambda d: d.execute_script(links))
    assert any(link.partition("?")[0].startswith(f"{address}docs/reference/masks/") for link in found)


class Page(HTMLParser):
    """The places of a page, and what it links."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep ids, names, links and sources."""
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.places.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def test_every_link_leads_somewhere(site: Path) -> None:
    """Each link, image and script within the site is there, and so is the place on the page that a link names."""
    read = {page: Page(site / page / "index.html") for page in pages(site)}
    lost = []
    for page, content in read.items():
        for link in content.links:
            whole, place = urldefrag(urljoin(f"site:///{page}", link))
            target = unquote(urlsplit(whole).path).lstrip("/")
            if urlsplit(whole).scheme != "site":
                continue
            if not (site / target).exists() or (place and target in read and unquote(place) not in read[target].places):
                lost.append((page, link))
    assert sum(len(content.links) for content in read.values()) > 1000
    assert [one for one in lost if not one[1].startswith("#__")] == []


def test_checks_find_what_is_wrong(tmp_path: Path, driver: Any) -> None:
    """The checks above tell a wide, pale page with a heading too deep, an image without words and no search box from a good one."""
    start = '<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>t</title>'
    start, good = f'{start}<div class="md-container">', "<article><h1>One</h1><h2>Two</h2></article>"
    search = '<input class="md-search__input" aria-label="Search">'
    (tmp_path / "good.html").write_text(f"{start}{search}{good}</div>")
    bad = '<div style="width: 900px">wide</div><p style="color: #999">pale</p><article><h1>One</h1><h3>Three</h3></article>'
    (tmp_path / "bad.html").write_text(f'{start}{bad}<img src="gone.png"><a href="x"><i>&nbsp;</i></a></div>')
    chromium.show(driver, tmp_path / "good.html", 400)
    assert driver.execute_script(CHECKS) == []
    chromium.show(driver, tmp_path / "bad.html", 400)
    faults = "\n".join(driver.execute_script(CHECKS))
    said = ["scrolls sideways", "leaves out a level", "no alt text", "does not show", "has no name", "no search box"]
    for words in said:
        assert words in faults
    assert "too little contrast, rgb(153, 153, 153) on 255,255,255, 2.85 < 4.5" in faults
