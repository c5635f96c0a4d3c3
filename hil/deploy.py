"""Agent + bundle's flight part -> one zipapp named by its sha256, and its way onto a device.

The same sources and the same bundle give the same octets, so the name says what runs.
"""

import hashlib
import io
import zipfile
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from hil.device import agent_sources
from hil.transports import copy_over_ssh
from payload.bundle import Bundle
from payload.errors import InputError

SHEBANG = b"#!/usr/bin/env python3\n"
START = b"import sys\nfrom hil.serve import main\nsys.exit(main())\n"
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold: no build time in the octets


def pack_agent(bundle: Bundle) -> bytes:
    """Octets of the zipapp: agent, payload, and what the bundle uplinks."""
    members = {"__main__.py": START, **agent_sources()}
    members["bundle/manifest.json"] = (bundle.directory / "manifest.json").read_bytes()
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


def deploy(bundle: Bundle, to: str) -> str:
    """Puts the agent into a directory, or by ssh://USER@HOST/DIR onto a device. Gives the device URL that starts it."""
    if not to.startswith("ssh://"):
        return f"stdio:python3 {write_agent(bundle, Path(to))} --stdio"
    octets = pack_agent(bundle)
    parts = urlsplit(to)
    if not parts.path.strip("/"):
        raise InputError(f"{to}: wanted ssh://USER@HOST/DIRECTORY, e.g. ssh://pi@raspberrypi.local/home/pi/nadir")
    path = str(PurePosixPath(parts.path) / agent_name(octets))
    url = parts._replace(path=path).geturl()
    copy_over_ssh(octets, url)
    return url
