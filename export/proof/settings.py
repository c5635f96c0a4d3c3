"""The settings of a proof: which instruction sets this host can be limited to, and which code paths really ran.

Limiting a CPU library to an instruction set that the host lacks changes nothing, so such a setting proves nothing: it
is refused. Settings count by the primitives (kernels) that ran: two settings that ran the same ones are one path.
"""

import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

from payload.errors import InputError

#: Limit of the CPU library (ONEDNN_MAX_CPU_ISA) -> the processor flag it needs, as Linux names it.
FLAGS = {
    "AVX512_CORE_AMX": "amx_int8",
    "AVX512_CORE_VNNI": "avx512_vnni",
    "AVX512_CORE": "avx512bw",
    "AVX2_VNNI": "avx_vnni",
    "AVX2": "avx2",
    "AVX": "avx",
    "SSE41": "sse4_1",
}
#: What a proof runs under where the host has it; '' leaves the library alone. AVX runs the kernels of SSE41.
WANTED = ("", "AVX512_CORE", "AVX2_VNNI", "AVX2", "SSE41")
THREADS = (1, 2)


def host_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The processor's flags; empty where the system does not say."""
    if not cpuinfo.is_file():
        return frozenset()
    for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def isas_here(flags: frozenset[str] | None = None) -> tuple[str, ...]:
    """The limits of WANTED that make a difference here."""
    flags = host_flags() if flags is None else flags
    return tuple(isa for isa in WANTED if not isa or FLAGS[isa] in flags)


def refuse_absent(isas: Iterable[str], flags: frozenset[str] | None = None) -> None:
    """InputError naming the first limit that this host cannot be held to."""
    flags = host_flags() if flags is None else flags
    for isa in isas:
        if not isa:
            continue
        if isa not in FLAGS:
            raise InputError(f"instruction set {isa!r} is unknown; choose among {', '.join(FLAGS)}, or '' for no limit")
        if FLAGS[isa] not in flags:
            here = ", ".join(i for i in isas_here(flags) if i) or f"none ({platform.machine()})"
            raise InputError(
                f"this processor has no {isa} ({FLAGS[isa]}), so a limit to it proves nothing; it has {here}"
            )


def path_name(runtime: str, primitives: Sequence[str]) -> str:
    """A code path: what one runtime ran. A runtime that does not tell its kernels counts as one path."""
    return f"{runtime}: {' + '.join(primitives)}" if primitives else runtime
