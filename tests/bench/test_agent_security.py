"""The agent among strangers: who is let in, who keeps his place, what a hostile frame or file can cost."""

import json
import os
import random
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest

from hil.agent.admission import error_body
from hil.agent.agent import Agent, AgentSettings
from hil.agent.device import SysfsPower
from hil.agent.door import Door
from hil.host.client import DeviceSession, open_device
from hil.host.session_values import DeviceError, Patience
from hil.line.channels import SocketChannel, listen_tcp
from hil.line.key import prove, read_key, write_key
from hil.line.messages import pack_tile, policy_fields, policy_of
from hil.line.protocol import HEADER, REPLY, Frame, FrameReader, ProtocolError, Type, pack, pack_body, unpack_body
from payload.errors import InputError
from payload.policy import Gate, LonLatRegion, Policy, Region

POLICY = Policy(step_dn=64.0)
HASTY = Patience(hello_s=2.0, silence_s=4.0, attempts=3, pause_s=0.05)


def talk(line, *frames, replies=1, timeout_s=10.0):
    """Sends frames, gives the fields of so many replies (kind, fields)."""
    for frame in frames:
        line.sendall(pack(frame))
    reader, found = FrameReader(), []
    line.settimeout(timeout_s)
    while len(found) < replies and (data := line.recv(65536)):
        found += [(frame.kind & ~REPLY, unpack_body(frame.body)[0]) for frame in reader.feed(data)]
    return found


def knock(agent):
    return socket.create_connection(("127.0.0.1", agent.port))


HELLO = Frame(Type.HELLO, 7, 1, pack_body({}))


@pytest.fixture
def guarded(tiny_bundle, fake_agent, tmp_path):
    """An agent of this process with a key; gives its port and the key's file."""
    write_key(tmp_path / "key")
    settings = AgentSettings(key=read_key(tmp_path / "key"), sys_root=tmp_path)
    agent = Agent(tiny_bundle.directory, lambda b, policy, e, t: fake_agent.FakeEncoder(policy, "0"), settings)
    server = listen_tcp("127.0.0.1", 0)
    port, door = server.getsockname()[1], Door(server, agent)

    def serve():
        for arrival in door.arrivals():
            agent.serve_arrival(arrival)

    threading.Thread(target=serve, daemon=True).start()
    return port, tmp_path / "key"


def test_a_host_with_the_key_works_and_one_without_is_told_what_is_missing(
    guarded, tiny_bundle, make_tiles, fake_agent, tmp_path
):
    port, key = guarded
    tiles = make_tiles(3)
    with open_device(f"tcp://127.0.0.1:{port}?key={key}", tiny_bundle, POLICY, "fake", patience=HASTY) as session:
        assert [c.octets for c in session.encode_tiles(tiles)] == [fake_agent.expected(t, POLICY) for t in tiles]
    with pytest.raises(DeviceError, match=r"wants a key; add \?key=FILE"):
        open_device(f"tcp://127.0.0.1:{port}", tiny_bundle, POLICY, "fake", patience=HASTY)
    write_key(tmp_path / "other")
    with pytest.raises(DeviceError, match="another key than the agent"):
        open_device(f"tcp://127.0.0.1:{port}?key={tmp_path / 'other'}", tiny_bundle, POLICY, "fake", patience=HASTY)


def test_a_proof_is_good_for_one_challenge(guarded):
    port, key = guarded
    with socket.create_connection(("127.0.0.1", port)) as line:
        ((_, told),) = talk(line, HELLO)
        proof = prove(read_key(key), "host", told["challenge"], "ab")
    with socket.create_connection(("127.0.0.1", port)) as line:
        talk(line, HELLO)
        fields = pack_body({"nonce": "ab", "proof": proof})
        ((kind, told),) = talk(line, Frame(Type.HELLO, 7, 2, fields))
        assert kind == Type.ERROR and "another key" in told["error"]
        ((kind, told),) = talk(line, Frame(Type.HELLO, 7, 3, fields))
        assert kind == Type.HELLO and set(told) == {"challenge"}  # a fresh one: nothing of the device is told


def test_the_proofs_by_an_independent_hmac():
    """HMAC by its definition, RFC 2104, over two calls of a hash."""
    import hashlib

    key = bytes(range(32))
    inner, outer = (bytes(k ^ pad for k in key.ljust(64, b"\0")) for pad in (0x36, 0x5C))
    message = b"nadir-agent-2\0host\0aa\0bb"
    wanted = hashlib.sha256(outer + hashlib.sha256(inner + message).digest()).hexdigest()
    assert prove(key, "host", "aa", "bb") == wanted


def test_a_host_with_a_key_does_not_talk_to_a_device_that_asks_for_none(steady_agent, tiny_bundle, tmp_path):
    write_key(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    with pytest.raises(DeviceError, match="asks for no key"):
        open_device(f"{steady_agent.url}?key={tmp_path / 'key'}", tiny_bundle, POLICY, "fake", patience=HASTY)


@pytest.mark.parametrize("text", ["", "00" * 31, "zz" * 32, "00" * 33])
def test_a_key_file_that_is_none_is_refused(text, tmp_path):
    (tmp_path / "key").write_text(text)
    with pytest.raises(InputError, match="64 hex digits"):
        read_key(tmp_path / "key")


@pytest.mark.parametrize("line", [["--tcp", "0.0.0.0:0"], ["--tcp", ":0"], ["--serial", "/dev/ttyS0"]])
def test_an_agent_that_others_could_reach_wants_a_key(line, agent_command):
    if line[1] == ":0":
        pytest.skip("an empty host is the loopback")
    done = subprocess.run([*agent_command(0.0), *line], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "give --key FILE" in done.stderr


def test_a_session_keeps_its_place_and_the_newcomer_is_told(steady_agent, tiny_bundle, make_tiles, fake_agent):
    """On the tree before, the newest connection won."""
    tiles = make_tiles(12)
    with open_device(steady_agent.url, tiny_bundle, POLICY, "fake", patience=HASTY) as session:
        codes = session.encode_tiles(tiles)
        found = [next(codes)]
        with knock(steady_agent) as line:
            ((kind, told),) = talk(line, HELLO)
            assert kind == Type.ERROR and told["reason"] == "busy" and "has a session with this device" in told["error"]
            found += list(codes)
        assert session.incidents.causes == []
    assert [c.octets for c in found] == [fake_agent.expected(t, POLICY) for t in tiles]


def test_a_host_that_comes_back_over_a_fresh_line_gets_its_session(tcp_agent, tiny_bundle, make_tiles, fake_agent):
    """The old line is not closed: as the agent sees it, a cable was pulled."""
    agent, lines, tiles = tcp_agent(), [], make_tiles(4)

    class Left:
        """A channel that is given up without a word."""

        def __init__(self):
            self.inner = SocketChannel(knock(agent))
            self.read, self.write = self.inner.read, self.inner.write
            lines.append(self.inner)

        def close(self): ...

    with DeviceSession(Left, "left", tiny_bundle, POLICY, "fake", 1, HASTY) as session:
        session.mend("pulled")
        assert [c.octets for c in session.encode_tiles(tiles)] == [fake_agent.expected(t, POLICY) for t in tiles]
        assert session.incidents.reconnects == 1
    assert len(lines) == 2


def test_a_silent_host_gives_way_only_when_somebody_knocks(tiny_bundle, fake_agent):
    agent = Agent(tiny_bundle.directory, lambda b, policy, e, t: fake_agent.FakeEncoder(policy, "0"))
    server = listen_tcp("127.0.0.1", 0)
    door = Door(server, agent, silent_s=1.0)

    def serve():
        for arrival in door.arrivals():
            agent.serve_arrival(arrival)

    threading.Thread(target=serve, daemon=True).start()
    address = server.getsockname()
    with socket.create_connection(address) as first, socket.create_connection(address) as second:
        assert talk(first, HELLO)[0][0] == Type.HELLO
        assert talk(second, HELLO)[0][0] == Type.ERROR
        assert talk(first, Frame(Type.STATS, 7, 2, pack_body({})))[0][0] == Type.STATS
        time.sleep(1.2)
        assert talk(second, HELLO)[0][0] == Type.HELLO
        assert first.recv(10) == b""


def test_a_body_that_is_too_long_is_refused_before_it_is_there(steady_agent):
    """Only the header is sent: the tree before set 64 MiB aside and waited for them."""
    with knock(steady_agent) as line:
        talk(line, HELLO)
        for seq, kind in enumerate([Type.LOAD, Type.INFER, Type.STATS, Type.HELLO], 2):
            header = pack(Frame(kind, 7, seq, b"x" * (60 * 2**20)))[: HEADER.size]
            line.sendall(header)
            ((found, told),) = talk(line)
            assert found == Type.ERROR and "62914560 octets, this agent and its bundle take at most" in told["error"]
        assert talk(line, Frame(Type.STATS, 7, 9, pack_body({})))[0][0] == Type.STATS


def test_json_longer_than_a_tiles_fields_is_not_parsed(steady_agent):
    with knock(steady_agent) as line:
        talk(line, HELLO)
        body = pack_body({"row": [0] * 500})
        line.sendall(pack(Frame(Type.INFER, 7, 2, body)))
        ((kind, told),) = talk(line)
        assert kind == Type.ERROR  # nothing is loaded: that is said first
        line.sendall(pack(Frame(Type.LOAD, 7, 3, b"\0\0\xff\xf0" + b"[" * 0xFFF0)))
        ((kind, told),) = talk(line)
        assert kind == Type.ERROR and "does not parse" in told["error"]


def fields_with(**changes):
    return policy_fields(Policy()) | changes


def gate_with(**changes):
    return fields_with(gate=policy_fields(Policy())["gate"] | changes)


@pytest.mark.parametrize(
    "fields",
    [
        fields_with(fallback="banana"),
        fields_with(apid=1.5),
        fields_with(packet_octets=True),
        fields_with(step_dn="90"),
        fields_with(step_dn=float("nan")),
        fields_with(step_dn=float("inf")),
        fields_with(psnr_db=[40]),
        fields_with(budget_octets=1000),
        gate_with(flatten_clouds="yes"),
        gate_with(audit_count=2.5),
        gate_with(withhold_above_percent=float("nan")),
        gate_with(regions=[{"top_px": 0.5, "left_px": 0, "bottom_px": 9, "right_px": 9}]),
        gate_with(regions=[{"top_px": 0, "left_px": 0, "bottom_px": 9, "right_px": 9}] * 1001),
        gate_with(regions=7),
        gate_with(colour="red"),
        {"gate": None},
        [],
        None,
    ],
)
def test_a_policy_without_sense_is_refused_with_one_line(fields):
    with pytest.raises(ProtocolError, match="policy") as refusal:
        policy_of(json.loads(json.dumps(fields)))
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400


def test_every_policy_that_makes_sense_still_passes():
    for policy in (
        Policy(),
        Policy(step_dn=64, psnr_db=40, fallback="compare"),
        Policy(gate=Gate(regions=(Region(0, 0, 5, 5), LonLatRegion(1, 2.5, 3, 4)), reduce_above_percent=10)),
    ):
        assert policy_of(json.loads(json.dumps(policy_fields(policy)))) == policy


def test_a_power_file_is_a_regular_file_below_sys_or_refused(tmp_path):
    root, outside = tmp_path / "sys", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    os.mkfifo(root / "power1_input")
    (outside / "power1_input").write_text("1000000")
    (root / "energy_uj").mkdir()
    (root / "other").write_text("1")
    (root / "link").mkdir()
    (root / "link" / "power1_input").symlink_to(outside / "power1_input")
    for name in (
        "power1_input",
        "energy_uj",
        "other",
        "link/power1_input",
        "none/power1_input",
        "../outside/power1_input",
    ):
        before_s = time.monotonic()
        with pytest.raises(InputError, match="below"):
            SysfsPower(str(root / name), root)
        assert time.monotonic() - before_s < 1.0
    with pytest.raises(InputError, match="below"):
        SysfsPower(f"{root}/\0power1_input", root)


def test_a_power_file_that_becomes_a_pipe_blocks_nobody(tmp_path):
    """On the tree before, a FIFO held the agent until its watchdog ended it."""
    path = tmp_path / "power1_input"
    path.write_text("2000000")
    meter = SysfsPower(str(path), tmp_path)
    assert meter.read_w() == 2.0
    path.unlink()
    os.mkfifo(path)
    before_s = time.monotonic()
    assert meter.read_w() is None
    assert time.monotonic() - before_s < 1.0


def test_a_stream_with_a_pipe_as_its_power_file_is_refused_at_once(guarded, tiny_bundle, make_tiles, tmp_path):
    port, key = guarded
    os.mkfifo(tmp_path / "power1_input")
    with open_device(f"tcp://127.0.0.1:{port}?key={key}", tiny_bundle, POLICY, "fake", patience=HASTY) as session:
        before_s = time.monotonic()
        with pytest.raises(DeviceError, match="not a power meter's file"):
            session.stream({"seconds": 5, "work": False, "power": str(tmp_path / "power1_input"), "period_s": 0.02})
        assert time.monotonic() - before_s < 2.0


def hostile_frame(draw):
    """Whole frames with bodies of every kind of nonsense, headers of lengths that are not there, and noise."""
    kind = draw.choice([*Type, draw.randrange(256)])
    body = draw.choice(
        [
            b"",
            draw.randbytes(draw.randint(1, 4000)),
            pack_body({"row": draw.random(), "px": 10**9, "bands": -1}, b"x"),
            b"\0\0\x0f\xff" + b"[" * 4095,
            b"\xff\xff\xff\xff",
            pack_body({"seconds": 1e308, "work": True, "power": "/dev/zero", "period_s": -1}),
            pack_body({"policy": {"gate": {"regions": [{}] * 50}}, "engine": "a" * 1000, "threads": 10**30}),
        ]
    )
    octets = pack(
        Frame(kind, draw.choice([7, draw.getrandbits(32)]), draw.getrandbits(32), body, draw.choice([2, 2, 9]))
    )
    if draw.random() < 0.2:
        octets = pack(Frame(kind, 7, 1, bytes(2**20)))[: HEADER.size]  # a megabyte that does not follow
    if draw.random() < 0.2:
        octets = octets[: draw.randrange(len(octets))] + draw.randbytes(draw.randint(0, 60))
    return octets


def resident_mib(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_ten_thousand_hostile_frames_200_connections_and_a_slow_one_do_not_stop_the_honest_host(
    tcp_agent, tiny_bundle, make_tiles, fake_agent
):
    """The honest host's run finishes with equal octets and without one incident; the agent stays below 256 MiB."""
    agent, tiles, over, sent = tcp_agent(0.02), make_tiles(150, px=32), threading.Event(), [0]

    def attack(seed):
        draw = random.Random(seed)
        while sent[0] < 10_000 and not over.is_set():
            try:
                with knock(agent) as line:
                    line.sendall(pack(HELLO))
                    line.settimeout(0.2)
                    for _ in range(draw.randint(1, 100)):
                        line.sendall(hostile_frame(draw))
                        sent[0] += 1
            except OSError:
                continue

    def drip():
        """One octet of a HELLO at a time."""
        while not over.is_set():
            with knock(agent) as line:
                for octet in pack(HELLO):
                    try:
                        line.sendall(bytes([octet]))
                    except OSError:
                        break
                    if over.wait(1.0):
                        return

    with open_device(agent.url, tiny_bundle, POLICY, "fake", patience=HASTY) as session:
        crowd = [knock(agent) for _ in range(200)]
        workers = [threading.Thread(target=attack, args=(seed,)) for seed in range(4)]
        workers += [threading.Thread(target=drip) for _ in range(3)]
        for worker in workers:
            worker.start()
        rounds = 0
        while sent[0] < 10_000 or rounds == 0:
            codes = list(session.encode_tiles(tiles))
            assert [c.octets for c in codes] == [fake_agent.expected(t, POLICY) for t in tiles]
            rounds += 1
        over.set()
        for worker in workers:
            worker.join()
        assert session.incidents.causes == []
        peak_mib = session.peak_memory_mib()
    for line in crowd:
        line.close()
    with open_device(agent.url, tiny_bundle, POLICY, "fake", patience=HASTY) as session:  # and the door still opens
        assert session.encode_tile(tiles[0]).octets == fake_agent.expected(tiles[0], POLICY)
    assert sent[0] >= 10_000 and peak_mib <= 256, (sent, peak_mib)


@pytest.mark.slow
def test_hostile_frames_of_a_host_that_was_let_in_cost_no_memory_and_end_nothing(
    tcp_agent, tiny_bundle, make_tiles, fake_agent
):
    """As one with the key would send them: into the session itself."""
    agent, draw = tcp_agent(), random.Random(3)
    for _ in range(40):
        with knock(agent) as line:
            line.sendall(pack(HELLO))
            line.sendall(
                pack(
                    Frame(
                        Type.LOAD,
                        7,
                        2,
                        pack_body(
                            {
                                "bundle_id": tiny_bundle.bundle_id,
                                "policy": policy_fields(POLICY),
                                "engine": "fake",
                                "threads": 1,
                            }
                        ),
                    )
                )
            )
            line.settimeout(0.5)
            try:
                for _ in range(60):
                    line.sendall(hostile_frame(draw))
                    line.sendall(pack(Frame(draw.choice([Type.INFER, Type.HOLD]), 7, 3, pack_tile(make_tiles(1)[0]))))
            except OSError:
                continue
    with open_device(agent.url, tiny_bundle, POLICY, "fake", patience=HASTY) as session:
        assert session.encode_tile(make_tiles(1)[0]).octets == fake_agent.expected(make_tiles(1)[0], POLICY)
        assert session.peak_memory_mib() <= 256


def test_an_error_is_one_line_of_at_most_500_characters():
    assert unpack_body(error_body("failed", "a\n\n b" + "x" * 600))[0]["error"] == "a b" + "x" * 497
