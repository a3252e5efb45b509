"""Small plugins without torch, and study files made from a base that is in order."""

from __future__ import annotations

import copy
import enum
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import pytest
from annotated_types import Ge, Interval, MinLen, MultipleOf

from modhook.errors import StudyError, UserError
from modhook.plugin.hookspecs import Spec
from modhook.plugin.interfaces import Analysis, Model, Protocol, Sampler, Stage, Task, Tracker
from modhook.plugin.manager import Entry, Plugins
from modhook.study import Study, load


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Noise:
    scale: float = 1.0


def _even(_: Any, attribute: attrs.Attribute[int], value: int) -> None:
    if value % 2:
        raise ValueError(f"{attribute.name} must be even, not {value}")


@attrs.frozen
class ToyOptions:
    mode: Literal["together", "apart"] = "together"
    size: Annotated[int, Interval(ge=1, le=1000)] = 100
    even: int = attrs.field(default=2, validator=_even)
    splits: tuple[str, ...] = ("iid", "hard")
    colour: Colour = Colour.RED
    noise: Noise = attrs.field(factory=Noise)
    folder: Path | None = None
    shares: Mapping[str, float] = attrs.field(factory=dict)
    limit: int | Literal["all"] = "all"
    fragile: bool = False
    extra: Any = None
    taboo: tuple[int, ...] = ()


class Toy(Task):
    Options = ToyOptions

    def __init__(self, options: ToyOptions) -> None:
        super().__init__(options)
        if options.size == 13:
            raise UserError("a toy of size 13 is unlucky; choose another size")
        if (options.size, options.extra) == options.taboo:
            raise UserError(f"size {options.size} and extra {options.extra} are taboo together")
        if options.fragile:
            raise RuntimeError("broken toy")

    @property
    def splits(self) -> tuple[str, ...]:
        return self.options.splits

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (Stage("control", "all of it"), Stage("half", "half of it"))

    def shape(self) -> Mapping[str, Any]:
        return {"inputs": 2}

    def train_set(self, stage: str | None) -> dict[str, Any]:
        raise AssertionError("a check loads no data")

    def test_set(self, split: str) -> dict[str, Any]:
        raise AssertionError("a check loads no data")

    def loss(self, net: Any, batch: Any) -> Any:
        raise AssertionError("a check computes nothing")

    def score(self, net: Any, batch: Any) -> Any:
        raise AssertionError("a check computes nothing")


@attrs.frozen
class MlpOptions:
    hidden: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (8, 8)
    heads: Annotated[int, MultipleOf(2)] = 2


class Mlp(Model):
    Options = MlpOptions

    def build(self, shape: Mapping[str, Any]) -> Any:
        raise AssertionError("a check builds nothing")


@attrs.frozen
class GumbelOptions:
    temperature: Annotated[float, Interval(gt=0)] = 1.0


class Gumbel(Sampler):
    Options = GumbelOptions

    def apply(self, weight: Any, logits: Any, generators: Any) -> Any:
        raise AssertionError("a check samples nothing")


class Posthoc(Protocol):
    cuts = True

    def stages(self, task: Task) -> tuple[str, ...]:
        return ("unmasked", *self.masked_stages(task))

    def masked_stages(self, task: Task) -> tuple[str, ...]:
        return tuple(stage.name for stage in task.stages)

    def run(self, context: Any) -> None:
        raise AssertionError("a check runs nothing")


class Quiet(Tracker):
    """Says nothing."""


class Together(Posthoc):
    """Weights and masks together: no base training."""

    trains = False


@attrs.frozen
class SharingOptions:
    pooled: bool = True


class Sharing(Analysis):
    Options = SharingOptions

    def variables(self, task: Task) -> tuple[Any, ...]:
        return ()

    def compute(self, run: Any) -> dict[str, Any]:
        return {}


class Wordless(Model):
    """Its options are no attrs class: a mistake of a plugin's author."""

    Options = dict

    def build(self, shape: Mapping[str, Any]) -> Any:
        raise AssertionError("a check builds nothing")


NOT_A_FUNCTION = 3


def network(width: int, *, depth: int = 2) -> str:
    """Stand for a network that is no plugin."""
    return f"{width}x{depth}"


def _entry(kind: str, name: str, target: str) -> Entry:
    return Entry(kind, Spec(name, "a toy", f"{__name__}:{target}"), "toybox")


Base = dict[str, dict[str, str]]
BASE: Base = {
    "study": {"name": '"toy"'},
    "task": {"name": '"toy"'},
    "model": {"name": '"mlp"'},
    "train": {"steps": "10"},
    "masks": {"steps": "5"},
}


def _dump(tables: Base) -> str:
    return "".join(f"[{name}]\n" + "".join(f"{k} = {v}\n" for k, v in table.items()) for name, table in tables.items())


@pytest.fixture(scope="session")
def here() -> str:
    """The name of this module, which a study can name callables of."""
    return __name__


@pytest.fixture(scope="session")
def toys() -> Plugins:
    """Plugins that need no torch."""
    return Plugins(
        [
            _entry("tasks", "toy", "Toy"),
            _entry("models", "mlp", "Mlp"),
            _entry("models", "wordless", "Wordless"),
            _entry("models", "absent", "Absent"),
            _entry("samplers", "gumbel", "Gumbel"),
            _entry("protocols", "posthoc", "Posthoc"),
            _entry("protocols", "together", "Together"),
            _entry("analyses", "sharing", "Sharing"),
            _entry("trackers", "progress", "Quiet"),
        ],
        [],
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write a study file and return its path."""

    def _write(text: str) -> Path:
        path = tmp_path / "toy.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


@pytest.fixture
def make(write: Callable[[str], Path]) -> Callable[..., Path]:
    """Write the base study with some values (TOML text) set, `None` removing a key, and return its path."""

    def _make(values: Mapping[tuple[str, str], str | None] | None = None, after: str = "") -> Path:
        tables = copy.deepcopy(BASE)
        for (section, key), value in (values or {}).items():
            table = tables.setdefault(section, {})
            if value is None:
                del table[key]
            else:
                table[key] = value
        return write(_dump(tables) + after)

    return _make


@pytest.fixture
def loaded(make: Callable[..., Path], toys: Plugins) -> Callable[..., Study]:
    """Load the base study with some values set."""

    def _loaded(values: Any = None, after: str = "", **options: Any) -> Study:
        return load(make(values, after), plugins=toys, **options)

    return _loaded


@pytest.fixture
def problems(loaded: Callable[..., Study]) -> Callable[..., tuple[str, ...]]:
    """Return what is wrong with the base study after some values are set; fail if nothing is."""

    def _problems(values: Any = None, after: str = "", **options: Any) -> tuple[str, ...]:
        with pytest.raises(StudyError) as caught:
            loaded(values, after, **options)
        return caught.value.problems

    return _problems
