"""Byte channels of the standard library: sockets and file descriptors. Both ends use them; every wait ends.

A channel's read returns b"" when nothing came in time and raises ChannelClosedError when the other side has gone; a
write that cannot finish in time raises ChannelClosedError too: a half-written frame is of no use to anybody.
"""

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

CHUNK_OCTETS = 256 * 1024
SLICE_S = 0.2
T = TypeVar("T")


class ChannelClosedError(OSError):
    """The other side went away, or stopped reading."""


class ByteChannel(Protocol):
    """Octets in both directions."""

    def read(self, timeout_s: float) -> bytes: ...

    def write(self, data: bytes, timeout_s: float) -> None: ...

    def close(self) -> None: ...


class DeviceChannel(ByteChannel, Protocol):
    """The device's end: tiles come in by the half megabyte, straight to where they stay."""

    def read_into(self, space: memoryview, timeout_s: float) -> int: ...


class FdChannel:
    """A pair of file descriptors: pipes, a terminal line, a socket's."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        self._closed = threading.Event()
        self._reading, self._writing = threading.Lock(), threading.Lock()
        for fd in (read_fd, write_fd):
            os.set_blocking(fd, False)

    def read(self, timeout_s: float) -> bytes:
        return self._read(lambda fd: os.read(fd, CHUNK_OCTETS), timeout_s) or b""

    def read_into(self, space: memoryview, timeout_s: float) -> int:
        """How many octets came into `space`; 0 if none in time."""
        return self._read(lambda fd: os.readv(fd, [space]), timeout_s) or 0

    def _read(self, take: Callable[[int], T], timeout_s: float) -> T | None:
        """What `take` gets from the descriptor, None if nothing comes in time."""
        with self._reading:
            if not self._ready(self._read_fd, select.POLLIN, timeout_s):
                return None
            try:
                taken = take(self._read_fd)
            except BlockingIOError:
                return None
            except OSError as error:
                raise ChannelClosedError(f"line lost while reading: {error.strerror}") from None
        if not taken:
            raise ChannelClosedError("the other side closed the line")
        return taken

    def write(self, data: bytes, timeout_s: float) -> None:
        """All of `data`, or ChannelClosedError; `timeout_s` is the longest stand-still, not the whole time."""
        rest = memoryview(data)
        with self._writing:
            while rest:
                if not self._ready(self._write_fd, select.POLLOUT, timeout_s):
                    raise ChannelClosedError(f"the other side took nothing for {timeout_s:g} s")
                try:
                    rest = rest[os.write(self._write_fd, rest[:CHUNK_OCTETS]) :]
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise ChannelClosedError(f"line lost while writing: {error.strerror}") from None

    def close(self) -> None:
        """Ends reads and writes of other threads within SLICE_S, and only then lets go of the descriptors."""
        if self._closed.is_set():
            return
        self._closed.set()
        with self._reading, self._writing:
            for fd in {self._read_fd, self._write_fd}:
                os.close(fd)

    def _ready(self, fd: int, event: int, timeout_s: float) -> bool:
        """Waits in slices, so that a close from another thread is seen before the descriptor means something else."""
        if self._closed.is_set():
            raise ChannelClosedError("the line is closed")
        poll = select.poll()  # not select(): descriptors above 1023 are fine here
        poll.register(fd, event)
        deadline_s = time.monotonic() + timeout_s
        while True:
            ready = poll.poll(min(SLICE_S, seconds_left(deadline_s)) * 1000)
            if self._closed.is_set():
                raise ChannelClosedError("the line is closed")
            if ready or time.monotonic() >= deadline_s:
                return bool(ready)


class SocketChannel:
    """A connected stream socket."""

    def __init__(self, connection: socket.socket) -> None:
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._wake = connection.dup()
        fd = connection.detach()
        self._fd = FdChannel(fd, fd)

    def read(self, timeout_s: float) -> bytes:
        return self._fd.read(timeout_s)

    def read_into(self, space: memoryview, timeout_s: float) -> int:
        return self._fd.read_into(space, timeout_s)

    def write(self, data: bytes, timeout_s: float) -> None:
        self._fd.write(data, timeout_s)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._wake.shutdown(socket.SHUT_RDWR)
        self._fd.close()
        self._wake.close()


def listen_tcp(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 picks a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((host, port))
    server.listen(64)
    return server


def open_line(path: str, baud: int) -> FdChannel:
    """A serial line on the device's side: raw, 8N1, with termios only. OSError if it is none or has no such speed."""
    import termios  # POSIX only
    import tty

    speed = getattr(termios, f"B{baud}", None)
    if speed is None:
        raise OSError(f"{path}: this system has no rate of {baud} baud; choose e.g. 115200, 921600, 1000000")
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        tty.setraw(fd)
        settings = termios.tcgetattr(fd)
        settings[4] = settings[5] = speed
        settings[2] |= termios.CLOCAL | termios.CREAD
        termios.tcsetattr(fd, termios.TCSANOW, settings)
    except termios.error as error:
        os.close(fd)
        raise OSError(f"{path}: not a serial line ({error})") from None
    return FdChannel(fd, fd)


def seconds_left(deadline_s: float) -> float:
    """Until a time of time.monotonic(), never negative."""
    return max(0.0, deadline_s - time.monotonic())
