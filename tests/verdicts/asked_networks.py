"""What is asked: networks of which it is known whether a function is in them, all with one setting, and their answers from cubes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

import modhook
from modhook.findings import VERDICTS, judge, measured, verdict
from modhook_tasks import known
from modhook_tasks.addmul import AddMul, AddMulOptions
from modhook_tasks.known.structure import loss, score

Batch = dict[str, Any]
SETTING: dict[str, Any] = {"batch": 64}
"""Arguments of `ask`, the same for every network: its defaults, by which masks are the smallest that lose at most 5 %."""
THERE = {"compiled": ("hist", "frac_prevs+hist"), "welded": ("welded_fnn", "welded_lstm", "welded_cnn", "welded_transformer")}
TRAINED = "addmul"
TWINS = ("untrained", "shuffled", "permuted")
"""Of a network: newly initialised, shuffled, asked for other answers: no function is in it."""
KINDS = {
    **THERE,
    "trained": (TRAINED,),
    "nothing": tuple(f"{name}/{twin}" for name in ("welded_fnn", "frac_prevs+hist", "welded_lstm") for twin in TWINS),
}
ORDER = (
    "welded_fnn", *KINDS["nothing"][:3], TRAINED, "frac_prevs+hist", *KINDS["nothing"][3:6], "welded_lstm", "welded_cnn", "hist",
    "welded_transformer", *KINDS["nothing"][6:],
)  # fmt: skip
"""What is asked first, where time is short."""
SEEDS = {"compiled": 5, "welded": 5, "trained": 3, "nothing": 3}


@attrs.frozen(eq=False)
class Asked:
    """The arguments of `ask` that differ from network to network."""

    model: nn.Module
    functions: dict[str, list[Batch]]
    tests: dict[str, list[Batch]]
    loss: Callable[..., Tensor] = loss
    score: Callable[..., Tensor] = score
    nonsense: Callable[..., Batch] | None = None


def kind_of(network: str) -> str:
    """Return the kind of a network."""
    return next(kind for kind, names in KINDS.items() if network in names)


def asked(network: str, folder: Path) -> Asked:
    """Return network, batches and tests; the trained network is kept in the folder."""
    if network == TRAINED:
        return trained(folder / "addmul.pt")
    built = known.build(network)
    functions = {n: batches(f.train, SETTING["batch"]) for n, f in built.functions.items()}
    tests = {n: f.test_batches() for n, f in built.functions.items()}
    values = any("tolerance" in f.train for f in built.functions.values())
    return Asked(built.model, functions, tests, nonsense=other_outputs if values else None)


def cube_of(network: str, folder: Path) -> Path:
    """Return where the cube of a network is."""
    return folder / f"{network.replace('/', '-').replace('+', '-')}.zarr"


def ask(network: str, seeds: int, folder: Path, setting: dict[str, Any] | None = None) -> xr.DataTree:
    """Ask with all controls, and return the cube; one that is whole is only read."""
    path, wanted = cube_of(network, folder), SETTING if setting is None else setting
    if path.exists() and whole(found := modhook.open_cube(path), seeds, wanted):
        return found
    asking = asked(network, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", modhook.ModhookWarning)  # they stand in the cube
        return modhook.ask(
            asking.model,
            asking.functions,
            loss=asking.loss,
            score=asking.score,
            tests=asking.tests,
            nonsense=asking.nonsense,
            seeds=seeds,
            controls=True,
            out=path,
            threads=1,
            progress=False,
            **wanted,
        ).cube


def whole(cube: xr.DataTree, seeds: int, setting: dict[str, Any]) -> bool:
    """Return whether a cube holds these seeds, with their controls, by this setting."""
    masks, wanted = cube.attrs["study"]["masks"], list(range(1, seeds + 1))
    if "own_removed" not in cube.children or any(masks[name] != value for name, value in setting.items()):
        return False
    runs, last = cube["runs/status"], cube["own_removed/accuracy"]
    if not set(wanted) <= set(runs["seed"].values.tolist()):
        return False
    return bool((runs.sel(seed=wanted) == 1).all()) and bool(np.isfinite(last.sel(seed=wanted)).all())


def summarised(network: str, cube: xr.DataTree, seeds: int) -> list[dict[str, Any]]:
    """Return a row per function: its verdicts, the findings behind them, score and size (means over seeds)."""
    every = measured(cube, "accuracy", range(1, seeds + 1))
    rows = []
    for one in every:
        found = judge(one)
        rows.append({
            "network": network,
            "function": one.function,
            "alone": len(every) == 1,
            "seeds": seeds,
            "unmasked": float(one.unmasked.mean()),
            "masked": float(one.masked.mean()),
            "kept": float(one.kept.mean()),
            "verdicts": {v: verdict(found, v) for v in VERDICTS},
            "findings": [
                {k: getattr(f, k) for k in ("verdict", "measure", "answer", "value", "low", "high", "n", "words")} for f in found
            ],
        })  # fmt: skip
    return rows


def batches(data: Batch, size: int) -> list[Batch]:
    """Return the items in batches of one size; what is left over is left out."""
    count = len(next(iter(data.values())))
    return [{n: t[i : i + size] for n, t in data.items()} for i in range(0, count - size + 1, size)]


def other_outputs(batch: Batch, seed: int) -> Batch:
    """Return a batch of numbers with other answers: every output that is asked for stands for another one, a lone y is 1 - y."""
    outputs = batch["tolerance"].isfinite().flatten(0, -2).any(0).nonzero().flatten()
    order = torch.randperm(len(outputs), generator=torch.Generator().manual_seed(seed), device="cpu")
    target = batch["target"].clone()
    if len(outputs) == 1:
        target[..., outputs] = 1 - batch["target"][..., outputs]
    else:
        target[..., outputs[order]] = batch["target"][..., outputs[order.roll(1)]]
    return {**batch, "target": target}


# -- the trained pair

HIDDEN, TRAIN_STEPS = (500, 500, 260), 3000
"""Layers between 42 inputs and 20 outputs: 406,000 weights."""


def digits_loss(net: Callable[..., Tensor], batch: Batch) -> Tensor:
    """Return the mean cross-entropy over the two digits."""
    return nn.functional.cross_entropy(net(batch["inputs"]).unflatten(-1, (-1, 10)).flatten(0, 1), batch["target"].flatten())


def digits_score(net: Callable[..., Tensor], batch: Batch) -> Tensor:
    """Return 1 where both digits are right."""
    return (net(batch["inputs"]).unflatten(-1, (-1, 10)).argmax(-1) == batch["target"]).all(-1).double()


def trained(path: Path) -> Asked:
    """Return a network that adds and multiplies modulo 100, trained where the file is not there; of every function's 10,000 problems
    2,000 are held out from the masks."""
    layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in zip((42, *HIDDEN), HIDDEN, strict=False)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(*(x for layer in layers for x in layer), nn.Linear(HIDDEN[-1], 20))
    problems = [_problems(operation) for operation in (0, 1)]
    if not path.exists():
        _train(net, {n: torch.cat([p[n] for p in problems]) for n in problems[0]})
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), path)
    net.load_state_dict(torch.load(path, weights_only=True))
    order = torch.randperm(10_000, generator=torch.Generator().manual_seed(0))
    train, test = (
        [{n: t[part] for n, t in p.items()} for p in problems] for part in (order[:8000], order[8000:])
    )
    names = ("add", "mul")
    return Asked(
        net.eval(),
        {n: batches(p, SETTING["batch"]) for n, p in zip(names, train, strict=True)},
        {n: batches(p, 1000) for n, p in zip(names, test, strict=True)},
        digits_loss,
        digits_score,
    )  # fmt: skip


def _problems(operation: int) -> Batch:
    operands = torch.cartesian_prod(torch.arange(100), torch.arange(100))  # (10000, 2)
    data = {"operands": operands.to(torch.uint8), "operation": torch.full((10_000,), operation, dtype=torch.uint8)}
    made = AddMul(AddMulOptions()).prepare(data, None, False)  # type: ignore[arg-type]  # draws nothing
    return {"inputs": made["inputs"], "target": made["target"]}


def _train(net: nn.Module, data: Batch) -> None:
    optimizer, generator = torch.optim.Adam(net.parameters(), 1e-3), torch.Generator().manual_seed(0)
    for _ in range(TRAIN_STEPS):
        chosen = torch.randint(0, len(data["inputs"]), (512,), generator=generator)
        optimizer.zero_grad()
        digits_loss(net, {n: t[chosen] for n, t in data.items()}).backward()
        optimizer.step()
