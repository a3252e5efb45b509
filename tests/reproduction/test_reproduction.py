"""The page of the paper's claims: its rule, its numbers from cubes whose numbers are known, and the page that is there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import attrs
import matplotlib
import nbformat
import numpy as np
import pytest
from scipy import stats

from modhook import masks_from
from modhook.cube import Plan, create, pack
from modhook.masks import chance
from modhook.plugin.manager import plugins
from modhook.plugin.variables import Variable
from modhook.run import run_study
from modhook.run.trackers import make_trackers
from modhook.study import load, resolved
from modhook.study.source import shipped_files

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))

import beta_measures  # noqa: E402
import reproduce  # noqa: E402 - a program beside the tests, not a package
import walk  # noqa: E402
from cubes_of_studies import Network, networks, taken_from  # noqa: E402
from paper_claims import CLAIMS  # noqa: E402
from reference_code import Reference, apart, beyond_one, read  # noqa: E402
from reproduction_page import matrix_numbers, page, rows  # noqa: E402
from shared_weights import expected_shared, likely  # noqa: E402
from verdict_rule import NOT_SEEN, SEEN, UNCLEAR, WEAKLY, Rule, judged  # noqa: E402

STAGES, SPLITS = ["unmasked", "control", "add", "mul"], ["iid", "add", "mul"]


def made(folder: Path, seeds: int, own: float, other: float, unmasked: float = 1.0, *changes: str) -> Path:
    """Write a packed cube of `addmul_fnn` whose accuracies are these, up to a thousandth by seed, and whose masks are random."""
    study = resolved(load(shipped_files()["addmul_fnn"], overrides=[f"study.seeds={seeds}", *changes]))
    overlap = ("stage", "other", "parameter")
    del study["masks"]["beta_start"]  # as in a cube of a version that did not have this option yet
    plan = Plan(
        {"study": study, "versions": {"torch": "2.0"}},
        {"seed": list(range(1, seeds + 1)), "model.hidden": ["800x4", "400-400-200"]},
        (
            Variable("scores/accuracy", ("stage", "split"), "float64", "d"),
            Variable("inverse/accuracy", ("stage", "split"), "float64", "d"),
            Variable("overlap/size", ("parameter",), "float64", "d"),
            Variable("overlap/kept", ("stage", "parameter"), "float64", "d"),
            *(Variable(f"overlap/{n}", overlap, "float64", "d") for n in ("intersection", "iou", "iou_chance")),
            Variable("history/trust", ("stage",), "str", "d"),
            Variable("history/changed", ("stage", "step"), "float64", "d"),
        ),
        {
            "scores": {"stage": STAGES, "split": SPLITS},
            "inverse": {"stage": STAGES[1:], "split": SPLITS},
            "overlap": {"stage": STAGES[1:], "other": STAGES[1:], "parameter": ["a", "b", "c"]},
            "history": {"stage": STAGES[1:], "step": [50, 95, 100]},
        },
    )
    cube = create(folder / "addmul_fnn.zarr", plan)
    rng = np.random.default_rng(0)
    for seed in range(1, seeds + 1):
        run = {"seed": seed, "model.hidden": "400-400-200"}
        shift = seed / 1000
        scores = {
            "unmasked": [unmasked] * 3,
            "control": [own] * 3,
            "add": [0.5, own - shift, other],
            "mul": [0.5, other, own],
        }
        cube.write("overlap/size", np.full(3, 40.0), run)
        masks = {s: [rng.random(40) < 0.3 for _ in range(3)] for s in STAGES[1:]}
        both = [[[float((x & y).sum()) for x, y in zip(masks[s], masks[o], strict=True)] for o in masks] for s in masks]
        cube.write("overlap/kept", np.array([[float(x.sum()) for x in m] for m in masks.values()]), run)
        cube.write("overlap/intersection", np.array(both), run)
        for stage in STAGES[1:]:
            cube.write("inverse/accuracy", np.array([0.0, 0.3 - shift, 0.3 - shift]), run, stage=stage)
            cube.write("history/trust", "moving: it was." if (stage, seed) == ("mul", 2) else "", run, stage=stage)
            late = 20.0 if (stage, seed) == ("add", 1) else 0.0
            cube.write("history/changed", np.array([99.0, late, late / 4]), run, stage=stage)
        for stage in STAGES:
            cube.write("scores/accuracy", np.array(scores[stage]), run, stage=stage)
            cube.write("timing/seconds", 1800.0, run, stage=stage)
            cube.set_status(run, stage, "done", threads=1)
    return pack(cube.path, folder / "cubes" / "addmul_fnn.zip").path


def verdicts(path: Path) -> dict[str, Any]:
    """Return the verdict on each claim about the one network of a cube."""
    return {row.claim.key: row.verdict for row in rows(networks([path]))}


def test_the_rule_looks_at_the_whole_interval() -> None:
    """Mean and interval are those of the t table; each word for each place of the interval, whatever is better."""
    values = [0.91, 0.95, 0.97, 0.9]
    found = judged(values, Rule(0.9, 0.8))
    half = 3.182446305 * np.std(values, ddof=1) / 2  # the t of 3 degrees of freedom, from a table
    low, high = np.mean(values) - half, np.mean(values) + half
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((np.mean(values), low, high, 4))
    assert found.word == WEAKLY  # the mean is beyond the first bound, the interval is not
    for rule, sign in ((Rule(0.9, 0.8), 1), (Rule(-0.9, -0.8, high=False), -1)):
        for centre, word in ((0.95, SEEN), (0.9, WEAKLY), (0.85, WEAKLY), (0.8, UNCLEAR), (0.7, NOT_SEEN)):
            assert judged([sign * (centre + x) for x in (-0.01, 0.0, 0.01)], rule).word == word
    assert judged([1.0, 1.0], Rule(0.9, 0.8)).word == UNCLEAR
    assert judged([1.0, 1.0], Rule(0.9, 0.8)).why == "2 of at least 3 seeds"
    assert judged([np.nan, np.nan], Rule(0.9, 0.8)).why == "no number yet"
    assert judged([1.0, np.nan, 1.0, 1.0], Rule(0.9, 0.8)).word == SEEN
    assert judged([1.0] * 5, Rule(0.9, 0.8), granted="the network knows nothing").word == UNCLEAR
    assert judged([0.99, 1.0, 1.0], Rule(0.9, 0.8), within=(0.0, 1.0)).high == 1.0


def test_verdicts_of_cubes_whose_numbers_are_known(tmp_path: Path) -> None:
    """Seen, not seen, weakly seen; too few seeds and a network that has not learned its task tell nothing."""
    good = verdicts(made(tmp_path / "a", 3, own=0.99, other=0.6))
    assert {k: v.word for k, v in good.items()} == {
        "addmul-keeps": SEEN,
        "addmul-loses": NOT_SEEN,
        "addmul-needs": WEAKLY,
    }
    assert good["addmul-keeps"].mean == pytest.approx(0.99 - 0.002)  # the worse operation, mean of three seeds
    assert good["addmul-needs"].mean == pytest.approx(0.3 - 0.002)
    (needs,) = (row for row in rows(networks([tmp_path / "a" / "cubes" / "addmul_fnn.zip"])) if row.claim.key == "addmul-needs")
    (beside,) = needs.measured.beside  # nothing else was computed
    assert (beside.label, [*beside.values]) == ("left of the other function", ["mul", "add"])
    assert [values.mean() for values in beside.values.values()] == pytest.approx([0.3 - 0.002] * 2)
    assert needs.measured.reading() == "Without all that a mask keeps the other function falls as well (mul 29.8 %, add 29.8 %)."
    assert {v.word for v in verdicts(made(tmp_path / "b", 2, own=0.99, other=0.6)).values()} == {UNCLEAR}
    unlearned = verdicts(made(tmp_path / "c", 3, own=0.99, other=0.6, unmasked=0.8))
    assert {v.why for v in unlearned.values()} == {"the network itself: 0.80 on average, less than 0.9"}


def test_every_difference_stands_in_the_row(tmp_path: Path) -> None:
    """Seeds, steps and sizes that are not the published ones, and nothing else; the command asks for the same study."""
    path = made(
        tmp_path, 3, 0.99, 0.0, 1.0, "masks.steps=100", "masks.beta=1e-3", "run.threads=1", "analyses.random.draws=2"
    )
    (network,) = networks([path])  # the other size has no seed that is done
    assert network.differences() == [
        "3 of 10 seeds",
        "masks.steps 100 instead of 20,000",
        "masks.beta 0.001 instead of 0.0001",
    ]
    run, analysis = network.commands()
    assert run.startswith(
        "modhook run addmul_fnn --set study.seeds=3 --set run.threads=1 --set masks.steps=100 --set masks.beta=0.001 "
    )
    assert run.endswith("--only model.hidden=400-400-200 --out results")
    assert analysis.startswith("modhook analyse results/addmul_fnn.zarr random")
    overrides = [part.partition(" ")[0] for part in run.split("--set ")[1:]]
    again = resolved(load(shipped_files()["addmul_fnn"], overrides=overrides))
    assert again["masks"] == network.table["masks"]
    assert again["study"] == network.table["study"]
    text = page([network], [], [])
    row = next(line for line in text.splitlines() if line.startswith("| `addmul_fnn`"))
    assert "none on record" in row
    assert "3 of 10 seeds; masks.steps 100 instead of 20,000" in row
    assert "**seen**" in row
    assert "6.0 hours by the clock in its stages" in text  # 3 seeds x 4 stages of half an hour
    assert "not run: `addmul_fnn`, hidden 800x4, `addmul_fnn_big`, `addmul_fnn_huge`, `addmul_lstm`" in text
    assert f"{len([c for c in CLAIMS if 'addmul_fnn' in c.studies])} of {len(CLAIMS)} claims have been measured" in text
    late = 100 * 25 / float(network.at("overlap/kept", stage="add").sum())
    assert "still changing when their steps ended: 1 of 3 of add, 1 of 3 of mul. Logits" in text  # by today's rule, or the run's
    assert f"beside the weights that the mask keeps: control 0 %, add {late:.0f} %, mul 0 %." in text
    assert text.count("\n\nNot run.") == len({c.key for c in CLAIMS if "addmul_fnn" not in c.studies})


def test_masks_taken_from_another_cube_are_told_once(tmp_path: Path) -> None:
    """A study with the stages of one whose name it adds to has no table and no hours of its own, and its command takes them."""
    (network,) = networks([made(tmp_path, 3, 0.99, 0.0)])
    more = attrs.evolve(network, study="addmul_fnn_more")
    assert taken_from(more, [network, more]) is network
    assert taken_from(network, [network, more]) is None
    assert taken_from(attrs.evolve(more, point={"model.hidden": "800x4"}), [network]) is None
    text = page([network, more], [], [])
    assert "`addmul_fnn_more`, hidden 400-400-200: the masks are those of `addmul_fnn`, hidden 400-400-200." in text
    assert text.count("| matrix | kept, control |") == 1
    assert text.count("hours by the clock in its stages") == 1
    assert text.count("--stages-from results/addmul_fnn.zarr --out results") == 1


def test_numbers_of_the_papers_own_code_stand_beside_ours(tmp_path: Path) -> None:
    """Claims get their mean and interval, matrices a table, and the sentence counts the means that are near."""
    (network,) = networks([made(tmp_path, 3, 0.99, 0.0)])
    ours = matrix_numbers(network)
    near, far = ours["a"]["kept, add"] + 1e-6, ours["b"]["kept, mul"] + 1.0
    reference = Reference(
        network.label,
        3,
        {"torch": "2.0"},
        1,
        1.5,
        "Data are made at once.",
        {"addmul-keeps": [0.97, 0.98, 0.99]},
        {"a": {"kept, add": near.tolist()}, "b": {"kept, mul": far.tolist()}},
    )
    text = page([network], [], [reference])
    row = next(line for line in text.splitlines() if line.startswith("| `addmul_fnn`"))
    assert "| 98.0 % [95.5 %, 100.0 %], n 3 |" in row
    spread = f"{far.mean():.3f} ± {far.std(ddof=1):.3f}"
    assert f"| `b` | \N{EN DASH} | \N{EN DASH} | {spread} | \N{EN DASH} | \N{EN DASH} |" in text
    assert "Of these 2 means of shares and IoU, 1 lie within one standard deviation" in text
    distance = apart(ours["b"]["kept, mul"], far)
    assert f"Farther apart, in standard deviations, + where ours is larger: `b` kept, mul ({distance:+.1f})." in text
    assert "3 seeds; 1.5 hours of processor time in all; threads: 1; torch 2.0. Data are made at once." in text
    with pytest.raises(ValueError, match="2 numbers for 3 seeds"):
        Reference("x", 3, {}, 1, 1.0, "", {"addmul-keeps": [1.0, 1.0]}, {})


def test_chance_given_the_totals_of_neurons() -> None:
    """The even distribution keeps each row's and column's total, and is the mean of all masks of these totals, listed one by one."""
    mask = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=float)
    even = likely(mask)
    assert even.sum(0) == pytest.approx(mask.sum(0), abs=1e-2)
    assert even.sum(1) == pytest.approx(mask.sum(1), abs=1e-2)
    big = np.zeros((12, 12))
    big[:6, :6] = np.random.default_rng(0).random((6, 6)) < 0.5
    other = np.random.default_rng(1).permutation(big)
    generator, shared = np.random.default_rng(2), []
    one, two = big.copy(), other.copy()
    for step in range(60_000):  # swaps that keep all totals: rows a, b with (1, 0) and (0, 1) in two columns
        for m in (one, two):
            rows, columns = generator.choice(12, 2, replace=False), generator.choice(12, 2, replace=False)
            cut = m[np.ix_(rows, columns)]
            if cut[0, 0] == cut[1, 1] != cut[0, 1] == cut[1, 0]:
                m[np.ix_(rows, columns)] = 1 - cut
        if step >= 5_000 and step % 20 == 0:
            shared.append((one * two).sum())
    assert expected_shared(big, other) == pytest.approx(np.mean(shared), rel=0.05)
    assert (one.sum(0) == big.sum(0)).all()
    assert (two.sum(1) == other.sum(1)).all()


def test_how_far_two_means_are_apart() -> None:
    """In pooled standard deviations, as Student's t has them; and how often chance alone gives more than one, by drawing."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 5), rng.normal(2, 3, 3)
    assert apart(a, b) == pytest.approx(stats.ttest_ind(a, b).statistic * np.sqrt(1 / 5 + 1 / 3))
    assert apart(a, [1.0]) == pytest.approx((a.mean() - 1.0) / a.std(ddof=1))  # a single seed has no deviation of its own
    assert np.isnan(apart([2.0], [1.0]))
    assert np.isnan(apart(a, [np.nan]))
    assert apart([1.0, 1.0], [1.0, 1.0]) == 0
    x, y = rng.normal(size=(20_000, 5)), rng.normal(size=(20_000, 3))
    pooled = np.sqrt((4 * x.var(1, ddof=1) + 2 * y.var(1, ddof=1)) / 6)
    assert beyond_one(5, 3) == pytest.approx((np.abs(x.mean(1) - y.mean(1)) > pooled).mean(), abs=0.01)


def test_pooled_overlaps_and_chance(tmp_path: Path) -> None:
    """IoU over several matrices as of one mask, chance as `modhook.chance` has it."""
    (network,) = networks([made(tmp_path, 3, 1.0, 0.0)])
    from claim_measures import pooled

    found, expected = pooled(network, ["a", "c"])
    rng = np.random.default_rng(0)
    for seed in range(3):
        masks = {s: [rng.random(40) < 0.3 for _ in range(3)] for s in STAGES[1:]}
        a, b = (np.concatenate([masks[s][0], masks[s][2]]) for s in ("add", "mul"))
        assert found[seed] == pytest.approx((a & b).sum() / (a | b).sum())
        sizes = [(40, int(masks["add"][i].sum()), int(masks["mul"][i].sum())) for i in (0, 2)]
        by_chance = chance.total([chance.shared(*s) for s in sizes]).iou(int(a.sum()), int(b.sum()))
        assert expected[seed] == pytest.approx(by_chance, rel=0.05)


def test_a_real_cube_is_taken_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tiny run: copied, given controls that need no training, packed; page and notebook have its numbers, it is as it was."""
    monkeypatch.setattr(reproduce, "JOINING", {"random": ("draws=1",), "own_removed": ("draws=1",)})
    installed = plugins()
    study = load(shipped_files()["addmul_fnn"], variant="smoke", plugins=installed)
    cube = Path(run_study(study, tmp_path, installed, make_trackers([], installed, "x")).path).rename(
        tmp_path / "addmul_fnn.zarr"
    )
    before = {f: f.read_bytes() for f in cube.rglob("*") if f.is_file()}
    monkeypatch.setattr(walk, "write", lambda path: None)  # its cells run below, without a kernel
    reproduce.main(["--take", str(cube), "--docs", str(tmp_path / "docs")])
    assert {f: f.read_bytes() for f in cube.rglob("*") if f.is_file()} == before
    (network,) = networks([tmp_path / "docs/cubes" / f"{cube.stem}.zip"])
    for name in ("random/accuracy", "own_removed/random/accuracy"):
        assert np.isfinite(network.at(name, stage="add", split="add")).all()
    text = (tmp_path / "docs/reproduction.md").read_text()
    assert "**cannot tell**" in text
    assert "random masks" in text
    assert "train.steps 10 instead of 20,000" in text
    assert (tmp_path / "docs/cubes" / f"{cube.stem}-addmul_performance.png").stat().st_size > 10_000
    assert "[add_mul.ipynb](add_mul.ipynb)" in text
    first = network.at("scores/accuracy", stage="add", split="add")
    more = load(shipped_files()["addmul_fnn"], variant="smoke", overrides=["study.seeds=2"], plugins=installed)
    apart = Path(run_study(more, tmp_path / "apart", installed, make_trackers([], installed, "x"), only={"seed": "2"}).path)
    reproduce.take(apart.rename(tmp_path / "apart" / "addmul_fnn.zarr"), tmp_path / "docs/cubes")
    (both,) = networks([network.path])
    assert both.done == 2  # the first run joined by one that was computed apart
    assert both.at("scores/accuracy", stage="add", split="add")[0] == first[0]
    monkeypatch.chdir(tmp_path / "docs")
    names: dict[str, Any] = {}
    with matplotlib.rc_context({"backend": "agg"}):
        for kind, source in walk.CELLS:
            if kind == "code":
                exec(source, names)
    said = capsys.readouterr().out
    accuracy = network.at("scores/accuracy", stage="add", split="add").mean()
    assert f"add: {accuracy:.1%} under its own mask" in said
    assert "random masks of their sizes share 0." in said
    monkeypatch.setattr(reproduce, "LARGEST", 1000)
    with pytest.raises(SystemExit, match="not for the repository"):
        reproduce.check_size(network.path)
    assert not network.path.exists()


def test_the_page_is_that_of_the_cubes() -> None:
    """docs/reproduction.md is what the command writes from docs/cubes: nobody edits it, and a changed rule shows; the notebook too."""
    found: list[Network] = networks(sorted((ROOT / "docs/cubes").glob("*.zip")))
    figures = reproduce.captions(reproduce.figures(found))
    assert (ROOT / "docs/reproduction.md").read_text(encoding="utf-8") == page(found, figures, read())
    for file, _ in figures:
        assert (ROOT / "docs" / file).is_file()
    if (ROOT / "docs" / walk.CUBE).exists():
        cells = nbformat.read(ROOT / "docs" / walk.NAME, as_version=4).cells
        assert tuple((c.cell_type, c.source) for c in cells) == walk.CELLS
        assert all(c.outputs for c in cells if c.cell_type == "code")
    for zip_file in (ROOT / "docs/cubes").glob("*.zip"):
        assert zip_file.stat().st_size < reproduce.LARGEST


@pytest.mark.parametrize(
    ("good", "decades"),
    [([1, 1, 1, 1], 3.0), ([1, 0, 1, 1], 1.0), ([1, 1, 0, 1], 1.0), ([0, 1, 0, 1], 0.0), ([0, 0, 0, 0], 0.0), ([1, 1, 1, 0], 2.0)],
)
def test_a_range_of_beta_has_no_hole(good: list[int], decades: float) -> None:
    """The widest range of neighbouring betas counts: one at which masks fail ends it, whatever comes after."""
    assert beta_measures._longest([1e-5, 1e-4, 1e-3, 1e-2], np.array(good, dtype=bool)) == pytest.approx(decades)


def test_a_sweep_over_beta_by_its_values() -> None:
    """At each beta, shares, IoU and what is shared are those of the masks in the packed cube, counted by hand."""
    (network,) = networks([ROOT / "docs" / "cubes" / "addmul_beta.zip"])
    assert list(network.each) == [1e-5, 3e-5, 1e-4, 3e-4, 1e-3]
    one = network.each[1e-3]
    for seed in (1, 2):
        add, mul = (dict(masks_from(network.path, seed, s, beta=1e-3).items()) for s in ("add", "mul"))
        both = sum(int((add[n] & mul[n]).sum()) for n in add)
        sizes = [sum(int(m.sum()) for m in mask.values()) for mask in (add, mul)]
        numbers = matrix_numbers(one)["all"]
        at = seed - 1
        assert numbers["kept, add"][at] == pytest.approx(sizes[0] / sum(m.numel() for m in add.values()))
        assert numbers["IoU"][at] == pytest.approx(both / (sum(sizes) - both))
        assert one.at("overlap/shared_total", stage="mul")[at] == pytest.approx(both / sizes[1])
    falls = beta_measures.falls(network, [])
    assert "it does not fall for both" in falls.reading()
    assert "depends on the measure" in falls.reading()
    assert "mul on" in falls.reading()
    held = beta_measures.holds(network, [])
    assert [*held.values] == pytest.approx([np.log10(30)] * 2)
    assert [*held.beside[0].values] == pytest.approx([1.0] * 2)  # the control fails at 3e-4
