"""The packed agent's way onto a device."""

from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from hil.host.agent_zip import agent_name, pack_agent, write_agent
from hil.host.transports import copy_over_ssh
from payload.bundle import Bundle
from payload.errors import InputError


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
