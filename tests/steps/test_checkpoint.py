"""Checkpoints by themselves: what a file holds, and what a step loop makes of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader

from modhook import Tracker, fit_masks
from modhook.errors import CheckpointError, RunError
from modhook.steps.checkpoint import Keeper, kept
from modhook.steps.snapshot import digest, read_snapshot, write_snapshot
from modhook.steps.train import train

LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats() | st.text(max_size=5)
    | st.sampled_from([torch.arange(3), torch.tensor(2.5, dtype=torch.bfloat16), torch.empty(0, 2), torch.ones(2, 3).T,
                       np.arange(4, dtype=np.uint32), np.float32(1.5), np.zeros((2, 0)), np.array(3)])
)  # fmt: skip
KEYS = st.text(max_size=3) | st.integers() | st.tuples(st.booleans(), st.text(max_size=2))
STATES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


def same(a: Any, b: Any) -> bool:
    """Compare nested state in types and in bits."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())
    if isinstance(a, np.ndarray | np.generic):
        return type(a) is type(b) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and repr(a) == repr(b)


@settings(deadline=None)  # files are flushed to the disk
@given(STATES)
def test_a_file_holds_nested_state_exactly(tmp_path_factory: pytest.TempPathFactory, state: Any) -> None:
    """Numbers of any size, NaN, tuples, keys of any kind, tensors and arrays of any type come back as they were."""
    file = tmp_path_factory.mktemp("snapshot") / "state.safetensors"
    write_snapshot(file, state)
    assert same(state, read_snapshot(file))
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_what_a_file_cannot_hold_is_named(tmp_path: Path) -> None:
    """An object that is no data is refused with its place, and the file that was there stays."""
    file = tmp_path / "state.safetensors"
    write_snapshot(file, {"a": 1})
    for value in (object(), torch.empty(2, device="meta"), np.array([object()])):
        with pytest.raises(CheckpointError, match=r"state\['b'\]\[1\] is .* cannot hold"):
            write_snapshot(file, {"b": [0, value]})
    assert read_snapshot(file) == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_tied_tensors(tmp_path: Path) -> None:
    """Tensors that are the same, or parts of one memory, are kept; safetensors alone refuses them."""
    whole = torch.arange(6.0)
    write_snapshot(tmp_path / "s", {"one": whole, "same": whole, "part": whole[2:4], "turned": whole.view(2, 3).T})
    found = read_snapshot(tmp_path / "s")
    assert found["one"].tolist() == found["same"].tolist() == [0, 1, 2, 3, 4, 5]
    assert (found["part"].tolist(), found["turned"].tolist()) == ([2, 3], [[0, 3], [1, 4], [2, 5]])


@settings(deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 7), st.booleans())
def test_damage_is_noticed(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int, cut: bool) -> None:
    """A flipped bit or a missing end anywhere in a file is an error, unless what it holds is the same."""
    file = tmp_path_factory.mktemp("damaged") / "s"
    state = {"weights": torch.arange(40.0), "step": 7, "lr": 0.1}
    write_snapshot(file, state)
    data = bytearray(file.read_bytes())
    at %= len(data)
    data[at] ^= 1 << bit
    file.write_bytes(data[:at] if cut else data)
    try:
        found = read_snapshot(file)
    except CheckpointError:
        return
    assert same(state, found)


class Own:
    """What a stage remembers: nothing."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        assert state == {}


def keeper(path: Path, every: float = 0.0, said: list[str] | None = None) -> Keeper:
    """A keeper of a stage that remembers nothing of its own."""
    return Keeper(path, {"threads": 1}, every, Own(), ([] if said is None else said).append)


class Stopping(Tracker):
    """Stops at a step as a kill does; counts steps."""

    def __init__(self, at: int = -1) -> None:
        self.at, self.steps = at, 0

    def step(self, step: int, values: Any) -> None:
        self.steps += 1
        if self.steps == self.at:
            raise MemoryError("stopped by the test")


def network() -> nn.Module:
    """A small network with dropout, always the same."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 2))


def loss(net: Any, batch: Any) -> torch.Tensor:
    """Squared outputs."""
    out: torch.Tensor = net(batch).square().mean()
    return out


ITEMS = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))


def test_every_loop_of_a_stage_is_kept(tmp_path: Path) -> None:
    """A stage with three loops, stopped in the second: the first is not done again, the second continues, the third runs."""

    def stage(tracker: Tracker) -> list[torch.Tensor]:
        net = network()
        first = train(net, [ITEMS[:8]], loss, 5, tracker)
        fit = fit_masks(net, [ITEMS[8:16]], loss, steps=5, lr=0.5, samples=2, progress=tracker)
        last = train(net, [ITEMS[16:]], loss, 5, tracker)
        histories = [torch.tensor(h["loss"].values) for h in (first, fit.history, last)]
        return [*net.state_dict().values(), *fit.logits.values(), *histories]

    torch.manual_seed(1)
    expected = stage(Tracker())
    torch.manual_seed(1)
    with pytest.raises(MemoryError), keeper(tmp_path / "s").active():
        stage(Stopping(at=8))
    torch.manual_seed(1)
    tracker = Stopping()
    with keeper(tmp_path / "s").active():
        found = stage(tracker)
    assert all(map(torch.equal, expected, found))
    assert tracker.steps == 15 - 7


@pytest.mark.parametrize("kind", ["list", "loader", "generator"])
def test_batches_without_a_state_of_their_own(kind: str, tmp_path: Path) -> None:
    """A list, a loader that shuffles anew in every pass, and a generator continue with the very batches that were next."""

    def batches() -> Any:
        if kind == "list":
            return list(ITEMS.split(8))
        if kind == "loader":
            return DataLoader(ITEMS, batch_size=8, shuffle=True)  # type: ignore[arg-type]
        return (
            ITEMS[torch.randperm(24, generator=g)[:8]] for g in [torch.Generator().manual_seed(5)] for _ in range(20)
        )

    def stage(tracker: Tracker) -> list[torch.Tensor]:
        net = network()
        train(net, batches(), loss, 11, tracker)
        return list(net.state_dict().values())

    torch.manual_seed(1)
    expected = stage(Tracker())
    torch.manual_seed(1)
    with pytest.raises(MemoryError), keeper(tmp_path / "s").active():
        stage(Stopping(at=9))
    torch.manual_seed(1)
    tracker = Stopping()
    with keeper(tmp_path / "s").active():
        found = stage(tracker)
    assert all(map(torch.equal, expected, found))
    assert tracker.steps == 11 - 8


def test_batches_that_are_not_the_same_again_are_noticed(tmp_path: Path) -> None:
    """Batches from a source of their own cannot be continued exactly: that is an error, and the next attempt starts over."""

    def ever_new() -> Iterator[torch.Tensor]:
        rng = np.random.default_rng()
        while True:
            yield torch.from_numpy(rng.normal(size=(8, 4))).float()

    with pytest.raises(MemoryError), keeper(tmp_path / "s").active():
        train(network(), ever_new(), loss, 9, Stopping(at=4))
    with pytest.raises(RunError, match="not the same when they are drawn again"), keeper(tmp_path / "s").active():
        train(network(), ever_new(), loss, 9)
    assert not (tmp_path / "s").exists()


def test_a_route_that_was_chosen_by_the_clock_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With executor="fastest" a continued stage keeps its route, and says so, though the clock would now choose the other."""
    from modhook.stacked import settle

    def stage(tracker: Tracker) -> str:
        fit = fit_masks(network().eval(), [ITEMS], loss, steps=5, executor="fastest", progress=tracker)
        return str(fit.route["route"])

    for first, route in ((True, "loop"), (False, "vmap")):
        file = tmp_path / route
        monkeypatch.setattr(settle, "_measured", lambda *_, loop=first: (loop, "measured"))
        with pytest.raises(MemoryError), keeper(file).active():
            stage(Stopping(at=3))
        monkeypatch.setattr(settle, "_measured", lambda *_, loop=first: (not loop, "measured"))
        with keeper(file).active():
            assert stage(Tracker()) == route
    assert stage(Tracker()) == "loop"  # what the clock says now


class Counter:
    """The smallest thing with a state."""

    def __init__(self) -> None:
        self.n = 0

    def state_dict(self) -> dict[str, Any]:
        return {"n": self.n}

    def load_state_dict(self, state: Any) -> None:
        self.n = state["n"]


def test_ctrl_c_saves_and_a_second_one_stops_at_once(tmp_path: Path) -> None:
    """The first interrupt waits for the end of the step and saves it; the next is Python's own; so it is afterwards."""
    said: list[str] = []

    def first() -> None:
        part = Counter()
        with keeper(tmp_path / "s", every=1e9).active(), kept(part, said.append) as after:
            part.n = 1
            after()
            assert not (tmp_path / "s").exists()
            signal.raise_signal(signal.SIGINT)
            part.n = 2
            after()

    def second() -> None:
        part = Counter()
        with keeper(tmp_path / "s", every=1e9).active(), kept(part, said.append):
            assert part.n == 2
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    for stage in (first, second):
        with pytest.raises(KeyboardInterrupt):
            stage()
    assert "Ctrl-C again" in said[0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint comes after its interval, and never takes more than a hundredth of the time, however slow the disk is."""
    from modhook.steps import checkpoint

    clock, writes = [0.0], []

    def slow(path: Path, state: Any) -> None:
        writes.append(clock[0])
        clock[0] += 5  # seconds

    monkeypatch.setattr(checkpoint, "write_snapshot", slow)
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock[0])
    for every, expected in ((100.0, [100, 605, 1110]), (600.0, [600, 1205])):
        clock[0] = 0.0
        writes.clear()
        part = Counter()
        with keeper(tmp_path / "s", every).active(), kept(part, print) as after:
            while clock[0] < 1500:
                clock[0] += 1
                after()
        assert [round(w) for w in writes] == expected
        assert 5 * len(writes) / clock[0] <= 0.0101


def test_a_disk_that_refuses_does_not_end_the_run(tmp_path: Path) -> None:
    """A checkpoint that cannot be written, or not of such state, is said, and the loop goes on."""
    (tmp_path / "file").write_text("")
    said: list[str] = []
    part = Counter()
    with keeper(tmp_path / "file" / "s", said=said).active(), kept(part, said.append) as after:
        after()
    assert "cannot be written" in said[0]
    part.n = object()  # type: ignore[assignment]
    with keeper(tmp_path / "s", said=said).active(), kept(part, said.append) as after:
        after()
        after()
    assert len(said) == 2
    assert "state['calls'][0]['loop']['n'] is of type object" in said[1]


def test_a_loop_within_a_loop_is_not_kept(tmp_path: Path) -> None:
    """What a callback trains belongs to the outer loop's step: the file holds one loop."""
    path = tmp_path / "s"

    def callback(step: int) -> None:
        train(network(), [ITEMS], loss, 2)

    with keeper(path).active():
        train(network(), [ITEMS], loss, 3, callback=callback)
    assert len(read_snapshot(path)["calls"]) == 1


def test_equal_state_has_equal_digests() -> None:
    """A digest depends on values, types and places."""
    one = digest({"a": torch.ones(2), "b": 1})
    assert one == digest({"a": torch.ones(2), "b": 1})
    others = [{"a": torch.ones(2), "b": 2}, {"a": torch.ones(2).double(), "b": 1}, {"b": 1, "a": torch.zeros(2)}]
    assert one not in [digest(o) for o in others]


def test_time_is_counted_over_processes(tmp_path: Path) -> None:
    """The seconds of a continued stage include those before it was stopped."""
    part = Counter()
    with keeper(tmp_path / "s").active(), kept(part, print) as after:
        time.sleep(0.2)
        after()
    second = keeper(tmp_path / "s")
    with second.active():
        assert 0.2 <= second.seconds < 5
