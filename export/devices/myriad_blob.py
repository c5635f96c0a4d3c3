"""What the Myriad graph compiler wrote: the header of a blob, and the stages of its graph dump.

    octet 0   ".elf"-like prefix, 52 octets
    octet 52  u32 little-endian fields in this order: magic 9709, file size, version major, version minor, inputs,
              outputs, stages, input octets, output octets, batch, BSS octets, CMX slices, SHAVEs, has hardware
              stage, has SHAVE stage, has DMA stage, then the offsets of four sections
Layout: `mv_blob_header` of the VPU plugin's blob_format.hpp (OpenVINO 2021.4, Apache-2.0).
"""

import re
import struct
from dataclasses import dataclass

from payload.errors import InputError

PREFIX = b"\x7felf"
PREFIX_OCTETS = 52
MAGIC = 9709
FIELDS = struct.Struct("<20I")
HEADER_OCTETS = PREFIX_OCTETS + FIELDS.size
VERSION_MAJOR = 6


@dataclass(frozen=True)
class BlobHeader:
    """One blob's header. `bss_octets`: working memory in DDR while it runs."""

    blob_octets: int
    version: tuple[int, int]
    inputs: int
    outputs: int
    stages: int
    input_octets: int
    output_octets: int
    batch: int
    bss_octets: int
    cmx_slices: int
    shaves: int
    has_hardware_stage: bool
    has_shave_stage: bool
    has_dma_stage: bool
    section_offsets: tuple[int, int, int, int]  # inputs, outputs, stages, constants


@dataclass(frozen=True)
class Stage:
    """One step of the compiled graph. `order` is its place in execution, -1 where it only describes memory."""

    order: int
    name: str
    kind: str
    layer: str
    shaves: int


def parse_header(blob: bytes) -> BlobHeader:
    """The header of a compiled blob; `blob` may be cut after HEADER_OCTETS. InputError if it is not one."""
    if len(blob) < HEADER_OCTETS:
        raise InputError(f"blob is {len(blob)} octets, shorter than its header of {HEADER_OCTETS}; compile it again")
    fields = FIELDS.unpack_from(blob, PREFIX_OCTETS)
    if blob[:4] != PREFIX or fields[0] != MAGIC:
        raise InputError(
            f"not a Myriad blob: magic is {fields[0]}, wanted {MAGIC}; compile it with `python -m export compile`"
        )
    if fields[2] != VERSION_MAJOR:
        raise InputError(
            f"blob version {fields[2]}.{fields[3]}, this parser reads {VERSION_MAJOR}; use toolkit 2021.4.2"
        )
    _, size, major, minor, inputs, outputs, stages, octets_in, octets_out, batch, bss, slices, shaves, *rest = fields
    offsets = (rest[3], rest[4], rest[5], rest[6])
    return BlobHeader(
        size, (major, minor), inputs, outputs, stages, octets_in, octets_out, batch, bss, slices, shaves,
        bool(rest[0]), bool(rest[1]), bool(rest[2]), offsets,
    )  # fmt: skip


def read_blob(blob: bytes) -> BlobHeader:
    """The header of a whole blob, whose length must be what the header says."""
    header = parse_header(blob)
    if header.blob_octets != len(blob):
        raise InputError(
            f"blob is {len(blob)} octets, its header says {header.blob_octets}; it was cut: compile it again"
        )
    return header


_STAGE = re.compile(r'label="\[(-?\d+) / \d+\] Stage ([^"]*)"')


def parse_stages(dot: str) -> tuple[Stage, ...]:
    """Stages of a graph dump (Graphviz), in execution order; those that never execute come with order -1, last."""
    stages = []
    for match in _STAGE.finditer(dot):
        lines = match[2].split("\\l")
        attributes = dict(line.split(" = ", 1) for line in lines[1:] if line.count(" = ") == 1)
        layer = re.search(r"origLayer = \[\\l\s*name = ([^\\]*)\\l", match[2])
        shaves = int(attributes.get("numSHAVEs", "0"))
        stages.append(Stage(int(match[1]), lines[0], attributes.get("type", ""), layer[1] if layer else "", shaves))
    return tuple(sorted(stages, key=lambda s: (s.order < 0, s.order)))


def parse_used_memory(dot: str) -> dict[str, int]:
    """The compiler's own account of memory in octets: BSS, CMX, blob, input, output."""
    block = re.search(r"usedMemory = \[(.*?)\]", dot)
    return {k: int(v) for k, v in re.findall(r"(\w+) = (\d+)", block[1])} if block else {}
