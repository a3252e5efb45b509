"""Networks and tokenizers of `transformers`: from a local folder or the Hugging Face hub, and said in a sentence where neither has it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TypeVar

from modhook import UserError, study_path
from modhook.errors import near_file

T = TypeVar("T")


def transformers(what: str, name: str) -> ModuleType:
    """Import `transformers`. Raises `UserError` where it is not installed."""
    try:
        import transformers as package
    except ImportError as error:
        raise UserError(
            f"the {what} {name!r} needs the package transformers, which is not installed here (pip install 'modhook[lm]'): {error}."
        ) from None
    module: ModuleType = package
    return module


def is_folder(name: str) -> bool:
    """Whether a name can only be that of a local folder, and none of the hub's (`gpt2`, `EleutherAI/pythia-70m`)."""
    return name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1 or "\\" in name


def checked_folder(what: str, name: str) -> None:
    """Raise `UserError` for a name of a folder that is not there."""
    path = study_path(name)
    if is_folder(name) and not path.is_dir():
        raise UserError(f"there is no folder {str(path)!r}{near_file(path)} for the {what}; its name is relative to the study file.")


def found_in(what: str, name: str, load: Callable[[str], T]) -> T:
    """Return what `load` makes of a local folder, if there is one of this name, or of a name on the hub. Raises `UserError`."""
    path = study_path(name)
    local = path.is_dir()
    checked_folder(what, name)
    try:
        with quiet():
            return load(str(path) if local else name)
    except UserError:
        raise
    except Exception as error:  # transformers and the hub raise many kinds, OSError above all
        if local:
            raise UserError(f"the folder {str(path)!r} holds no {what} that transformers can load: {_first(error)}.") from error
        raise UserError(
            f"there is no folder {str(path)!r}, and the Hugging Face hub gave no {what} {name!r} ({_first(error)}); without a "
            "connection, name a folder in which it was saved with save_pretrained."
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within it `transformers` and the hub say nothing by themselves: what matters is asked for, and said in one sentence."""
    names = ("transformers", "huggingface_hub", "httpx")
    levels = {name: logging.getLogger(name).level for name in names}
    from transformers.utils import logging as theirs

    shown = theirs.is_progress_bar_enabled()
    theirs.disable_progress_bar()
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if shown:
            theirs.enable_progress_bar()


def _first(error: BaseException) -> str:
    """Return the first sentence of what a library says."""
    return said(error).split(". ")[0][:200]


def said(error: BaseException) -> str:
    """Return what a library says as one line without its full stop."""
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
