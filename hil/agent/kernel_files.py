"""Short files that the device's kernel shows below /sys and /proc: read so that none of them can make us wait."""

import os
from pathlib import Path

SYS = "/sys"
LONGEST_TEXT = 65536  # /proc/cpuinfo begins with what we look for


def text(path: Path) -> str | None:
    """What stands in the file, without what frames it; None where it cannot be read at once."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        return os.read(fd, LONGEST_TEXT).decode(errors="replace").strip("\0\n ")
    except OSError:
        return None
    finally:
        os.close(fd)


def number(path: Path) -> float | None:
    """The number in the file; None where there is none."""
    try:
        return float(text(path) or "")
    except ValueError:
        return None
