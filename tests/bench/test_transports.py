"""Lines: device URLs, serial over a pty, ssh to a server of this process, child processes, the packed agent."""

import asyncio
import hashlib
import os
import subprocess
import sys
import termios
import threading
import time

import pytest

from hil.host.agent_zip import agent_name, pack_agent, write_agent
from hil.host.client import DeviceError, Patience, open_device
from hil.host.deploy import deploy
from hil.host.transports import connector
from hil.line.channels import open_line
from hil.line.code_id import code_id
from hil.line.protocol import Frame, FrameReader, Type, pack, pack_body, unpack_body
from payload.errors import InputError
from payload.policy import Policy

HASTY = Patience(hello_s=2.0, silence_s=3.0, attempts=3, pause_s=0.05)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "board",
        "tcp://",
        "tcp://host",
        "tcp://host:port",
        "serial://",
        "serial:///dev/x?baud=fast",
        "ssh://",
        "stdio:",
        "ftp://x",
    ],
)
def test_a_url_that_is_none_is_refused(url, tmp_path):
    with pytest.raises(InputError, match="wanted"):
        connector(url, tmp_path)


def test_an_ssh_url_with_an_unknown_setting_is_refused(tmp_path):
    with pytest.raises(InputError, match="at most"):
        connector("ssh://pi@board/agent.pyz?password=secret", tmp_path)


def test_a_command_that_is_not_there_is_an_input_error(tiny_bundle):
    with pytest.raises(InputError, match="cannot be started"):
        open_device("stdio:no-such-program --stdio", tiny_bundle, Policy(), "fake", patience=HASTY)


def test_a_command_that_ends_at_once_is_a_clear_error(tiny_bundle):
    with pytest.raises(DeviceError, match="lost after"):
        open_device("stdio:true", tiny_bundle, Policy(), "fake", patience=HASTY)


def test_a_serial_line_that_is_not_there_is_a_clear_error(tiny_bundle):
    with pytest.raises(DeviceError, match="cannot be opened"):
        open_device("serial:///dev/no-such-line", tiny_bundle, Policy(), "fake", patience=Patience(attempts=1))


def test_a_serial_line_has_its_speed_in_both_directions():
    there, here = os.openpty()
    channel = open_line(os.ttyname(here), 57_600)
    speeds = termios.tcgetattr(here)[4:6]
    channel.close()
    os.close(there)
    assert speeds == [termios.B57600, termios.B57600]


@pytest.fixture
def serial_agent(agent_command, paced_cable):
    """An agent behind a cable of 1 Mbaud; gives the host's URL."""
    started = []

    def start(pause_s=0.0, spoil=lambda data: data):
        cable = paced_cable(1_000_000, spoil)
        command = [*agent_command(pause_s), "--serial", cable.ports[1]]
        started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        return f"serial://{cable.ports[0]}?baud=1000000"

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_tiles_over_a_serial_line_of_one_megabaud(serial_agent, tiny_bundle, make_tiles, fake_agent):
    tiles, policy = make_tiles(20), Policy()
    with open_device(serial_agent(), tiny_bundle, policy, "fake", patience=HASTY) as session:
        before_s = time.monotonic()
        codes = list(session.encode_tiles(tiles))
        wall_s = time.monotonic() - before_s
    assert [c.octets for c in codes] == [fake_agent.expected(t, policy) for t in tiles]
    carried = sum(t.dn.nbytes for t in tiles)
    assert carried / wall_s < 100_000  # ten bits an octet: the line is what bounds


def test_a_serial_line_that_loses_octets_loses_no_tile(serial_agent, tiny_bundle, make_tiles, fake_agent):
    passed = [0]

    def lossy(data):
        passed[0] += len(data)
        if passed[0] > 30_000:
            passed[0] = 0
            return data[: len(data) // 2]
        return data

    tiles, policy = make_tiles(20), Policy()
    with open_device(serial_agent(0.0, lossy), tiny_bundle, policy, "fake", patience=HASTY) as session:
        codes = list(session.encode_tiles(tiles))
        assert session.incidents.causes or session.incidents.tiles_sent_again
    assert [c.octets for c in codes] == [fake_agent.expected(t, policy) for t in tiles]


@pytest.fixture
def ssh_server(tmp_path):
    """An ssh server on this machine that runs what it is told, for one key; gives the settings of an ssh:// URL."""
    asyncssh = pytest.importorskip("asyncssh", reason="asyncssh is not installed")
    host_key, user_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    user_key.write_private_key(str(tmp_path / "key"))
    user_key.write_public_key(str(tmp_path / "key.pub"))
    loop, ready = asyncio.new_event_loop(), threading.Event()
    found = {}

    async def run_command(process):
        child = await asyncio.create_subprocess_shell(
            process.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        await process.redirect(stdin=child.stdin, stdout=child.stdout)
        await process.stdout.drain()
        process.exit(await child.wait())

    async def start():
        server = await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[host_key], authorized_client_keys=str(tmp_path / "key.pub"),
            process_factory=run_command, encoding=None,
        )  # fmt: skip
        port = server.sockets[0].getsockname()[1]
        public = host_key.export_public_key().decode().strip()
        (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}\n")
        found["port"] = port
        ready.set()

    def serve():
        loop.run_until_complete(start())
        loop.run_forever()

    threading.Thread(target=serve, daemon=True).start()
    assert ready.wait(10)
    yield f"127.0.0.1:{found['port']}", f"key={tmp_path / 'key'}&known_hosts={tmp_path / 'known_hosts'}"
    loop.call_soon_threadsafe(loop.stop)


def test_deploy_by_ssh_and_say_hello(ssh_server, tiny_bundle, tmp_path):
    address, settings = ssh_server
    url = deploy(tiny_bundle, f"ssh://tester@{address}{tmp_path}/board?{settings}&python={sys.executable}")
    (agent,) = (tmp_path / "board").glob("agent-*.pyz")
    assert agent.name == agent_name(agent.read_bytes())
    with pytest.raises(DeviceError, match="bundle tiny"):  # it has no networks to load
        open_device(url, tiny_bundle, Policy(), "openvino", patience=HASTY)


def test_a_wrong_key_is_a_clear_error(ssh_server, tiny_bundle, tmp_path):
    asyncssh = pytest.importorskip("asyncssh")
    address, settings = ssh_server
    other = tmp_path / "other"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(other))
    settings = settings.replace(f"key={tmp_path / 'key'}", f"key={other}")
    with pytest.raises(InputError, match="cannot be copied there"):
        deploy(tiny_bundle, f"ssh://tester@{address}{tmp_path}/board?{settings}")


def test_the_packed_agent_is_reproducible_and_named_by_its_octets(tiny_bundle, tmp_path):
    octets = pack_agent(tiny_bundle)
    assert pack_agent(tiny_bundle) == octets
    path = write_agent(tiny_bundle, tmp_path)
    assert path.name == f"agent-{hashlib.sha256(octets).hexdigest()[:16]}.pyz"
    assert path.read_bytes() == octets
    assert list(tmp_path.iterdir()) == [path]


def test_the_packed_agent_runs_alone_with_the_bundle_it_carries(tiny_bundle, tmp_path):
    agent = write_agent(tiny_bundle, tmp_path / "device")
    hello = pack(Frame(Type.HELLO, 1, 1, pack_body({})))
    clean = {"PATH": os.environ["PATH"]}
    command = [sys.executable, "-P", str(agent), "--stdio"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path, env=clean
    ) as process:
        process.stdin.write(hello)
        process.stdin.flush()  # the line stays open: an agent whose host is gone answers nobody
        reader, replies = FrameReader(), []
        while not replies:
            octets = process.stdout.read1()
            assert octets, "the agent ended without a word"
            replies = list(reader.feed(octets))
        process.stdin.close()
    (reply,) = replies
    fields, _ = unpack_body(reply.body)
    assert fields["code_id"] == code_id()
    assert fields["bundle_id"] == tiny_bundle.bundle_id


def test_an_agent_without_a_bundle_says_what_to_do():
    command = [sys.executable, "-m", "hil.agent.serve", "--stdio"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "give --bundle DIR" in done.stderr


@pytest.mark.parametrize(("already", "then"), [({}, "1"), ({"OPENBLAS_NUM_THREADS": "2"}, "2")])
def test_an_agent_multiplies_matrices_on_one_thread_unless_told(already, then):
    script = "import hil.agent.serve, os, sys; assert 'numpy' in sys.modules; print(os.environ['OPENBLAS_NUM_THREADS'])"
    clean = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=clean | already, timeout=60
    )
    assert done.stdout.strip() == then
