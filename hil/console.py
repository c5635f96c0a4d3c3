"""What the commands of the bench say besides their results, all on stderr: -q leaves errors, -v adds libraries."""

import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import typer
from typer.core import TyperGroup

from payload.errors import InputError

#: These are understood before and after the name of a command.
ANYWHERE = ("-v", "--verbose", "-q", "--quiet")
NOISY = ("asyncssh", "pyvisa", "matplotlib", "PIL", "fontTools", "rasterio")


class Root(TyperGroup):
    """The group of all commands; it takes -v and -q wherever they stand."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        end = args.index("--") if "--" in args else len(args)
        front = [word for word in args[:end] if word in ANYWHERE]
        rest = [word for word in args[:end] if word not in ANYWHERE]
        return super().parse_args(ctx, front + rest + args[end:])


def set_up(verbose: bool, quiet: bool) -> None:
    """Doubts of the host and lines of the agent on stderr; -v adds what libraries say, -q leaves only errors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("hil: %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.CRITICAL)


def quiet() -> bool:
    return logging.getLogger().level >= logging.ERROR


def say(words: str) -> None:
    """A note beside the results."""
    if not quiet():
        sys.stderr.write(f"{words}\n")


def guarded(run: Callable[[], object]) -> int:
    """Exit code of a command; bad input, and whatever else goes wrong, becomes one line and 2."""
    try:
        run()
    except InputError as error:
        return _said(str(error))
    except OSError as error:
        return _said(f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}")
    except Exception as error:
        return _said(_unforeseen(error))
    return 0


def _said(line: str) -> int:
    sys.stderr.write(f"hil: {' '.join(line.split())}\n")
    return 2


def _unforeseen(error: Exception) -> str:
    if logging.getLogger().level <= logging.DEBUG:
        traceback.print_exception(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{type(error).__name__}: {str(error)[:200]} (at {Path(last.filename).name}:{last.lineno}); "
        "an input that was not foreseen: -v shows where, please report it"
    )
