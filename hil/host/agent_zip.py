"""Agent + bundle's flight part -> one zipapp named by its sha256.

The same sources and the same bundle give the same octets, so the name says what runs.
"""

import hashlib
import io
import zipfile
from pathlib import Path

from hil.line.code_id import agent_sources
from payload.bundle import Bundle
from payload.signature import FILE as SIGNATURE

SHEBANG = b"#!/usr/bin/env python3\n"
START = b"import sys\nfrom hil.agent.serve import main\nsys.exit(main())\n"
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold: no build time in the octets


def pack_agent(bundle: Bundle) -> bytes:
    """Octets of the zipapp: agent, payload, and what the bundle uplinks."""
    members = {"__main__.py": START, **agent_sources()}
    members["bundle/manifest.json"] = (bundle.directory / "manifest.json").read_bytes()
    if (bundle.directory / SIGNATURE).is_file():
        members[f"bundle/{SIGNATURE}"] = (bundle.directory / SIGNATURE).read_bytes()
    for name in bundle.manifest["files"]:
        if name.startswith("flight/"):
            members[f"bundle/{name}"] = bundle.file(name).read_bytes()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for name, octets in sorted(members.items()):
            entry = zipfile.ZipInfo(name, LONG_AGO)
            entry.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(entry, octets)
    return SHEBANG + archive.getvalue()


def agent_name(octets: bytes) -> str:
    return f"agent-{hashlib.sha256(octets).hexdigest()[:16]}.pyz"


def write_agent(bundle: Bundle, directory: Path) -> Path:
    """The zipapp as a file in `directory`; written whole or not at all."""
    octets = pack_agent(bundle)
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / agent_name(octets)
    fresh = target.with_suffix(".part")
    fresh.write_bytes(octets)
    fresh.chmod(0o755)
    fresh.rename(target)
    return target
