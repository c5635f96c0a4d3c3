"""The compiled kernel, which carries the digest of the sources it was built from. All else stands in pyproject.toml."""

import runpy
from pathlib import Path

from setuptools import Extension, setup

sources = runpy.run_path(str(Path(__file__).parent / "payload" / "native" / "sources.py"))

# Optional: where no compiler is at hand, the payload computes the same octets in numpy. No -march: one build for all.
# -fno-wrapv because CPython builds with -fwrapv, under which loops over places are not vectorised: half the speed.
setup(
    ext_modules=[
        Extension(
            "payload.native._kernel",
            ["payload/native/kernel.c"],
            depends=[f"payload/native/{path.name}" for path in sources["chapters"]()],
            define_macros=[("NADIR_SOURCES", f'"{sources["digest"]()}"')],
            optional=True,
            extra_compile_args=["-O3", "-fno-wrapv", "-std=c11", "-fvisibility=hidden"],
        )
    ]
)
