"""Standard output and error that nothing on the other side can break: an ASCII terminal, a reader that left, a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

_PLAIN = str.maketrans(
    {
        "±": "+-", "×": "x", "·": ".", "…": "...", "–": "-", "—": "-", "−": "-", "≥": ">=", "≤": "<=", "→": "->", "ö": "o",
        "β": "beta", "─": "-", "━": "=", "│": "|", "┃": "|", "╺": "-", "╸": "-", "•": "*", "’": "'", "“": '"', "”": '"',
    }
)  # fmt: skip
"""What stands for a sign where it cannot be written; every other is written as its escape."""
_LEFT = (errno.EPIPE, errno.ESHUTDOWN, *((errno.EINVAL,) if os.name == "nt" else ()))


class Tolerant:
    """A text stream around another one. Signs that it cannot encode are replaced; once it refuses, nothing more is written.

    Attributes:
        failure: why it refused, if it did.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.failure: OSError | ValueError | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # click would write past this class
            raise AttributeError(name)
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, if that is still possible."""
        if self.failure is None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding
                plain = text.translate(_PLAIN).encode(encoding, "backslashreplace").decode(encoding)
                return self.write(plain) and len(text)
            except (OSError, ValueError) as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Flush, if that is still possible."""
        if self.failure is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._give_up(error)

    def _give_up(self, error: OSError | ValueError) -> None:
        self.failure = error
        # What the stream still holds would be tried again when Python ends, and reported there.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def tolerant() -> Iterator[list[str]]:
    """Within it, `sys.stdout` and `sys.stderr` are tolerant. At its end, the list that is yielded says what was lost of the output.

    A reader that left, such as `head`, has what it wanted: that is no loss. A stream that was closed from the start takes
    nothing, and its number is given to no file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before, lost = (sys.stdout, sys.stderr), list[str]()
    ours = [None if stream is None else Tolerant(stream) for stream in before]
    sys.stdout, sys.stderr = ours
    try:
        yield lost
    finally:
        for stream in ours:
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before
        out = ours[0].failure if ours[0] is not None else None
        if out is not None and getattr(out, "errno", None) not in _LEFT:
            lost.append(getattr(out, "strerror", None) or str(out))
