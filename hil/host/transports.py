"""Device URLs -> byte channels, on the host's side. pyserial and asyncssh are imported here only, and only when needed.

tcp://HOST:PORT                          an agent that listens; ?key=FILE, the key it was given
serial:///dev/ttyUSB0?baud=1000000       an agent behind a serial line; &key=FILE
ssh://USER@HOST[:PORT]/PATH/agent.pyz    starts an agent over there (?python=..., ?known_hosts=..., ?key=...)
stdio:COMMAND ...                        starts an agent here and talks over its stdin and stdout
host:                                    this machine's own Python, as a device
emulated:CPU                             another processor by qemu (see hil/host/emulation.py)
"""

import asyncio
import contextlib
import logging
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import parse_qs, unquote, urlsplit

from hil.line.channels import CHUNK_OCTETS, ByteChannel, ChannelClosedError, FdChannel, SocketChannel
from hil.line.key import read_key
from payload.errors import InputError

CONNECT_S = 10.0
AGENTS_WORD = b"agent: "  # how hil/agent/serve.py begins its lines
BITS_PER_OCTET = 10  # on a serial line: start bit, eight, stop bit
SCHEMES = ("tcp://", "serial://", "ssh://", "stdio:", "host:", "emulated:")

log = logging.getLogger("hil.host.transports")

#: Opens a fresh channel each time it is called. ChannelClosedError if nobody is there (yet).
Connect = Callable[[], ByteChannel]


def connector(url: str, bundle: Path) -> Connect:
    """How to reach the device at `url`. InputError if the URL cannot be one. `bundle` is for devices started here."""
    scheme, _, rest = url.partition(":")
    if scheme == "tcp":
        host, port = _host_and_port(url)
        return lambda: _open_tcp(host, port)
    if scheme == "serial":
        path, baud = _serial_parts(url)
        return lambda: SerialChannel(path, baud)
    if scheme == "ssh":
        target = SshTarget.parse(url)
        return lambda: SshChannel(target)
    if scheme == "stdio" and rest.strip():
        command = shlex.split(rest)
        return lambda: ProcessChannel(command)
    if scheme == "host" and not rest:
        command = [sys.executable, "-m", "hil.agent.serve", "--stdio", "--bundle", str(bundle.resolve())]
        return lambda: ProcessChannel(command, cwd=Path(__file__).parents[2])
    if scheme == "emulated":
        from hil.host.emulation import agent_command

        command = agent_command(rest, bundle)
        return lambda: ProcessChannel(command, agents_words_only=True)
    raise InputError(f"device {url!r} is no URL of a device; wanted one of {', '.join(SCHEMES)}")


def shared_key(url: str) -> bytes | None:
    """The key of `?key=FILE` in a tcp:// or serial:// URL; None without. (An ssh:// URL's key is ssh's own.)"""
    parts = urlsplit(url)
    if parts.scheme not in ("tcp", "serial"):
        return None
    found = parse_qs(parts.query).get("key")
    return read_key(Path(found[-1])) if found else None


def line_bound(url: str, tile_octets: int, tile_px: int) -> str | None:
    """What a serial line bounds, as a sentence; None for lines whose rate is not in their URL."""
    if not url.startswith("serial:"):
        return None
    _, baud = _serial_parts(url)
    tile_s = BITS_PER_OCTET * tile_octets / baud
    return (
        f"{baud} baud carry a tile of {tile_octets} octets in {tile_s:.2f} s, {tile_px**2 / tile_s / 1e6:.4f} Mpx/s "
        "at most: throughput over this line is the line's; times of tiles are the device's own"
    )


class ProcessChannel:
    """A child process that speaks over its stdin and stdout; its stderr is passed on. Closing ends the child.

    `agents_words_only`: of its stderr only what the agent itself says. An emulated processor makes runtimes complain
    of things that are true of the emulation and of no interest.
    """

    def __init__(self, command: list[str], cwd: Path | None = None, agents_words_only: bool = False) -> None:
        pipe = subprocess.PIPE
        try:
            self.process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe if agents_words_only else None, bufsize=0, cwd=cwd
            )
        except OSError as error:
            raise InputError(
                f"device command {command[0]!r} cannot be started ({error.strerror}); check the path"
            ) from None
        if self.process.stdin is None or self.process.stdout is None:
            raise ChannelClosedError("the device command has no pipes")
        self._fd = FdChannel(os.dup(self.process.stdout.fileno()), os.dup(self.process.stdin.fileno()))
        self.process.stdin.close()
        self.process.stdout.close()
        if self.process.stderr is not None:
            threading.Thread(target=_pass_on, args=(self.process.stderr,), daemon=True).start()

    def read(self, timeout_s: float) -> bytes:
        return self._fd.read(timeout_s)

    def write(self, data: bytes, timeout_s: float) -> None:
        self._fd.write(data, timeout_s)

    def close(self) -> None:
        self._fd.close()
        try:
            self.process.wait(2.0)  # it ends by itself when its stdin does
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _pass_on(stderr: IO[bytes]) -> None:
    with stderr:
        for line in stderr:  # unbuffered as the pipes are: a raw file still gives lines
            if line.startswith(AGENTS_WORD):
                log.warning("%s", line.decode(errors="replace").rstrip())


class SerialChannel:
    """A serial line through pyserial. Opening drops what lay in its buffers."""

    def __init__(self, path: str, baud: int) -> None:
        try:
            import serial
        except ImportError:
            raise InputError("serial:// needs pyserial; pip install 'nadir-payload[bench]'") from None
        self._errors = (serial.SerialException, OSError, TypeError)  # TypeError: closed in the middle of a read
        try:
            self._port = serial.Serial(path, baud, timeout=0.05, write_timeout=1.0)
            self._port.reset_input_buffer()
        except self._errors as error:
            raise ChannelClosedError(f"{path}: cannot be opened ({error})") from None

    def read(self, timeout_s: float) -> bytes:
        try:
            self._port.timeout = timeout_s
            return bytes(self._port.read(max(1, self._port.in_waiting)))  # read_until would crawl
        except self._errors as error:
            raise ChannelClosedError(f"serial line lost: {error}") from None

    def write(self, data: bytes, timeout_s: float) -> None:
        rest = memoryview(data)
        try:
            self._port.write_timeout = timeout_s
            while rest:  # in pieces: the timeout is for a stand-still, not for the whole tile
                rest = rest[self._port.write(rest[:4096]) or 0 :]
        except self._errors as error:
            raise ChannelClosedError(f"serial line lost: {error}") from None

    def close(self) -> None:
        with contextlib.suppress(*self._errors):
            self._port.close()


class SshTarget:
    """The parts of an ssh:// URL."""

    def __init__(self, host: str, port: int, user: str | None, path: str, query: dict[str, str]) -> None:
        self.host, self.port, self.user, self.path = host, port, user, path
        self.python = query.get("python", "python3")
        self.key, self.known_hosts = query.get("key"), query.get("known_hosts")

    @classmethod
    def parse(cls, url: str) -> "SshTarget":
        parts = urlsplit(url)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        unknown = set(query) - {"python", "key", "known_hosts"}
        if not parts.hostname or unknown:
            raise InputError(
                f"{url}: wanted ssh://USER@HOST[:PORT]/PATH/agent.pyz with ?python=, ?key=, ?known_hosts= at most"
            )
        return cls(parts.hostname, parts.port or 22, parts.username, unquote(parts.path), query)

    @property
    def command(self) -> str:
        if not self.path.endswith(".pyz"):
            raise InputError(
                f"ssh://{self.host}{self.path}: wanted the path of an agent, "
                "e.g. /opt/nadir/agent-1234.pyz; `hil deploy` prints it"
            )
        return f"{self.python} {shlex.quote(self.path)} --stdio"

    def connect_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"port": self.port, "username": self.user or (), "connect_timeout": CONNECT_S}
        if self.known_hosts:
            options["known_hosts"] = self.known_hosts
        if self.key:
            options["client_keys"] = [self.key]
        return options


class SshChannel:
    """An agent started over ssh. asyncssh runs in a thread of its own and pumps into a socket pair."""

    def __init__(self, target: SshTarget) -> None:
        try:
            import asyncssh
        except ImportError:
            raise InputError("ssh:// needs asyncssh; pip install 'nadir-payload[bench]'") from None
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self._ours, self._failure = SocketChannel(ours), ""
        command = target.command

        async def pump() -> None:
            loop = asyncio.get_running_loop()
            async with asyncssh.connect(target.host, **target.connect_options()) as connection:
                process = await connection.create_process(command, encoding=None)

                async def to_device() -> None:
                    while data := await loop.sock_recv(theirs, CHUNK_OCTETS):
                        process.stdin.write(data)
                        await process.stdin.drain()

                async def from_device() -> None:
                    while data := await process.stdout.read(CHUNK_OCTETS):
                        await loop.sock_sendall(theirs, data)

                async def complaints() -> None:
                    while line := await process.stderr.readline():
                        log.warning("%s: %s", target.host, line.decode(errors="replace").rstrip())

                tasks = [asyncio.create_task(work()) for work in (to_device, from_device, complaints)]
                await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
                process.close()

        def run() -> None:
            try:
                asyncio.run(pump())
            except (OSError, asyncssh.Error) as error:
                self._failure = f"{target.host}: {error}"
            finally:
                with contextlib.suppress(OSError):
                    theirs.shutdown(socket.SHUT_RDWR)
                theirs.close()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def read(self, timeout_s: float) -> bytes:
        try:
            return self._ours.read(timeout_s)
        except ChannelClosedError as error:
            raise ChannelClosedError(self._failure or str(error)) from None

    def write(self, data: bytes, timeout_s: float) -> None:
        self._ours.write(data, timeout_s)

    def close(self) -> None:
        self._ours.close()
        self._thread.join(5.0)


def copy_over_ssh(octets: bytes, url: str) -> None:
    """Writes `octets` to the path of an ssh:// URL, under another name first. InputError if it cannot."""
    try:
        import asyncssh
    except ImportError:
        raise InputError("ssh:// needs asyncssh; pip install 'nadir-payload[bench]'") from None
    target = SshTarget.parse(url)
    quoted, fresh = shlex.quote(target.path), shlex.quote(target.path + ".part")
    folder = shlex.quote(str(PurePosixPath(target.path).parent))
    command = f"mkdir -p {folder} && cat > {fresh} && chmod 755 {fresh} && mv {fresh} {quoted}"

    async def copy() -> None:
        async with asyncssh.connect(target.host, **target.connect_options()) as connection:
            await connection.run(command, input=octets, encoding=None, check=True)

    try:
        asyncio.run(copy())
    except (OSError, asyncssh.Error) as error:
        raise InputError(
            f"{target.host}: the agent cannot be copied there ({error}); check address, key and free space"
        ) from None


def _open_tcp(host: str, port: int) -> SocketChannel:
    try:
        return SocketChannel(socket.create_connection((host, port), CONNECT_S))
    except OSError as error:
        raise ChannelClosedError(f"{host}:{port}: {error.strerror or error}") from None


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    _known_settings(url, parts.query, {"key"})
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or port is None:
        raise InputError(f"{url}: wanted tcp://HOST:PORT, e.g. tcp://192.168.7.2:5150")
    return parts.hostname, port


def _serial_parts(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    _known_settings(url, parts.query, {"baud", "key"})
    baud = parse_qs(parts.query).get("baud", ["1000000"])[-1]
    if not parts.path or not baud.isdigit():
        raise InputError(f"{url}: wanted serial:///dev/ttyUSB0?baud=1000000")
    return parts.path, int(baud)


def _known_settings(url: str, query: str, known: set[str]) -> None:
    unknown = sorted(set(parse_qs(query)) - known)
    if unknown:
        raise InputError(f"{url}: setting {unknown[0]} is unknown; wanted ?{'=, ?'.join(sorted(known))}= at most")
