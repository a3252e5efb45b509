"""matplotlib as it comes, whatever the user's settings are: a figure is the same on every machine, and no window is ever opened."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from modhook.errors import ModhookError, UserError

# Packages that matplotlib draws with; an error from inside them is the installation's, not the figure's.
_ITS_OWN = ("matplotlib", "mpl_toolkits", "PIL", "kiwisolver", "contourpy", "fontTools", "pyparsing")
_REPAIR = "repair it with `python -m pip install --force-reinstall matplotlib`"


def ready() -> None:
    """Import matplotlib, before any figure does. Raises `UserError`, in one sentence, where it cannot be imported."""
    if "matplotlib" in sys.modules:
        return
    # A backend that is not installed would end the import; figures are drawn without one.
    asked = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib as mpl
        import matplotlib.figure
    except Exception as error:  # whatever is wrong with an installation or with a settings file
        raise UserError(
            f"matplotlib, which draws the figures, cannot be imported ({_short(error)}); {_REPAIR}, or mend the settings file "
            "matplotlibrc that it reads."
        ) from error
    finally:
        if asked is not None:
            os.environ["MPLBACKEND"] = asked
    if asked:
        with contextlib.suppress(ValueError):
            mpl.rcParams["backend"] = asked


@contextlib.contextmanager
def defaults(name: str) -> Iterator[None]:
    """Use matplotlib's own defaults within the context, and the user's settings and backend again after it.

    Text in SVG and PDF stays text. `name` makes the identifiers in an SVG the same each time.
    """
    import matplotlib as mpl

    backend: Any = mpl.rcParams.copy()["backend"]  # in a copy, asking does not choose one
    mpl.use("agg")
    try:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(
                {
                    "svg.fonttype": "none",
                    "pdf.fonttype": 42,
                    "svg.hashsalt": name,
                    "timezone": "UTC",
                    "interactive": False,
                }
            )
            yield
    finally:
        # First the name, then its module: a notebook's backend asks for the name when it is imported, and shows no figure otherwise.
        mpl.rcParams["backend"] = backend
        if isinstance(backend, str) and (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
            with contextlib.suppress(ImportError):
                pyplot.switch_backend(backend)


@contextlib.contextmanager
def installation_blamed(name: str) -> Iterator[None]:
    """Turn an error of matplotlib's installation (no font, no LaTeX, a missing library) into a `UserError` that names it."""
    try:
        yield
    except ModhookError:
        raise
    except (ImportError, OSError, RuntimeError) as error:
        if not _inside(error):
            raise
        raise UserError(
            f"matplotlib cannot draw the figure {name!r} here ({_short(error)}); {_REPAIR}, or install what it asks for."
        ) from error


def _inside(error: BaseException) -> bool:
    """Return whether an error was raised inside matplotlib or what it draws with."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and any(part in _ITS_OWN for part in PurePath(frames[-1].filename).parts)


def _short(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
