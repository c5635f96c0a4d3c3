"""Starting the agent: where it listens, who starts it again, and how its zipapp unpacks the bundle it carries.

--stdio             one host over stdin and stdout, then the end
--serial PATH       a serial line, for ever
--tcp HOST:PORT     one host at a time, for ever (hil/agent/door.py)

Where others than the people of this machine can reach the line, --key FILE is demanded.
"""

import argparse
import contextlib
import ipaddress
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

from hil.agent.agent import Agent, AgentSettings, MakeEncoder
from hil.agent.door import Door
from hil.agent.kernel_files import SYS
from hil.agent.trust import Trust
from hil.line.channels import FdChannel, listen_tcp, open_line
from hil.line.key import read_key
from payload.errors import InputError
from payload.policy import Policy

RESTART_S = 0.3

log = logging.getLogger("hil.agent.serve")


def main(
    arguments: list[str] | None = None, make_encoder: MakeEncoder | None = None, program: list[str] | None = None
) -> int:
    """The agent's command line. Exit 2 on bad input, 86 from the watchdog. `program` is how to start it once more."""
    options = _options(arguments)
    level = logging.WARNING if options.stdio else logging.INFO  # one host, one run: its coming and going is no news
    logging.basicConfig(stream=sys.stderr, level=level, format="agent: %(message)s")
    try:
        _need_key(options)
        settings = _settings(options)
        if options.tcp and options.listen_fd is None:
            return _supervise(options, [*(program or _program()), *(sys.argv[1:] if arguments is None else arguments)])
        with _bundle(options.bundle) as bundle:
            _serve(options, Agent(bundle, make_encoder or _payload_encoder, settings))
        return 0
    except (InputError, OSError) as error:
        log.error("%s", error)
        return 2


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="agent", description="Nadir's agent on a device under test.")
    line = parser.add_mutually_exclusive_group(required=True)
    line.add_argument("--stdio", action="store_true", help="one host over stdin and stdout")
    line.add_argument("--serial", metavar="PATH", help="a serial line, e.g. /dev/ttyGS0")
    line.add_argument("--tcp", metavar="HOST:PORT", help="e.g. 127.0.0.1:5150")
    parser.add_argument("--baud", type=int, default=1_000_000)
    parser.add_argument("--bundle", type=Path, help="a bundle's directory; default: the one packed with this agent")
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="hosts must hold the same key; `hil key FILE` makes one"
    )
    parser.add_argument(
        "--trust",
        type=Path,
        metavar="DIR",
        help="run bundles only that a *.pub in DIR has signed, none older than before",
    )
    parser.add_argument("--sys-root", type=Path, default=Path(SYS), metavar="DIR", help="power meters lie below it")
    parser.add_argument("--watchdog-s", type=float, default=120.0, help="longest time for one request")
    parser.add_argument("--emulated", metavar="CPU", help="say that this processor is emulated: no latencies from it")
    parser.add_argument("--listen-fd", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _settings(options: argparse.Namespace) -> AgentSettings:
    return AgentSettings(
        emulated=options.emulated,
        watchdog_s=options.watchdog_s,
        key=read_key(options.key) if options.key else None,
        trust=Trust(options.trust) if options.trust else None,
        sys_root=options.sys_root,
    )


def _payload_encoder(bundle: Path, policy: Policy, engine: str, threads: int) -> Any:
    from hil.agent.encoding import PayloadEncoder  # imports the runtime: only once a host asks for it

    return PayloadEncoder(bundle, policy, engine, threads)


def _serve(options: argparse.Namespace, agent: Agent) -> None:
    if options.stdio:
        agent.serve(_stdio())
    elif options.serial:
        while True:
            agent.serve(open_line(options.serial, options.baud))
            time.sleep(RESTART_S)
    else:
        _serve_tcp(socket.socket(fileno=options.listen_fd), agent)


def _stdio() -> FdChannel:
    """stdin and stdout as the line; whatever a library prints goes to stderr instead of into it."""
    line_out = os.dup(1)
    os.dup2(2, 1)
    return FdChannel(os.dup(0), line_out)


def _serve_tcp(server: socket.socket, agent: Agent) -> None:
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    for arrival in Door(server, agent).arrivals():
        agent.serve_arrival(arrival)


def _need_key(options: argparse.Namespace) -> None:
    """InputError where the line is open to others and no key is given."""
    if options.key is not None or options.stdio:
        return
    if options.serial and not os.path.realpath(options.serial).startswith("/dev/pts/"):
        raise InputError(f"--serial {options.serial}: give --key FILE: whoever has the other end could use it")
    if options.tcp and not _is_loopback(options.tcp.rpartition(":")[0]):
        raise InputError(f"--tcp {options.tcp}: others can reach this address; give --key FILE, or use 127.0.0.1")


def _is_loopback(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host.strip("[]") or "127.0.0.1", None)
        return all(ipaddress.ip_address(str(where[4][0]).partition("%")[0]).is_loopback for where in found)
    except (OSError, ValueError):
        return False


def _end_with_parent(parent: int) -> None:
    """An agent without its supervisor would hold the port for ever."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


def _supervise(options: argparse.Namespace, command: list[str]) -> int:
    """Holds the listening socket and starts the agent again whenever it dies, so that no host finds the door shut."""
    host, _, port = options.tcp.rpartition(":")
    if not port.isdigit():
        raise InputError(f"--tcp {options.tcp}: wanted HOST:PORT, e.g. 127.0.0.1:5150")
    server = listen_tcp(host or "127.0.0.1", int(port))
    fd = server.fileno()
    log.info("listening on tcp://%s:%d", *server.getsockname()[:2])
    while True:
        child = subprocess.Popen([*command, "--listen-fd", str(fd)], pass_fds=[fd])
        log.info("agent runs as process %d", child.pid)
        try:
            code = child.wait()
        finally:
            child.kill()
        if code == 2:
            return 2  # bad input stays bad
        log.warning("agent ended (%d); starting it again", code)
        time.sleep(RESTART_S)


@contextlib.contextmanager
def _bundle(given: Path | None) -> Any:
    """The bundle's directory: the given one, or the one in this zipapp, unpacked for as long as the agent runs."""
    if given is not None:
        yield given
        return
    archive = _archive()
    if archive is None:
        raise InputError("no bundle: give --bundle DIR, or run an agent packed by `hil deploy`")
    with tempfile.TemporaryDirectory(prefix="nadir-") as directory, zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            if name.startswith("bundle/"):
                packed.extract(name, directory)
        yield Path(directory) / "bundle"


def _program() -> list[str]:
    archive = _archive()
    return [sys.executable, "-m", "hil.agent.serve"] if archive is None else [sys.executable, str(archive)]


def _archive() -> Path | None:
    """The zipapp this runs from, None in a checkout."""
    candidate = Path(__file__).parents[2]
    return candidate if candidate.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
