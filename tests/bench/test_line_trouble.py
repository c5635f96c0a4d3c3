"""Everything that can happen to a line or an agent in a run: no hang, no wrong octet, or a clear error."""

import contextlib
import random
import socket
import threading
import time

import pytest

from hil.bench.energy_mode import stream_windows
from hil.host.client import DeviceError, DeviceSession, Patience, open_device
from hil.line.channels import ChannelClosedError, SocketChannel
from hil.line.code_id import code_id
from hil.line.protocol import REPLY, Frame, FrameReader, Type, pack, pack_body, unpack_body
from payload.policy import Policy

POLICY = Policy(step_dn=64.0)
HASTY = Patience(hello_s=1.0, silence_s=2.0, attempts=6, pause_s=0.05)


def run_all(session, tiles, fake_agent):
    codes = list(session.encode_tiles(tiles))
    assert [(c.row, c.col) for c in codes] == [(t.row, t.col) for t in tiles]
    assert [c.octets for c in codes] == [fake_agent.expected(t, POLICY) for t in tiles]


class TroubledChannel:
    """A channel to a real agent that calls `trouble(direction, octets)` on everything that passes."""

    def __init__(self, port, trouble):
        self._inner = SocketChannel(socket.create_connection(("127.0.0.1", port)))
        self._trouble = trouble

    def read(self, timeout_s):
        data = self._inner.read(timeout_s)
        return self._trouble(self, "in", data) if data else data

    def write(self, data, timeout_s):
        self._inner.write(self._trouble(self, "out", data), timeout_s)

    def close(self):
        self._inner.close()


def session_over(agent, bundle, trouble):
    return DeviceSession(
        lambda: TroubledChannel(agent.port, trouble), "troubled", bundle, POLICY, "fake", 1, HASTY, seed=1
    )


def test_a_quiet_run_over_tcp(steady_agent, tiny_bundle, make_tiles, fake_agent):
    with open_device(steady_agent.url, tiny_bundle, POLICY, "fake", patience=HASTY) as session:
        run_all(session, make_tiles(40), fake_agent)
        assert session.incidents.causes == []


@pytest.mark.parametrize("moment", range(12))
def test_cable_pulled_at_every_state(moment, steady_agent, tiny_bundle, make_tiles, fake_agent):
    """Pull after the n-th piece that passes in either direction: HELLO, its reply, LOAD, its reply, tiles, codes."""
    passed = [0]

    def pull(channel, direction, data):
        passed[0] += 1
        if passed[0] == moment + 1:
            channel.close()
            if direction == "in":
                raise ChannelClosedError("pulled")
        return data

    with session_over(steady_agent, tiny_bundle, pull) as session:
        run_all(session, make_tiles(12), fake_agent)
        assert session.incidents.reconnects + len(session.incidents.causes) >= 1


@pytest.mark.parametrize("moment", range(4))
@pytest.mark.parametrize("request_of", ["stats", "reset", "stream"])
def test_cable_pulled_around_every_other_request(request_of, moment, steady_agent, tiny_bundle, make_tiles, fake_agent):
    """STATS, RESET with the LOAD after it, STREAM: the pieces of each, pulled one after the other."""
    passed, armed = [0], threading.Event()

    def pull(channel, direction, data):
        passed[0] += armed.is_set()
        if armed.is_set() and passed[0] == moment + 1:
            channel.close()
            if direction == "in":
                raise ChannelClosedError("pulled")
        return data

    with session_over(steady_agent, tiny_bundle, pull) as session:
        session.encode_tile(make_tiles(1)[0])
        armed.set()
        if request_of == "stats":
            assert session.peak_memory_mib() > 0
        elif request_of == "reset":
            session.call(Type.RESET, {})
            session.reload()
        else:
            parts = stream_windows(session, {"seconds": 1.2, "work": False, "power": None, "period_s": 0.02})
            assert parts[-1]["last"] is True
        run_all(session, make_tiles(3), fake_agent)


@pytest.mark.parametrize("moment", range(6))
def test_cable_pulled_in_the_middle_of_a_frame(moment, steady_agent, tiny_bundle, make_tiles, fake_agent):
    written = [0]

    def cut(channel, direction, data):
        if direction == "out":
            written[0] += 1
            if written[0] == moment + 1:
                channel._inner.write(data[: len(data) // 2], 1.0)
                channel.close()
        return data

    with session_over(steady_agent, tiny_bundle, cut) as session:
        run_all(session, make_tiles(12), fake_agent)
        assert session.incidents.causes


@pytest.mark.parametrize("seed", range(4))
def test_garbage_and_flipped_bits_on_the_line(seed, steady_agent, tiny_bundle, make_tiles, fake_agent):
    draw = random.Random(seed)

    def garble(_channel, direction, data):
        chance = draw.random()
        if chance < 0.06:
            return draw.randbytes(draw.randint(1, 200)) + data
        if chance < 0.12:
            at = draw.randrange(len(data))
            return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        if chance < 0.16:
            at = draw.randrange(len(data))
            return data[:at] + data[at + draw.randint(1, 50) :]
        return data

    with session_over(steady_agent, tiny_bundle, garble) as session:
        run_all(session, make_tiles(40), fake_agent)


def test_an_agent_that_never_answers_ends_in_a_clear_error(tiny_bundle):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        patience = Patience(hello_s=0.1, silence_s=0.05, attempts=2, pause_s=0.01)
        with pytest.raises(DeviceError, match=r"lost after 2 attempts .*check the line"):
            open_device(url, tiny_bundle, POLICY, "fake", patience=patience)


def test_nobody_at_the_address_ends_in_a_clear_error(tiny_bundle):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(DeviceError, match=r"127\.0\.0\.1.*check the line and the agent"):
        open_device(f"tcp://127.0.0.1:{port}", tiny_bundle, POLICY, patience=Patience(attempts=2, pause_s=0.01))


def test_codes_that_came_before_the_device_was_lost_are_kept(tcp_agent, tiny_bundle, make_tiles, fake_agent):
    agent, tiles, kept = tcp_agent(0.02), make_tiles(30), []
    patience = Patience(hello_s=0.2, silence_s=0.2, attempts=2, pause_s=0.01)
    with (
        open_device(agent.url, tiny_bundle, POLICY, "fake", patience=patience) as session,
        pytest.raises(DeviceError),
    ):
        for code in session.encode_tiles(tiles):
            kept.append(code)
            if len(kept) == 7:
                agent.end()
                agent.kill_agent()
    assert 7 <= len(kept) < 30
    assert [c.octets for c in kept] == [fake_agent.expected(t, POLICY) for t in tiles[: len(kept)]]


class ScriptedAgent:
    """A device that answers with whatever the test wants. `answer(frame) -> octets`."""

    def __init__(self, answer):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self.server.getsockname()[1]}"
        self._answer = answer
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection):
        reader = FrameReader()
        with connection:
            while data := connection.recv(65536):
                for frame in reader.feed(data):
                    connection.sendall(self._answer(frame))


def reply(frame, fields, kind=None, version=2):
    return pack(
        Frame((frame.kind if kind is None else kind) | REPLY, frame.session, frame.seq, pack_body(fields), version)
    )


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda f: reply(f, {"code_id": "of-another-time"}), "agent code of-another-time.*hil deploy"),
        (lambda f: reply(f, {"code_id": code_id(), "bundle": "old", "bundle_id": 5}), "bundle old .*hil deploy"),
        (lambda f: reply(f, {}, version=1), "speaks protocol 1, this host 2; deploy"),
        (lambda f: reply(f, {"reason": "refused", "error": "no"}, kind=Type.ERROR), "no"),
    ],
)
def test_a_wrong_agent_is_refused_at_hello(answer, message, tiny_bundle):
    with pytest.raises(DeviceError, match=message):
        open_device(ScriptedAgent(answer).url, tiny_bundle, POLICY, "fake", patience=HASTY)


def test_an_agent_of_this_code_refuses_frames_of_another_protocol(steady_agent):
    with socket.create_connection(("127.0.0.1", steady_agent.port)) as line:
        line.sendall(pack(Frame(Type.HELLO, 1, 1, pack_body({}), version=9)))
        (frame,) = FrameReader().feed(line.recv(65536))
    fields, _ = unpack_body(frame.body)
    assert frame.kind == Type.ERROR | REPLY
    assert "protocol 9" in fields["error"]


def test_random_frames_neither_end_nor_hang_the_agent(steady_agent, tiny_bundle, make_tiles, fake_agent):
    agent, draw = steady_agent, random.Random(5)
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", agent.port)) as line:
            line.sendall(pack(Frame(Type.HELLO, 1, 0, pack_body({}))))
            for seq in range(1, 40):
                body = draw.choice([b"", draw.randbytes(draw.randint(1, 300)), pack_body({"row": draw.random()}, b"x")])
                line.sendall(pack(Frame(draw.randrange(256), draw.choice([1, 2]), seq, body)))
            line.sendall(draw.randbytes(500))
    with open_device(agent.url, tiny_bundle, POLICY, "fake", patience=HASTY) as session:
        run_all(session, make_tiles(5), fake_agent)
        assert session.incidents.causes == []


def test_more_requests_than_allowed_are_refused_as_busy(tcp_agent, tiny_bundle, make_tiles):
    with socket.create_connection(("127.0.0.1", tcp_agent(0.2).port)) as line:
        for seq in range(40):
            line.sendall(pack(Frame(Type.STATS, 1, seq, pack_body({}))) * 5)
        reader, reasons = FrameReader(), []
        line.settimeout(10)
        while len(reasons) < 200:  # every request has an answer
            reasons += [unpack_body(frame.body)[0].get("reason") for frame in reader.feed(line.recv(65536))]
    assert set(reasons) <= {"busy", "session"}


def test_a_host_that_reads_slowly_gets_every_octet(steady_agent, tiny_bundle, make_tiles, fake_agent):
    def dawdle(_channel, direction, data):
        if direction == "in":
            time.sleep(0.02)
        return data

    with session_over(steady_agent, tiny_bundle, dawdle) as session:
        run_all(session, make_tiles(40), fake_agent)
        assert session.incidents.causes == []


def test_a_dead_host_does_not_block_the_next_one(steady_agent, tiny_bundle, make_tiles, fake_agent):
    agent = steady_agent
    silent = [socket.create_connection(("127.0.0.1", agent.port)) for _ in range(3)]  # hosts that hang
    with open_device(agent.url, tiny_bundle, POLICY, "fake", patience=HASTY) as session:
        run_all(session, make_tiles(5), fake_agent)
    for line in silent:
        line.close()


def test_a_kept_bundle_is_not_loaded_again_after_a_reconnect(tcp_agent, tiny_bundle, make_tiles):
    agent = tcp_agent()
    for k in range(2):
        with open_device(agent.url, tiny_bundle, POLICY, "fake", patience=HASTY) as session:
            assert session.call(Type.STATS, {})["tiles"] == k
            session.encode_tile(make_tiles(1)[0])


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_kill_9_of_the_agent_at_random_moments(kills, tcp_agent, tiny_bundle, make_tiles, fake_agent):
    """The supervisor starts it again, the host goes on at the tile where it stopped."""
    agent, draw, over, done = tcp_agent(0.01), random.Random(50), threading.Event(), [0]

    def kill():
        while done[0] < kills:
            time.sleep(draw.uniform(0.05, 2.0))
            with contextlib.suppress(ProcessLookupError):  # between two agents
                agent.kill_agent()
                done[0] += 1
        over.set()

    threading.Thread(target=kill, daemon=True).start()
    rounds = 0
    with open_device(agent.url, tiny_bundle, POLICY, "fake", patience=HASTY) as session:
        while not over.is_set():
            run_all(session, make_tiles(20, seed=rounds), fake_agent)
            rounds += 1
        run_all(session, make_tiles(20, seed=99), fake_agent)
        assert session.incidents.reconnects >= kills // 4  # the others hit an agent that was still starting
    assert done[0] == kills


def test_the_watchdog_ends_a_stuck_encoder_and_the_host_says_so(agent_command, tiny_bundle, make_tiles):
    stuck = " ".join([*agent_command(3600.0), "--stdio", "--watchdog-s", "0.5"])
    patience = Patience(hello_s=5.0, silence_s=5.0, attempts=2, pause_s=0.01)
    with open_device(f"stdio:{stuck}", tiny_bundle, POLICY, "fake", patience=patience) as session:
        before_s = time.monotonic()
        with pytest.raises(DeviceError, match="lost after"):
            session.encode_tile(make_tiles(1)[0])
        assert time.monotonic() - before_s < 20
