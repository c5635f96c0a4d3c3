"""What keeps the memory of a run from growing with its scene, each in a process of its own."""

import platform
import subprocess
import sys

import pytest

#: A strip of 16 MiB is freed under a small object that stays, after a larger one had been freed. What is resident then.
STRIP = """
import sys
import numpy as np
from sim.heap import give_large_arrays_their_own_pages
if sys.argv[1] == "own pages":
    give_large_arrays_their_own_pages()
largest = np.ones(30 << 20, np.uint8)
del largest
strip, small = np.ones(16 << 20, np.uint8), np.ones(60_000, np.uint8)
del strip
resident = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
print(int(resident.split()[1]) // 1024)
"""


def run(code: str, *arguments: str) -> int:
    return int(subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left alone")
def test_a_freed_strip_is_not_kept_by_what_was_made_after_it() -> None:
    assert run(STRIP, "own pages") < run(STRIP, "as it comes") - 10


def test_gdal_s_cache_is_bounded_outside_of_our_environments_too() -> None:
    code = "import sim.products.rasters; from rasterio.env import get_gdal_config as told; print(told('GDAL_CACHEMAX'))"
    assert run(code) == 64 * 2**20


#: An array of 4 MiB is made, filled and freed again and again. How often pages had to be fetched for one.
AGAIN = """
import resource
import numpy as np
from sim.heap import give_large_arrays_their_own_pages
give_large_arrays_their_own_pages()
np.ones(4 << 20, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(4 << 20, np.uint8)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left alone")
def test_what_a_tile_leaves_is_at_hand_for_the_next() -> None:
    assert run(AGAIN) < 20
