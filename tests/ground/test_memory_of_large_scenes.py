"""What keeps the memory of a run from growing with its scene, each in a process of its own."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sim.products.rasters import BLOCK_PX, STRIP_BLOCK_PX, block_px
from sim.scenes.rasters import LOOK_SAMPLES, _windows

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


@pytest.mark.parametrize("bands", (1, 4, 16, 17, 200, 512))
def test_no_block_of_many_bands_holds_more_than_one_of_sixteen(bands: int) -> None:
    for side in (BLOCK_PX, STRIP_BLOCK_PX):
        found = block_px(side, bands)
        assert bands * found**2 <= 16 * side**2 and found % 16 == 0
        assert (found == side) == (bands <= 16)


@pytest.mark.parametrize("bands", (1, 4, 13, 16, 17, 200, 512))
def test_a_scene_of_many_bands_is_not_looked_at_whole(bands: int) -> None:
    for shape in ((1000, 1000), (200, 50_000)):
        seen = sum(height * width * bands for _, _, height, width in _windows(shape, bands))
        assert seen <= LOOK_SAMPLES
    assert (_windows((1000, 1000), bands) == [(0, 0, 1000, 1000)]) == (bands <= 16)


#: A cube through the whole line, two threads. Peak of the process in MiB, without that of whoever started it.
CUBE = """
import sys
from pathlib import Path
from payload.stopwatch import peak_memory_mib
from sim.downlink import Request, downlink
from sim.heap import give_large_arrays_their_own_pages
from sim.progress import silent
give_large_arrays_their_own_pages()
scene, out = sys.argv[1:]
downlink(Request(scene, Path(out), bundle="edge-hyper", jobs=2), silent)
print(int(peak_memory_mib()))
"""
CUBE_PX, CUBE_BANDS = 320, 200


def write_cube(path: Path, height_px: int) -> Path:
    """ENVI, by lines: spectra mixed from three curves, and noise."""
    rng = np.random.default_rng(3)
    curves = 1000 + 800 * np.sin(np.linspace(0, 3, CUBE_BANDS)[None] * np.arange(1, 4)[:, None])
    with path.with_suffix(".bil").open("wb") as file:
        for row in range(height_px):
            shares = 1 + np.sin(np.arange(CUBE_PX)[None] / np.array([9, 31, 70])[:, None] + row / 17)
            line = curves.T @ shares / 3 + rng.normal(0, 4, (CUBE_BANDS, CUBE_PX))
            file.write(line.astype("<u2").tobytes())
    path.write_text(
        f"ENVI\nsamples = {CUBE_PX}\nlines = {height_px}\nbands = {CUBE_BANDS}\nheader offset = 0\n"
        "file type = ENVI Standard\ndata type = 12\ninterleave = bil\nbyte order = 0\n", encoding="ascii",
    )  # fmt: skip
    return path


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left alone")
def test_a_cube_five_times_as_long_takes_no_more_than_what_is_kept_at_hand(tmp_path: Path) -> None:
    peaks = []
    for height in (192, 960):
        scene = write_cube(tmp_path / f"{height}.hdr", height)
        peaks.append(run(CUBE, str(scene), str(tmp_path / f"out{height}")))
        assert json.loads((tmp_path / f"out{height}" / "report.json").read_text())["tiles"]["total"] == 5 * height // 64
    # GDAL's caches, strips read ahead and heaps of threads fill with a longer cube: 146 MiB were seen. Three copies of
    # all of its samples, which opening it once took, are 370.
    assert peaks[1] < peaks[0] + 200 and peaks[1] < 800, peaks
