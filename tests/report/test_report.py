"""The report as a file: what it shows, that it is safe, whole and the same every time."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from modhook.cube import Cube, open_cube
from modhook.errors import CubeError, UserError
from modhook.plugin.manager import KINDS, Entry, Plugins, plugins
from modhook.report import report_path, write_report
from modhook.report.facts import Facts
from modhook.study import load, resolved

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp; </style></title><!--"


class Page(HTMLParser):
    """Elements with their attributes, and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._style:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of every element with this tag."""
        return [attrs for name, attrs in self.elements if name == tag]


def read(path: Path) -> Page:
    """Parse a report."""
    return Page(path.read_text(encoding="utf-8"))


def test_report_shows_the_numbers_of_the_cube(real: Path, real_page: Path) -> None:
    """Every mean accuracy over seeds stands in the page, and every mask's share of weights, counted from its tensors."""
    import modhook

    found = read(real_page)
    with open_cube(real) as tree:
        accuracy = tree["scores"]["accuracy"].mean("seed").values.ravel()
    for value in accuracy:
        assert f"{100 * value:.1f}" in found.text
    assert [t.get("class") for t in found.all("table")].count("scores") == 1, "two settings are two rows of one table"
    for stage in ("control", "add", "mul"):
        kept = [modhook.masks_from(real, seed=s, stage=stage, beta=1e-4).density for s in (1, 2)]
        share = 100 * sum(kept) / 2
        assert f"{share:.{0 if share >= 9.5 else 1 if share >= 0.95 else 2}f}" in found.text
    for text in (
        "tiny",
        "A study that runs in a second.",
        "addmul",
        "2 seeds at each of 2 settings",
        "16 of 16 stages done",
        "all problems that are measured occur in training",
    ):
        assert text in found.text


def test_every_figure_and_table_is_there(one: Path, one_page: Path) -> None:
    """The figures that `modhook plot` would draw are in the page with alt texts, and all tables of `modhook show` are."""
    from modhook.report.drawing import applies, by_rank
    from modhook.tables import tables

    found, installed = read(one_page), plugins()
    with open_cube(one) as tree:
        every = by_rank([(n, installed.load("figures", n)()) for n in installed.names("figures")])
        apply = [name for name, figure in every if applies(figure, [tree])]
        for table in tables(tree):
            assert table.title.startswith("scores/") or table.title in found.text
            for _, cells in table.rows:
                assert all(cell in found.text for cell in cells if cell != "-")
    drawn = [a for tag, a in found.elements if tag == "img" or (tag == "svg" and a.get("role") == "img")]
    assert len(drawn) == len(apply) >= 1
    labels = [a["alt"] if "alt" in a else a["aria-label"] for a in drawn]
    assert labels == [installed.find("figures", name).spec.summary for name in apply], "by importance"
    for image in found.all("img"):
        kind, _, data = str(image["src"]).partition(";base64,")
        head = base64.b64decode(data)[:8]
        assert (kind, head[:5]) == ("data:image/svg+xml", b"<?xml") or (kind, head[1:4]) == ("data:image/png", b"PNG")
        assert int(str(image["width"])) > 100


def test_page_loads_and_runs_nothing(one_page: Path) -> None:
    """No script, no event handler, no inline style, no address but data and the page itself; the policy allows no more."""
    found = read(one_page)
    assert {"script", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in found.elements} == set()
    for _, attrs in found.elements:
        assert not [a for a in attrs if a.startswith("on") or a == "style"]
        assert not re.search(r"url\((?!#)", " ".join(map(str, attrs.values())))
        for name in ("src", "href", "srcset", "xlink:href"):
            assert str(attrs.get(name, "data:")).startswith(("data:", "#"))
    policy = next(m for m in found.all("meta") if m.get("http-equiv") == "Content-Security-Policy")["content"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "url(" not in one_page.read_text(encoding="utf-8").partition("</style>")[0]


def test_users_text_is_text(make: Callable[..., Cube], tmp_path: Path) -> None:
    """Markup in a description, a sweep label, a name and a failure's reason is shown letter for letter and does nothing."""
    table = {
        "study": {"name": HOSTILE, "description": HOSTILE, "protocol": HOSTILE},
        "task": {"name": HOSTILE, HOSTILE: HOSTILE},
        "analyses": {HOSTILE: {}},
    }
    attrs = {"study": table, "data": {"0": {HOSTILE: HOSTILE}}, "versions": {"modhook": HOSTILE}}
    cube = make(tmp_path / "c.zarr", np.full((1, 4, 3), 0.5), attrs, ("a", HOSTILE))
    cube.set_status({"seed": 1, "model.kind": HOSTILE}, "mul", "failed", reason=HOSTILE, route=HOSTILE)
    found = read(write_report(cube.path, tmp_path / "r.html", plugins()))
    assert found.text.count(HOSTILE) >= 8
    assert found.all("script") == []
    assert all(
        str(image["src"]).startswith("data:image/") for image in found.all("img")
    )  # figures, not the texts' <img>
    assert len(found.all("style")) == 1
    assert [a["href"] for a in found.all("link")] == ["data:,"]
    assert f"model.kind = {HOSTILE}, mul: {HOSTILE}" in found.text


def test_two_reports_are_the_same_bytes(one: Path, one_page: Path, tmp_path: Path) -> None:
    """Nothing of when and where it is written gets into the file; the date is that of the runs."""
    first = one_page.read_bytes()
    assert write_report(one, tmp_path / "elsewhere" / "b.html", plugins()).read_bytes() == first
    assert str(one_page.parent).encode() not in first
    assert str(one.parent).encode() not in first


def test_report_says_when_and_on_what(one: Path, one_page: Path, real: Path) -> None:
    """The days of the runs, the processor and the versions, as the cube has them, and neither the machine's name nor a path."""
    import platform

    import torch

    text = " ".join(read(one_page).text.split())
    with open_cube(one) as tree:
        ended, names = (sorted(set(tree[f"timing/{name}"].values.ravel())) for name in ("ended", "processor"))
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", t) for t in ended)
    first, last = ended[0][:10], ended[-1][:10]
    assert f"Date{first}{'' if first == last else f' to {last}'} Processor{names[0]} Version of modhook" in text
    assert names[0].endswith(", 1 thread")
    assert f"Version of torch{torch.__version__}" in text
    assert not platform.node() or platform.node() not in names[0]
    with open_cube(real) as tree:  # as one of a version that kept neither
        tree["timing"].dataset = tree["timing"].to_dataset().drop_vars(["ended", "processor"])
        assert Facts(tree, real).computed == []


def test_half_finished_cubes_report(make: Callable[..., Cube], tmp_path: Path) -> None:
    """What is missing is a dash, and is said; without any run the report says that too."""
    values = np.full((3, 4, 3), np.nan)
    values[0] = 0.75
    found = read(write_report(make(tmp_path / "half.zarr", values).path, tmp_path / "half.html", plugins()))
    assert "4 of 12 stages done" in found.text
    assert "2 of 3 runs are not finished" in found.text
    assert "seeds 2 and 3 at model.kind = a" in found.text
    assert "75.0" in found.text
    nothing = make(tmp_path / "empty.zarr", np.full((2, 4, 3), np.nan)).path
    empty = read(write_report(nothing, tmp_path / "empty.html", plugins()))
    assert "No run has finished yet." in empty.text
    assert "0 of 8 stages done" in empty.text


@pytest.mark.parametrize("variant", [None, "one"])
def test_report_reproduces_the_study(variant: str | None, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The study in the page, saved as the page says, is checked and resolved to the study in the cube, under the same cube's name."""
    from modhook.cli import main
    from modhook.run.drive import cube_path

    cube: Path = request.getfixturevalue(variant or "real")
    text = request.getfixturevalue(f"{variant or 'real'}_page").read_text(encoding="utf-8")
    link = next(a for a in Page(text).all("a") if "download" in a)
    shown = re.search(r'<code id="study">(.*?)</code>', text, re.DOTALL)
    assert shown is not None
    toml = base64.b64decode(str(link["href"]).partition(",")[2]).decode()
    assert Page(f"<pre>{shown[1]}</pre>").text == toml
    file = tmp_path / str(link["download"])
    file.write_text(toml)
    with pytest.raises(SystemExit) as stop:
        main(["check", str(file)])
    assert stop.value.code == 0
    again = load(file, variant=variant)
    with open_cube(cube) as tree:
        assert resolved(again) == tree.attrs["study"]
    assert cube_path(again, Path()).name == cube.name
    commands = Page(text).text
    option = f" --variant {variant}" if variant else ""
    assert (
        f"modhook check {file.name}\nmodhook run {file.name}{option} --out again\nmodhook report again/{cube.name}"
        in commands
    )


def test_command_writes_beside_the_cube(
    make: Callable[..., Cube], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`modhook report CUBE` prints the one file that it wrote, and leaves nothing else; --out puts it elsewhere."""
    from modhook.cli import main

    cube = make(tmp_path / "tiny-one.zarr", np.full((1, 4, 3), np.nan)).path
    before = {p.name for p in tmp_path.iterdir()}
    there = tmp_path / "x" / "y.html"
    for arguments, path in (([], tmp_path / "tiny-one-report.html"), (["--out", str(there)], there)):
        with pytest.raises(SystemExit) as stop:
            main(["report", str(cube), *arguments])
        assert stop.value.code == 0
        assert capfd.readouterr().out.strip() == str(path)
        assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert report_path(cube) == tmp_path / "tiny-one-report.html"
    assert {p.name for p in tmp_path.iterdir()} - before == {"tiny-one-report.html", "x"}


def test_mistakes_are_named_and_nothing_is_written(one: Path, no_figures: Plugins, tmp_path: Path) -> None:
    """No cube, a folder, a wrong ending, a place inside the cube, a file as folder: one sentence each."""
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").write_text("kept")
    cases: list[tuple[Path, Path, type[Exception], str]] = [
        (tmp_path / "none.zarr", tmp_path / "r.html", CubeError, "there is no cube"),
        (one, tmp_path / "r.toml", UserError, "does not end in .html"),
        (one, tmp_path / "folder.html", UserError, "is a folder"),
        (one, one / "r.html", UserError, "inside the cube"),
        (one, tmp_path / "file" / "r.html", UserError, "cannot be written"),
    ]
    for cube, out, error, text in cases:
        with pytest.raises(error, match=text):
            write_report(cube, out, no_figures)
    assert {p.name for p in tmp_path.iterdir()} == {"folder.html", "file"}
    assert (tmp_path / "file").read_text() == "kept"


def test_a_broken_figure_is_said_and_the_others_are_drawn(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A figure plugin that raises becomes a caution with its reason, and costs no other figure."""
    from modhook.plugin.hookspecs import Spec

    (tmp_path / "broken_figure_plugin.py").write_text(
        "from modhook import Figure\nclass Broken(Figure):\n    def draw(self, cubes):\n        raise KeyError('no <b>')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sound = plugins().find("figures", "addmul_performance")
    others = [e for kind in KINDS if kind != "figures" for e in plugins().entries(kind)]
    both = Plugins([*others, sound, Entry("figures", Spec("broken", "never", "broken_figure_plugin:Broken"), "x")], ())
    found = Page(write_report(one, tmp_path / "r.html", both).read_text(encoding="utf-8"))
    assert "broken: KeyError: 'no <b>'" in found.text
    assert found.all("figure")
