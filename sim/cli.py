"""The command line of the ground: runs a command, and turns whatever goes wrong into one line.

Exit 0: all held; 1: a requirement failed; 2: bad input, or an error that nobody foresaw.
"""

import logging
import sys

from hil.console import guarded
from payload.version import described
from sim.commands.console import stop_on_signals
from sim.heap import give_large_arrays_their_own_pages

log = logging.getLogger(__name__)

OWN = ("payload", "sim", "hil", "devices")
MISSING: str | None = None
try:
    from sim.commands.root import app
except ModuleNotFoundError as error:  # the base install, which flies: it lacks what the ground needs
    MISSING = error.name or ""
    if MISSING.partition(".")[0] in OWN:
        raise


def main() -> None:
    """Entry point of the console script `sim`."""
    if MISSING is not None:
        sys.exit(_without_the_ground(MISSING))
    stop_on_signals("sim")
    give_large_arrays_their_own_pages()
    sys.unraisablehook, sys.excepthook = _ignored, _printed
    sys.exit(guarded("sim", app))


def _ignored(event: "sys.UnraisableHookArgs") -> None:
    """What a library raised where nobody could catch it, such as a message of GDAL that is no UTF-8: no traceback."""
    log.debug("ignored in %r: %s", event.object, event.exc_value)


def _printed(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """What a compiled library would print and go on: ours are caught below."""
    log.debug("printed by a library: %s: %s", kind.__name__, error)


def _without_the_ground(missing: str) -> int:
    if sys.argv[1:] == ["--version"]:
        print(f"sim {described()}")
        return 0
    print(f"sim: {missing} is not installed; pip install 'nadir-payload[ground]'", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
