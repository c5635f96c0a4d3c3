"""A board in a labgrid place: acquired, the agent copied there, reached through `labgrid-client ssh`, released.

labgrid brings its own fork of pyserial, so it lives in an environment of its own and is only ever run as a program.
"""

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hil.host.agent_zip import write_agent
from payload.bundle import Bundle
from payload.errors import InputError

CLIENT = "labgrid-client"
AGENTS = Path("build/agent")
ON_BOARD = "/tmp"  # agents are named by their sha256: an old one is never taken for a new one
LONGEST_S = 120.0


@contextmanager
def place(where: str, environment: Path | None, bundle: Bundle) -> Iterator[str]:
    """The URL of the device in place `where`, NAME or NAME?python=PATH, while it is held. InputError if it is not."""
    name, _, python = where.partition("?python=")
    client = shutil.which(CLIENT)
    if client is None:
        raise InputError(
            f"{CLIENT} is not on the path; python3 -m venv ~/labgrid && ~/labgrid/bin/pip install labgrid, "
            'then PATH="$PATH:$HOME/labgrid/bin"'
        )
    if environment is not None and not environment.is_file():
        raise InputError(f"{environment}: no such labgrid environment file; see docs/labgrid.yaml")
    command = [client, *(["-c", str(environment)] if environment else []), "-p", name]
    agent = write_agent(bundle, AGENTS)
    target = f"{ON_BOARD}/{agent.name}"
    _run([*command, "acquire"], name)
    try:
        _run([*command, "scp", str(agent), f":{target}"], name)
        yield "stdio:" + shlex.join([*command, "ssh", python or "python3", target, "--stdio"])
    finally:
        _run([*command, "release"], name)


def _run(command: list[str], name: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        raise InputError(f"place {name}: labgrid did not answer in {LONGEST_S:g} s; check its coordinator") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no word"]
        raise InputError(f"place {name}: {said[-1]}; check it with `{CLIENT} -p {name} show`")
