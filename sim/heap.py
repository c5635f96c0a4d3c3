"""Memory goes back where it came from, so that a run over a large scene, or over many, stays flat."""

import ctypes

#: `M_MMAP_THRESHOLD` of mallopt(3), and its value: below a strip of a large scene, above what is made for each tile.
MMAP_THRESHOLD, OWN_PAGES_OCTETS = -3, 8 * 2**20
#: `M_TRIM_THRESHOLD`, and its value: what one tile takes stays at hand for the next.
TRIM_THRESHOLD, KEPT_OCTETS = -1, 16 * 2**20


def give_large_arrays_their_own_pages() -> None:
    """glibc raises its threshold to the largest array that was ever freed. Strips then lie in the heap, whose holes
    small objects cut to pieces: 200 MiB of them at a scene of 10 980 px. A threshold that is set stays. But then the
    end of a heap goes back as soon as 128 KiB of it are free, and comes again page by page: a third of the time that
    drawing a block took. Other allocators are left alone."""
    _call("mallopt", MMAP_THRESHOLD, OWN_PAGES_OCTETS)
    _call("mallopt", TRIM_THRESHOLD, KEPT_OCTETS)


def give_back_free_pages() -> None:
    """What tiles of the last strip left free in the heaps of all threads, before the next one comes."""
    _call("malloc_trim", 0)


def _call(entry: str, *arguments: int) -> None:
    """Of the C library, where it has it."""
    found = getattr(ctypes.CDLL(None), entry, None)
    if found is not None:
        found(*arguments)
