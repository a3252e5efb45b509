"""What is read of the official data: the text files of one module, and which characters all files have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from modhook.errors import DataError

FOLDER = "mathematics_dataset-v1.0"
ARCHIVE = f"{FOLDER}.tar.gz"
_PRINTABLE = bytes(range(32, 127))


@attrs.frozen
class Contents:
    """The texts of one module by set (questions and answers, one a line, in turns), and the characters of everything, sorted."""

    texts: Mapping[str, bytes]
    characters: str


class Characters:
    """Collects the characters of texts; the end of a line is none."""

    def __init__(self) -> None:
        self._seen = b"\n"

    def add(self, text: bytes, where: str) -> None:
        """Add a text. Raises `DataError` if it is more than plain ASCII."""
        new = bytes(set(text.translate(None, self._seen)))
        if strange := new.translate(None, _PRINTABLE):
            raise DataError(
                f"{where} holds the byte {strange[:1]!r}, but the official questions are plain ASCII text with lines that "
                f"end in a line feed; take the files of {ARCHIVE} as they are."
            )
        self._seen += new

    def sorted(self) -> str:
        """Return all characters so far, in the order of their codes."""
        return "".join(sorted(self._seen.decode("ascii").replace("\n", "")))


def pairs(text: bytes, where: str) -> tuple[list[bytes], list[bytes]]:
    """Return the questions and the answers of a text. Raises `DataError`."""
    lines = text.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if len(lines) % 2 or not lines:
        raise DataError(
            f"{where} has {len(lines)} lines, but questions and answers come in turns; it is cut off or another file."
        )
    if b"" in lines:
        raise DataError(f"{where}, line {lines.index(b'') + 1} is empty; it is no file of the official data.")
    return lines[::2], lines[1::2]


def lacks(where: str, wanted: Iterable[str]) -> DataError:
    """Return the error for files that are not there."""
    return DataError(
        f"{where} lacks {', '.join(wanted)}; name the folder {FOLDER} of the official data, version 1.0, or its archive "
        f"{ARCHIVE}."
    )
