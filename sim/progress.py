"""What long work says of itself while it runs."""

from collections.abc import Callable

#: Told what was just finished, and how many such steps there are in all: one row of tiles, on board or on the ground.
Progress = Callable[[str, int], None]


def silent(label: str, total: int) -> None:
    """For callers that want to hear nothing."""
