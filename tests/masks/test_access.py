"""Plain access to masks: parts of them, devices, tables, what a notebook shows; bad input of parts and overlaps."""

from __future__ import annotations

import copy
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import modhook
from modhook import Masks, iou, overlaps, parts
from modhook.errors import MaskError, PatternError, UserError
from modhook.values import markup

VOID = {"br", "hr", "img"}


class Balanced(HTMLParser):
    """Collects text and tags, and checks that every tag is closed where it should be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.styles: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.styles += [value for name, value in attrs if name == "style"]
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def tied() -> nn.ModuleDict:
    """Two layers that share one weight."""
    model = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False), "c": nn.Linear(3, 2)})
    model["b"].weight = model["a"].weight
    return model


def test_selected_masks_stay_those_of_their_network(net: nn.Module, tmp_path: Path) -> None:
    """A selection knows its network: another one's is refused, its own takes it, a file keeps it."""
    masks = Masks({n: torch.ones(p.shape, dtype=torch.bool) for n, p in net.named_parameters()}, net)
    few = masks.select("0.*", exclude="*bias")
    assert list(few) == ["0.weight"]
    few.save(tmp_path / "few.safetensors")
    assert Masks.load(tmp_path / "few.safetensors", net) == few
    other = copy.deepcopy(net)
    with torch.no_grad():
        other[0].weight += 1
    with pytest.raises(MaskError, match="two networks"):
        iou(few, Masks(dict(masks), other), on="common")


def test_tied_names_select_and_align() -> None:
    """A tied parameter is found under each of its names, and counted once beside masks that know it by another."""
    model = tied()
    masks = Masks({"a.weight": torch.eye(3, dtype=torch.bool), "c.weight": torch.ones(2, 3, dtype=torch.bool)}, model)
    assert list(masks.select("b.*")) == ["a.weight"]
    assert "b.weight" in masks.select("b.*")
    other = Masks({"b.weight": torch.ones(3, 3, dtype=torch.bool)})
    assert iou(masks, other, on="common") == pytest.approx(3 / 9)
    found = parts({"one": masks, "two": other}, on="common")
    assert found["shared"].sel(subset="one & two") == 3
    assert found["parameter"].values.tolist() == ["a.weight"]


@pytest.mark.parametrize(
    ("include", "exclude", "message"),
    [
        (
            "0.wieght",
            (),
            r"include pattern '0.wieght' matches no parameter \(did you mean '0.weight'\?\); these masks cover: 0",
        ),
        ("0.*", "nope", "exclude pattern 'nope' matches no parameter"),
        ("0.*", "*", "no masked parameter is left with include="),
        (3, (), "include must be a pattern or a list of patterns"),
        (["0.*", None], (), "include must be a pattern or a list of patterns"),
    ],
)
def test_bad_selections_are_one_sentence(net: nn.Module, include: Any, exclude: Any, message: str) -> None:
    """A pattern that matches nothing is named with the nearest name; nothing left, and no pattern at all, are said."""
    masks = Masks({n: torch.ones(p.shape, dtype=torch.bool) for n, p in net.named_parameters()})
    with pytest.raises(UserError, match=message):
        masks.select(include, exclude)
    assert issubclass(PatternError, UserError)


def test_masks_are_handed_out_on_a_device() -> None:
    """After `to`, tensors are on the device, also of what is combined from them; counts, files and equality are as before."""
    masks = Masks({"w": torch.eye(3, dtype=torch.bool)})
    moved = masks.to("meta")  # a device that every machine has
    assert moved["w"].device.type == (~moved)["w"].device.type == (moved & masks)["w"].device.type == "meta"
    assert masks["w"].device.type == moved.to("cpu")["w"].device.type == "cpu"
    assert (moved.kept(), moved == masks, (moved | masks).kept()) == (3, True, 3)
    for wrong in ("nowhere", "cuda:99", 2.5):
        with pytest.raises(UserError, match="masks cannot be moved to device"):
            masks.to(wrong)


def test_a_table_of_tensors(net: nn.Module) -> None:
    """One row per tensor with its module and counts; no masks are an empty table with the same columns."""
    masks = Masks({"0.weight": torch.eye(6, 4, dtype=torch.bool), "scale": torch.tensor(True)})
    table = masks.to_dataframe()
    assert table.to_dict("list") == {
        "parameter": ["0.weight", "scale"],
        "module": ["0", ""],
        "kept": [4, 1],
        "total": [24, 1],
        "density": [4 / 24, 1.0],
    }
    empty = Masks({}).to_dataframe()
    assert list(empty) == list(table)
    assert len(empty) == 0


def test_a_notebook_shows_bars() -> None:
    """Well-formed, no colour of a page of its own, names escaped, bars as long as the densities, the rest of many counted."""
    many = {f"layer<{i}>&": torch.arange(4) < i % 5 for i in range(45)}
    page = Masks(many)._repr_html_()
    seen = Balanced(page)
    assert set(seen.tags) <= {"div", "b", "table", "thead", "tbody", "tr", "th", "td", "span"}
    assert "layer<3>&" in seen.texts
    widths = [s.partition("width:")[2].partition("%")[0] for s in seen.styles if s.startswith("display:block")]
    assert [float(w) for w in widths] == [25.0 * (i % 5) for i in range(40)]
    assert "and 5 further tensors: masks.to_dataframe() lists all" in seen.texts
    assert not any("background:#" in s or "background:white" in s or "color:#" in s for s in seen.styles)
    assert Balanced(Masks({})._repr_html_()).texts.count("-") == 0
    assert repr(Masks(many)).count("\n") == 0


def test_small_pieces_of_html() -> None:
    """Curves have gaps where values are not finite, one point is a dot, nothing known is nothing; control characters are shown."""
    curve = markup.curve("loss", [1.0, 2.0, math.nan, 3.0, 2.0, math.inf, 5.0])
    assert (curve.count("<polyline"), curve.count("<circle")) == (2, 1)
    assert len(markup.curve("loss", [float(i) for i in range(100_000)])) < 6000
    assert markup.curve("loss", [2.0]).count("<circle") == 1
    assert markup.curve("loss", []) == markup.curve("loss", [math.nan]) == ""
    assert "constant" in markup.curve("constant", [1.0, 1.0])
    assert markup.escaped("a\x1b[2J<b>\n") == "a\\x1b[2J&lt;b&gt;\\n"
    assert "width:100.00%" in markup.bar(1.7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: parts({}), r"give the masks as \{function: masks\}"),
        (lambda a: parts(a), r"give the masks as \{function: masks\}"),
        (lambda a: overlaps([a]), r"give the masks as \{function: masks\}"),
        (lambda a: parts({"a": 3}), r"masks\['a'\] must be a modhook.Masks, not 3"),
        (lambda a: parts({1: a}), "the name of a function must be a text, not 1"),
        (lambda a: parts({"a": a}, on="comon"), "unknown on 'comon' .*common"),
        (lambda a: iou(a, a, on="all"), "unknown on 'all'"),
        (lambda a: iou(a, 3), "b must be a modhook.Masks"),
        (
            lambda a: parts({"add": a, "mul": a}, [("ad",)]),
            r"no function 'ad' \(did you mean 'add'\?\); there are add, mul",
        ),
        (lambda a: parts({"add": a}, []), "subsets is empty"),
        (lambda a: parts({"add": a}, [()]), "a subset names at least one function"),
        (lambda a: parts({f"f{i}": a for i in range(11)}), "11 functions have 2,047 subsets; name those"),
        (lambda a: parts({"a": a, "b": a, "a & b": a}), "two subsets would be called"),
        (lambda a: parts({"a": a, "b": Masks({"v": a["w"]})}), "only in 'a': w; only in 'b': v"),
    ],
)
def test_bad_parts_are_one_sentence(call: Any, message: str) -> None:
    """What is no masks, an unknown function or way, too many subsets: each is said before anything is counted."""
    with pytest.raises(UserError, match=message):
        call(Masks({"w": torch.tensor([True, False])}))


def test_named_subsets_of_many_functions() -> None:
    """Chosen subsets are counted for more functions than have all of theirs listed; doubles are one, and order is by size."""
    masks = {f"f{i}": Masks({"w": torch.arange(64) % (i + 2) == 0}) for i in range(40)}
    found = parts(masks, [("f0", "f1"), "f39", ("f1", "f0"), tuple(masks)])
    assert found["subset"].values.tolist() == ["f39", "f0 & f1", " & ".join(masks)]
    divisible = [[n for n in range(64) if n % (i + 2) == 0] for i in range(40)]
    assert found["shared"].values.tolist() == [len(divisible[39]), len(set(divisible[0]) & set(divisible[1])), 1]
    only = set(divisible[39]) - set().union(*divisible[:39])
    assert int(found["exclusive"].sel(subset="f39")) == len(only)


def test_tensors_without_weights_and_empty_masks() -> None:
    """A tensor of no weights counts for nothing, and masks that keep nothing have no ratio; neither warns."""
    a = Masks({"w": torch.zeros(4, dtype=torch.bool), "none": torch.zeros(0, dtype=torch.bool)})
    found = overlaps({"a": a, "b": ~a})
    assert math.isnan(overlaps({"a": a, "b": a})["iou"][0, 1])
    assert found["iou"][0, 1] == found["iou_chance"][0, 1] == 0
    assert found["parameter_iou"].sel(parameter="none").isnull().all()
    assert int(parts({"a": a, "b": ~a})["exclusive"].sel(subset="b")) == 4
    assert modhook.chance.shared(4, 0, 4).mean == 0


@pytest.mark.parametrize(("name", "near"), [("v", ""), (0, ""), (["layer"], ""), ("1.weigth", r" \(did you mean '1\.weight'\?\)")])
def test_a_name_that_is_not_there_is_a_sentence(name: Any, near: str) -> None:
    """A mapping's `KeyError`, in words: what there is, and the nearest; `get` and `in` go on as in every mapping."""
    masks = Masks({"1.weight": torch.tensor([True, False])})
    with pytest.raises(KeyError, match=rf"^there is no mask of .*{near}; there are 1\.weight\.$") as caught:
        masks[name]
    assert isinstance(caught.value, UserError)
    if isinstance(name, str):
        assert name not in masks
        assert masks.get(name) is None
