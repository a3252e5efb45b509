"""A fit in a file and in a notebook: nothing is lost, nothing foreign is taken, and its text stays short."""

from __future__ import annotations

import copy
import html
import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import modhook
from modhook import Fit, Masks, UserError


def mse(net: Any, batch: Any) -> torch.Tensor:
    """Distance to the first output."""
    return nn.functional.mse_loss(net(batch[0])[:, 0], batch[1])


def network() -> nn.Module:
    """A small network with tied weights and a layer that keeps its mask."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    model[2].weight = model[0].weight
    return model


@pytest.fixture(scope="module")
def learned() -> tuple[nn.Module, Fit, list[Any]]:
    """A network, a fit with everything a fit can hold, and its batches."""
    model = network()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 8, 4, generator=generator)
    batches = [(b, model(b)[:, 0].detach()) for b in x]
    fixed = Masks({"4.weight": torch.tensor([[True] * 4, [False] * 4])}, model)
    train = {"0.bias": torch.tensor([True, False, False, True])}
    fit = modhook.fit_masks(
        model, batches, mse, samples=2, steps=12, lr=0.5, fixed=fixed, train_weights=train, clip_over="all", density=0.5,
        progress=False,
    )  # fmt: skip
    return model, fit, batches


def test_everything_comes_back(learned: tuple[nn.Module, Fit, list[Any]], tmp_path: Path) -> None:
    """Every field is bit for bit what it was, with the network and without, and cuts are the same."""
    model, fit, batches = learned
    fit.save(tmp_path / "fit.safetensors")
    for back in (Fit.load(tmp_path / "fit.safetensors", model), modhook.Fit.load(str(tmp_path / "fit.safetensors"))):
        assert (back.masks, back.threshold, back.fixed) == (fit.masks, fit.threshold, fit.fixed)
        assert back.masks.fingerprint == fit.masks.fingerprint
        assert list(back.logits) == list(fit.logits)
        assert all(torch.equal(back.logits[n], fit.logits[n]) for n in fit.logits)
        assert list(back.weights) == ["0.bias"]
        assert torch.equal(back.weights["0.bias"], fit.weights["0.bias"])
        assert back.history.identical(fit.history)
        assert (back.steps, back.route) == (12, fit.route)
        assert back.carried is not None
        assert fit.carried is not None
        assert back.carried.logits == fit.carried.logits
        assert all(torch.equal(t, fit.carried.weights[n]) for n, t in back.carried.weights.items())
        assert back.cut(keep=3) == fit.cut(keep=3)
        assert back.cut(keep=3).fingerprint == fit.masks.fingerprint
        assert "2.weight" in back.cut(keep=3), "the other name of the tied weight"
    one, two = (
        f.curve(batches, lambda net, batch: -(net(batch[0])[:, 0] - batch[1]).square().detach(), points=3)
        for f in (fit, Fit.load(tmp_path / "fit.safetensors", model))
    )
    assert one.identical(two)


def test_a_loaded_fit_without_its_network_says_so(learned: tuple[nn.Module, Fit, list[Any]], tmp_path: Path) -> None:
    """Measuring needs the network, and the sentence names the way to give it; the masks are still refused by another one."""
    model, fit, batches = learned
    fit.save(tmp_path / "fit")
    back = Fit.load(tmp_path / "fit")
    with pytest.raises(UserError, match=r"load it with modhook\.Fit\.load\(path, model\)"):
        back.curve(batches, mse)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[4].weight[0, 0] += 1
    with pytest.raises(UserError, match=r"made for another network: 4\.weight has other values"):
        Fit.load(tmp_path / "fit", other)
    with pytest.raises(UserError, match="has no parameter in Linear"):
        Fit.load(tmp_path / "fit", nn.Linear(2, 2))
    with pytest.raises(UserError, match="model must be an nn"):
        Fit.load(tmp_path / "fit", "model")


def test_rankings_are_kept(tmp_path: Path) -> None:
    """A fit without steps, threshold or history comes back as it is."""
    model = network()
    fit = modhook.fit_masks(model, [], mse, sampler="magnitude", density=0.3, progress=False)
    fit.save(tmp_path / "fit")
    back = Fit.load(tmp_path / "fit", model)
    assert (back.masks, back.threshold, back.steps, back.history.sizes["step"]) == (fit.masks, None, 0, 0)


def test_foreign_and_damaged_files_are_one_sentence(learned: tuple[nn.Module, Fit, list[Any]], tmp_path: Path) -> None:
    """Masks, other safetensors, text, nothing, a changed bit, content of another shape: each is a UserError that names the file."""
    _, fit, _ = learned
    path = tmp_path / "fit.safetensors"
    fit.save(path)
    with pytest.raises(UserError, match=r"no modhook masks; give a file written by Masks\.save"):
        Masks.load(path)
    fit.masks.save(tmp_path / "masks")
    save_file({"w": torch.ones(2)}, tmp_path / "other")
    (tmp_path / "text").write_text("not a fit")
    for name, said in (
        ("masks", "no fit of this"),
        ("other", "no fit of this"),
        ("text", "as a fit"),
        ("gone", "as a fit"),
    ):
        with pytest.raises(UserError, match=rf"{name}.*{said}.*; give a file written by Fit\.save\.$"):
            Fit.load(tmp_path / name)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match="is damaged"):
        Fit.load(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read as a fit"):
        Fit.load(path)
    for state in (
        {},
        {"masks": {"plain": 3}},
        [1],
        {n: {"plain": None} for n in ("masks", "logits", "history", "weights", "route")},
    ):
        from modhook.fit.files import FORMAT
        from modhook.steps.snapshot import write_snapshot

        write_snapshot(path, state, FORMAT)
        with pytest.raises(UserError, match="is damaged: it holds no whole fit"):
            Fit.load(path)
    with pytest.raises(UserError, match="path must be a path"):
        Fit.load(3)


def test_a_fit_is_there_whole_or_not_at_all(
    learned: tuple[nn.Module, Fit, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is not there, and a disk that fails while the file is moved, leave no file and no rest, and the old one whole."""
    _, fit, _ = learned
    with pytest.raises(UserError, match=r"the fit cannot be written to .*nowhere"):
        fit.save(tmp_path / "nowhere" / "fit")
    fit.save(tmp_path / "fit")
    before = (tmp_path / "fit").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("modhook.steps.snapshot.os.replace", full)
    with pytest.raises(UserError, match="No space left on device"):
        fit.save(tmp_path / "fit")
    assert [p.name for p in tmp_path.iterdir()] == ["fit"]
    assert (tmp_path / "fit").read_bytes() == before


def test_the_file_is_safetensors_and_json(learned: tuple[nn.Module, Fit, list[Any]], tmp_path: Path) -> None:
    """Any reader of safetensors opens it: the tensors are plain and the rest is JSON."""
    learned[1].save(tmp_path / "fit")
    with safe_open(str(tmp_path / "fit"), framework="pt") as file:
        assert json.loads(file.metadata()["content"])
        kinds = {str(file.get_tensor(n).dtype) for n in file.keys()}  # noqa: SIM118 - not a dict
    assert {"torch.bool", "torch.float32"} <= kinds


def test_texts_are_short_and_notebooks_see_how_it_went(learned: tuple[nn.Module, Fit, list[Any]]) -> None:
    """repr is one line whatever the network's size; HTML has size, steps, the sampler's own size and curves, and is escaped."""
    _, fit, _ = learned
    assert repr(fit).startswith("Fit(Masks(")
    assert "12 steps, loss " in repr(fit)
    assert "\n" not in repr(fit)
    assert len(repr(fit.carried)) < 120
    page = fit._repr_html_()
    kept, size = fit.masks.kept(), fit.masks.size
    for piece in (
        f"{kept:,} of {size:,} weights kept",
        "<svg",
        "loss: ",
        "weights kept: ",
        "given and not learned",
        "weights of 1 tensors",
    ):
        assert piece in page
    assert "script" not in page


def test_why_a_fit_ended_is_kept_and_said(tmp_path: Path) -> None:
    """A fit that a callback ended, with another network's weights in the place of those it drops, says so, also from its file."""
    model, x = network(), torch.ones(4, 4)
    fit = modhook.fit_masks(
        model,
        [(x, x[:, 0])],
        mse,
        samples=2,
        steps=50,
        callback=lambda step, _: step == 3,
        off="shuffled",
        progress=False,
    )
    fit.save(tmp_path / "fit")
    for one in (fit, Fit.load(tmp_path / "fit", model)):
        assert (one.stopped, one.steps) == ("callback", 3)
        assert "3 steps, " in repr(one)
        assert "stopped: the callback said so" in repr(one)
        page = one._repr_html_()
        assert "the callback said so" in page
        assert "becomes what fit.off holds" in page
        assert one.off is not None
        assert fit.off is not None
        assert all(torch.equal(one.off[n], fit.off[n]) for n in fit.off)


def test_reasons_not_to_trust_a_fit_are_shown(tmp_path: Path) -> None:
    """Each caution stands in the text and in the notebook page, also of a fit from its file."""
    model, x = network(), torch.ones(4, 4)
    with pytest.warns(modhook.TrustWarning):
        fit = modhook.fit_masks(model, [(x, x[:, 0])], mse, sampler="gumbel", samples=2, steps=1, lr=1e-9, progress=False)
    assert len(fit.cautions) >= 2
    fit.save(tmp_path / "fit")
    for one in (fit, Fit.load(tmp_path / "fit", model)):
        assert one.cautions == fit.cautions
        for caution in fit.cautions:
            assert caution.rstrip(".") in repr(one)
            assert html.escape(caution.rstrip(".")) in one._repr_html_()
        assert f"before you trust it: {'; '.join(c.rstrip('.') for c in fit.cautions)})" in repr(one)
        assert "\n" not in repr(one)


def test_texts_of_a_strangers_fit_are_escaped(learned: tuple[nn.Module, Fit, list[Any]], tmp_path: Path) -> None:
    """Why it ended and its cautions are any text in a file: no tag reaches the page, and no control character a terminal."""
    text = "<script>alert(1)</script>\x1b[2J\nnext & last"
    attrs.evolve(learned[1], stopped=text, cautions=(text, "plain.")).save(tmp_path / "fit")
    back = Fit.load(tmp_path / "fit")
    page = back._repr_html_()
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[2J\\nnext &amp; last") == 2
    assert repr(back).count("</script>\\x1b[2J\\nnext & last") == 2
    assert not {"\x1b", "\n"} & {*page, *repr(back)}
    assert back in [learned[1], back]
    assert back != learned[1]
    assert len({back, learned[1]}) == 2
    with pytest.raises(modhook.UserError, match="no file can have"):
        back.save("a\0b")
    for wrong in ({"stopped": 3}, {"cautions": "text"}, {"cautions": (3,)}):
        attrs.evolve(learned[1], **wrong).save(tmp_path / "wrong")
        with pytest.raises(modhook.errors.CheckpointError, match="holds no whole fit"):
            Fit.load(tmp_path / "wrong")


def test_the_report_of_a_big_network_is_short() -> None:
    """print and repr of a report stay short, text() has every line, and a notebook gets both tables, cut and escaped."""
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(60)])
    report = modhook.inspect(model, torch.ones(2, 2), samples=2, executor="loop")
    assert repr(report).startswith("Report(360 maskable weights in 120 parameters, K = 2, route loop")
    assert "\n" not in repr(report)
    assert len(str(report).splitlines()) < 100
    assert "and 80 more: report.text() and report.to_dict() have all" in str(report)
    assert sum(line.startswith("59.") for line in report.text().splitlines()) == 2
    page = report._repr_html_()
    assert page.count("<tr>") == 5 + 1 + 2 * (40 + 1)
    assert "(the model)" in page
