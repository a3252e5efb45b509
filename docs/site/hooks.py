"""What mkdocs is told beyond mkdocs.yml: the tree of the repository, its navigation, notebooks, and faults of the reference.

Pages keep the place that they have in the repository, so that one link serves both the site and whoever reads the files.
"""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import notebook  # noqa: E402
import reference  # noqa: E402

LOG = logging.getLogger("mkdocs.hooks.modhook")
PLACES = reference.places()
BESIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff")
"""Pages and files outside docs/."""
_FILE_LINK = re.compile(r"\[`?([\w./-]+\.(?:md|ipynb))`?\]\(([\w./-]+\.(?:md|ipynb)(?:#[\w-]*)?)\)")
_PUBLIC_NAME = re.compile(r"(?<!\[)`(modhook(?:\.\w+)+)([^`]*)`(?!\])")


def on_config(config: Any) -> None:
    """Read the navigation from docs/README.md, and say what is wrong with the reference: in a strict build each ends it."""
    config.nav = navigation(ROOT / "docs" / "README.md")
    for fault in reference.faults():
        LOG.warning(fault)


def on_files(files: Files, config: Any) -> Files:
    """Put the files of docs/ where they are in the repository, with the README and the notebooks beside them."""
    inside = [f for f in files if f.src_dir == config.docs_dir and f.inclusion.is_included()]
    kept = [f for f in files if f.src_dir != config.docs_dir]
    names = [*BESIDE, *(f"docs/{f.src_uri}" for f in inside)]
    kept += [File(name, str(ROOT), config.site_dir, config.use_directory_urls) for name in names]
    for path in sorted((ROOT / "studies" / "notebooks").glob("*.ipynb")):
        name = path.relative_to(ROOT).as_posix()
        kept.append(NotebookFile(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return Files(kept)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Call linked pages by their titles, where the files say their names, and link public names to the reference."""
    folder = (ROOT / page.file.src_uri).parent
    lines, code = [], False
    for line in markdown.split("\n"):
        code ^= line.startswith("```")
        if not code and not line.startswith(("#", "<")):
            line = _FILE_LINK.sub(lambda found: f"[{_title(folder, found)}]({found[2]})", line)
            line = _PUBLIC_NAME.sub(_linked_name, line)
        lines.append(line)
    return "\n".join(lines)


class NotebookFile(File):
    """A notebook, which becomes a page with the outputs that are stored in it."""

    def is_documentation_page(self) -> bool:
        """Return that it is rendered, not copied."""
        return True

    @property
    def content_string(self) -> str:
        """The notebook as Markdown."""
        return notebook.markdown(ROOT / self.src_uri)


def navigation(index: Path) -> list[Any]:
    """Return the navigation that docs/README.md has: a part for every second heading, with the pages that its table links.

    A folder's README.md brings the pages that it links itself.
    """
    _, *parts = index.read_text(encoding="utf-8").split("\n## ")
    found: list[Any] = []
    for part in parts:
        title, _, body = part.partition("\n")
        found.append({title: _linked(body, index.parent)})
    found[0] = {title: ["README.md", _name(index), *pages] for title, pages in found[0].items()}
    return found


def _linked(text: str, folder: Path) -> list[Any]:
    pages: list[Any] = []
    for title, link in re.findall(r"^\| \[([^]]*)\]\(([^)#]+)\) \|", text, re.MULTILINE):
        path = (folder / link).resolve()
        inside = _linked(path.read_text(encoding="utf-8"), path.parent) if path.name == "README.md" else []
        pages.append({title: [_name(path), *inside]} if inside else _name(path))
    return pages


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _title(folder: Path, link: re.Match[str]) -> str:
    """Return the first heading of the page that a link leads to; what the link says now, where there is none."""
    path = folder / link[2].partition("#")[0]
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = re.search(r"# ([^\"\n]+)", text)
    return found[1].removesuffix("\\n") if found else link[1]


def _linked_name(found: re.Match[str]) -> str:
    """Return a public name as a link to its place; others stay as they are."""
    place = reference.OTHERWISE.get(found[1], found[1])
    return f"[{found[0]}][{place}]" if place in PLACES else found[0]
