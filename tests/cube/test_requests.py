"""How a cube asks its store: metadata once per change, labels once."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore

from modhook.cube import Cube, create, read_weights
from modhook.cube.metadata import Draft
from modhook.cube.place import Folder
from modhook.errors import DamageError
from modhook.plugin.variables import Variable

PROTOTYPE = default_buffer_prototype()
KEYS = ("a/zarr.json", "a/b/zarr.json", "a/c/0", "ab/zarr.json")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(("get", "exists", "delete")), st.sampled_from(KEYS)),
        st.tuples(st.sampled_from(("set", "set_if_not_exists")), st.sampled_from(KEYS), st.binary(min_size=1, max_size=2)),
        st.tuples(st.just("delete_dir"), st.sampled_from(("a", "a/b"))),
    ),
    max_size=12,
)


def did(store: Any, step: tuple[Any, ...]) -> bytes | bool | None:
    """Do one step; return what it gives."""
    what, key, *value = step
    arguments = [PROTOTYPE] if what == "get" else [PROTOTYPE.buffer.from_bytes(v) for v in value]
    found = sync(getattr(store, what)(key, *arguments))
    return found.to_bytes() if isinstance(found, Buffer) else found


@given(STEPS)
def test_a_draft_answers_as_its_store_would(steps: list[tuple[Any, ...]]) -> None:
    """Whatever is read, written and deleted in whatever order: what a draft remembers is what is there."""
    draft, plain = Draft(MemoryStore()), MemoryStore()
    for step in steps:
        assert did(draft, step) == did(plain, step)
    assert all(did(draft, ("get", key)) == did(plain, ("get", key)) for key in KEYS)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was read: through zarr, or by the records."""
    counts: Counter[str] = Counter()
    get, read = LocalStore.get, Folder.read

    async def counted(store: LocalStore, key: str, *rest: Any, **named: Any) -> Any:
        counts[key] += 1
        return await get(store, key, *rest, **named)

    def raw(place: Folder, key: str) -> bytes:
        counts[key] += 1
        return read(place, key)

    monkeypatch.setattr(LocalStore, "get", counted)
    monkeypatch.setattr(Folder, "read", raw)
    return counts


def test_creating_reads_nothing(asked: Counter[str], plan: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new cube is written without a question to its store, the root after all other files."""
    written: list[str] = []
    whole = LocalStore.set

    async def told(store: LocalStore, key: str, *rest: Any, **named: Any) -> None:
        written.append(key)
        await whole(store, key, *rest, **named)

    monkeypatch.setattr(LocalStore, "set", told)
    monkeypatch.setattr("modhook.cube.creation.Cube", str)  # it is not opened
    create(tmp_path / "a.zarr", plan())
    assert not asked
    assert written[-1] == "zarr.json"
    assert sorted(written) == sorted({str(f.relative_to(tmp_path / "a.zarr")) for f in (tmp_path / "a.zarr").rglob("*") if f.is_file()})


@pytest.mark.parametrize(
    "change",
    [
        lambda cube: cube.add_variables([Variable("new/x", ("stage",), "float64", "d")], {"new": {"stage": ["add"]}}),
        lambda cube: cube.grow_seeds(3),
    ],
    ids=["variables", "seeds"],
)
def test_a_change_reads_metadata_once(asked: Counter[str], cube: Cube, change: Callable[[Cube], None]) -> None:
    """Further variables, and further seeds: each node's own metadata are read once, to be compared with the root's."""
    asked.clear()
    change(cube)
    read = {key: n for key, n in asked.items() if key.endswith("/zarr.json")}
    assert len(read) > 20
    assert set(read.values()) == {1}, read


def test_labels_and_tables_are_read_once(asked: Counter[str], full_cube: Cube) -> None:
    """Weights of one run after another: what all runs share is read once, the files of the runs each time."""
    cube = Cube(full_cube.path)
    (layout,) = {name.split("/")[1] for name in cube.variables if name.startswith("masks/")}
    asked.clear()
    for run in cube.runs():
        read_weights(cube, layout, run)
    shared = {key: n for key, n in asked.items() if key.startswith(("seed/c", "runs/stage/c")) or key.rsplit("/c/")[0] in cube.tables}
    assert len(shared) >= 5
    assert set(shared.values()) == {1}, shared


def test_a_pending_stage_is_pending_where_the_record_is_lost(full_cube: Cube, tmp_path: Path) -> None:
    """The mark of a done stage without its record is refused; that of one that is not done can be read."""
    path = Path(shutil.copytree(full_cube.path, tmp_path / "a.zarr"))
    run = {"seed": 2, "masks.beta": 3e-5}
    Cube(path).set_status(run, "control", "pending")
    (path / "runs/digest/c/1/1").unlink()
    assert Cube(path).status(run, "control") == "pending"
    with pytest.raises(DamageError, match="the record of what it wrote"):
        Cube(path).status(run, "add")
    with pytest.raises(DamageError, match="the record of what it wrote"):
        Cube(path).read("runs/threads", run, stage="control")
