"""Where an answer lives: a cube that the user names, or a temporary one."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from modhook.asking.task import NAME
from modhook.cube import Where, is_url, open_for_writing, place_of
from modhook.errors import CubeError, UserError, listing
from modhook.study import PLAIN_NAME, Study, difference, resolved
from modhook.values.arguments import shown

_ENDING = ".zarr"


@attrs.frozen
class Home:
    """The cube's place: `FOLDER/NAME.zarr`."""

    folder: Where
    name: str
    temporary: bool = False

    @property
    def path(self) -> Where:
        """The cube."""
        file = self.name + _ENDING
        return (place_of(self.folder) / file).path if is_url(self.folder) else Path(self.folder) / file

    def discard(self) -> None:
        """Delete a temporary place; one that the user named stays."""
        if self.temporary:
            shutil.rmtree(self.folder, ignore_errors=True)


def home_of(out: Any) -> Home:
    """Return the place that `out` names. Raises `UserError`."""
    if out is None:
        return Home(Path(tempfile.mkdtemp(prefix="modhook-")), "answer", temporary=True)
    if not isinstance(out, str | Path):
        raise UserError(f"out must be the path of a cube, 'results/name.zarr', not {shown(out)}.")
    folder, _, last = str(out).rstrip("/").rpartition("/")
    name = last.removesuffix(_ENDING)
    if not last.endswith(_ENDING) or not re.fullmatch(PLAIN_NAME.pattern, name):
        raise UserError(
            f"out must be the path of a cube, 'results/name.zarr', with a name {PLAIN_NAME.what}; it is {shown(str(out))}."
        )
    return Home(folder if is_url(folder) else Path(folder or ("/" if str(out).startswith("/") else ".")), name)


def recorded_in(home: Home) -> Mapping[str, Any] | None:
    """Return the study that the cube which is there records; None where there is none."""
    if not place_of(home.path).exists():
        return None
    found: Mapping[str, Any] = open_for_writing(home.path).attrs.get("study", {})
    return found


def refuse_another(home: Home, study: Study, recorded: Mapping[str, Any] | None) -> None:
    """Raise `CubeError` if the cube that is there answers another question, saying what differs."""
    if recorded is None:
        return
    name = recorded.get("task", {}).get("name")
    if name != NAME:
        raise CubeError(
            f"{home.path} holds a study of the task {name!r}, and no answer of modhook.ask; give another out."
        )
    changes = list(_changes(recorded, resolved(study)))
    if changes:
        raise CubeError(
            f"{home.path} holds another question: {listing(changes, 5)}; give another out, or delete it to ask anew."
        )


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Say in words what differs of the question, and then what differs of how it is asked."""
    there, here = old["task"], new["task"]
    if there["functions"] != here["functions"]:
        yield f"its functions are {listing(there['functions'])} and not {listing(here['functions'])}"
        return
    if there["network"] != here["network"]:
        yield "the network is another one"
    for what, words in (("batches", "the batches of {} are others"), ("tests", "the tests of {} are others")):
        changed = [n for n in here["functions"] if there[what].get(n) != here[what].get(n)]
        if changed:
            yield words.format(listing(map(repr, changed)))
    spoiled = all("nonsense" in table.get("controls", {}) for table in (old, new))
    for what in ("loss", "score", *(("nonsense",) if spoiled else ())):
        changed = [n for n in here["functions"] if _of(there[what], n) != _of(here[what], n)]
        if changed and len(changed) == len(here["functions"]):
            yield f"the {what} is another one"
        elif changed:
            yield f"the {what} of {listing(map(repr, changed))} is another one"
    if old["masks"].get("off", "zero") != new["masks"].get("off", "zero"):
        yield "what weights become that are not kept (off) is another one"
    rest = [{k: v for k, v in table.items() if k != "task"} for table in (old, new)]
    rest = [{**table, "masks": {k: v for k, v in table["masks"].items() if k != "off"}} for table in rest]
    with contextlib.suppress(KeyError):
        yield from difference(rest[0], rest[1])


def _of(given: Any, name: str) -> Any:
    return given.get(name) if isinstance(given, Mapping) else given
