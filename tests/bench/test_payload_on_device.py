"""The shipped bundle on devices: this host's octets everywhere, runs that go on where they broke off, emulated CPUs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from toys import ArrayScene

from hil.bench.equal import equal
from hil.bench.run import RunFolder, run, run_identity
from hil.host.agent_zip import write_agent
from hil.host.client import DeviceError, open_device
from hil.host.emulation import ROOT, agent_command
from payload.bundle import DEFAULT, load_bundle, shipped_bundles
from payload.engine import open_engine
from payload.errors import InputError
from payload.link import tile_code
from payload.link.space_packet import Reassembler, read_packets
from payload.pipeline import Payload
from payload.policy import Policy
from payload.scene import SceneInfo
from payload.tiles import Tile, split

POLICY = Policy(step_dn=90.0)
FAKE_AGENT = Path(__file__).parent / "fake_agent.py"
pytestmark = pytest.mark.skipif(
    DEFAULT not in shipped_bundles(), reason="the shipped bundle is not built in this checkout"
)


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(DEFAULT, flight_only=True)


@pytest.fixture(scope="module")
def tiles(bundle):
    """A textured scene of 2 x 2 tiles with an edge that is not full and a corner without data."""
    random, px = np.random.default_rng(4), bundle.tile_px
    side = 2 * px - 40
    y, x = np.mgrid[:side, :side]
    smooth = 900 + 500 * np.sin(x / 37) * np.cos(y / 53)
    dn = np.stack([smooth * (1 + band) + random.normal(0, 60, (side, side)) for band in range(4)])
    valid = np.ones((side, side), bool)
    valid[:30, :50] = False
    info = SceneInfo("made-up", side, side, bundle.bands, 10.0)
    return list(split(ArrayScene(info, np.clip(dn, 0, 10_000).astype(np.uint16), valid), px))


@pytest.fixture(scope="module")
def wanted(bundle, tiles):
    payload = Payload(bundle, POLICY, open_engine("openvino", 1))
    return [tile_code.pack(payload.encode_tile(tile)) for tile in tiles]


def folder(path, bundle, resume=False, overwrite=False):
    return RunFolder(path, run_identity("made-up", bundle, POLICY), resume, overwrite)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_every_octet_equals_the_hosts(engine, bundle, tiles, wanted, tmp_path):
    with open_device("host:", bundle, POLICY, engine) as session:
        report = run(session, tiles, bundle, POLICY, folder(tmp_path, bundle), open_engine("openvino", 1))
    assert (report.tiles, report.compared, report.different, report.held) == (4, 4, [], True)
    assert report.index_mismatch and set(report.index_mismatch) == {0.0}
    assert [path.read_bytes() for path in sorted((tmp_path / "codes").iterdir())] == wanted
    assert report.compute_s > 0


@pytest.mark.parametrize("flat", [True, False])
def test_a_tile_larger_than_the_bundles_is_an_error_reply_and_the_agent_goes_on(flat, bundle, tiles, wanted):
    """It overran the kernel's buffers: where it was uniform nothing before them refused it."""
    px = 2 * bundle.tile_px
    dn = np.full((4, px, px), 700, np.uint16) if flat else tiles[0].dn.repeat(2, axis=1).repeat(2, axis=2)
    large = Tile(0, 0, dn, np.ones((px, px), bool))
    said = "body of 2097209 octets, this agent and its bundle take at most 532740"
    with open_device("host:", bundle, POLICY, "openvino") as session, pytest.raises(DeviceError, match=said):
        list(session.encode_tiles([large]))
    with open_device("host:", bundle, POLICY, "openvino") as session:
        assert [coded.octets for coded in session.encode_tiles(tiles[:1])] == wanted[:1]


@pytest.mark.slow
def test_the_packed_agent_alone_sends_the_hosts_octets(bundle, tiles, wanted, tmp_path):
    """Out of its zipapp, away from the checkout: what a board runs."""
    agent = write_agent(bundle, tmp_path)
    with open_device(f"stdio:{sys.executable} -P {agent} --stdio", bundle, POLICY) as session:
        assert [coded.octets for coded in session.encode_tiles(tiles)] == wanted


@pytest.mark.slow
def test_a_serial_line_of_one_megabaud_carries_real_tiles_and_says_what_it_bounds(
    paced_cable, bundle, tiles, wanted, tmp_path
):
    cable = paced_cable(1_000_000)
    command = [sys.executable, "-m", "hil.agent.serve", "--serial", cable.ports[1], "--bundle", str(bundle.directory)]
    agent = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        with open_device(f"serial://{cable.ports[0]}?baud=1000000", bundle, POLICY) as session:
            report = run(session, tiles[:2], bundle, POLICY, folder(tmp_path, bundle), None)
    finally:
        agent.kill()
        agent.wait()
    assert [path.read_bytes() for path in sorted((tmp_path / "codes").iterdir())] == wanted[:2]
    assert report.line.startswith("1000000 baud carry a tile of 524288 octets in 5.24 s, 0.0125 Mpx/s at most")
    assert report.wall_s > 2 * 5.24 > 10 * report.compute_s


def test_the_packets_of_a_run_give_the_ground_the_same_codes(bundle, tiles, wanted, tmp_path):
    with open_device("host:", bundle, POLICY) as session:
        run(session, tiles, bundle, POLICY, folder(tmp_path, bundle), None)
    received = read_codes(tmp_path / "packets.bin")
    assert received == wanted


def read_codes(path):
    ground = Reassembler(POLICY.apid)
    found = []
    with path.open("rb") as file:
        for octets in read_packets(file):
            found += ground.push(octets)
    found += ground.finish()
    return [assembly.data for assembly in found]


def test_a_run_goes_on_where_it_broke_off(bundle, tiles, wanted, tmp_path):
    def broken():
        yield from tiles[:2]
        raise DeviceError("the cable is gone")

    with open_device("host:", bundle, POLICY) as session:
        with pytest.raises(DeviceError):
            run(session, broken(), bundle, POLICY, folder(tmp_path, bundle), None)
        kept = len(list((tmp_path / "codes").iterdir()))
        report = run(session, tiles, bundle, POLICY, folder(tmp_path, bundle, resume=True), None)
    assert not list(tmp_path.rglob("*.part"))
    assert kept <= 2 and report.tiles == 4
    assert [path.read_bytes() for path in sorted((tmp_path / "codes").iterdir())] == wanted


def test_a_folder_with_another_run_is_not_touched(bundle, tmp_path):
    folder(tmp_path / "run", bundle).open()
    with pytest.raises(InputError, match="--resume"):
        folder(tmp_path / "run", bundle)
    (tmp_path / "run" / "run.json").write_text(json.dumps({"scene": "another"}))
    with pytest.raises(InputError, match="another scene"):
        folder(tmp_path / "run", bundle, resume=True)


def test_a_device_that_computes_otherwise_is_found_out(bundle, tiles, tmp_path):
    """The device codes at another step than the host compares with: every index rate is above zero."""
    other = Policy(step_dn=200.0)
    with open_device("host:", bundle, other) as session:
        report = run(session, tiles[:2], bundle, POLICY, folder(tmp_path, bundle), open_engine("openvino", 1))
    assert len(report.different) == 2
    assert not report.held
    assert min(report.index_mismatch) > 0.0


def test_devices_side_by_side_and_the_one_that_differs_is_named(bundle, tiles, tmp_path):
    command = f"{sys.executable} {FAKE_AGENT} 0 --stdio --bundle {bundle.directory}"
    said = []
    found = equal(
        ["host:", "host:", f"stdio:{command}"], [*tiles[:2], tiles[0]], bundle, POLICY,
        lambda name: folder(tmp_path / f"{len(said)}-{name}", bundle), said.append,
    )  # fmt: skip
    assert [one.tiles for one in found] == [3, 3, 3] and len(said) == 3  # the same address twice is two tiles
    assert found[0].sha256 == found[1].sha256 != found[2].sha256
    assert [one.different for one in found] == [(), (), (0, 1, 2)]


def test_a_device_that_cannot_be_had_is_said_before_the_first_tile(bundle, tiles, tmp_path):
    with pytest.raises(InputError, match="z80"):
        equal(["host:", "emulated:z80"], tiles, bundle, POLICY, lambda name: folder(tmp_path / name, bundle), print)
    assert not list(tmp_path.iterdir())


NO_QEMU = pytest.mark.skipif(not shutil.which("qemu-x86_64-static"), reason="qemu-user-static is not installed")
NO_ROOT = pytest.mark.skipif(not (ROOT / "opt/site/numpy").is_dir(), reason="no arm64 root here; run `hil sysroot`")
EMULATED = [
    pytest.param("Haswell", marks=NO_QEMU),
    pytest.param("cortex-a53+onnxruntime", marks=NO_ROOT),
    pytest.param("cortex-a76+onnxruntime", marks=NO_ROOT),
]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("processor", EMULATED)
def test_an_emulated_processor_computes_the_same_octets(processor, bundle, tiles, wanted):
    with open_device(f"emulated:{processor}", bundle, POLICY) as session:
        assert session.info.emulated == processor
        assert session.encode_tile(tiles[3]).octets == wanted[3]


def test_an_emulated_processor_that_does_not_exist_is_named(bundle):
    with pytest.raises(InputError, match="Haswell"):
        agent_command("z80", bundle.directory)


def test_an_emulated_processor_without_a_root_says_how_to_make_one(bundle, tmp_path):
    with pytest.raises(InputError, match="hil sysroot"):
        agent_command("cortex-a53", bundle.directory, tmp_path / "none")


def test_a_bundle_of_another_id_is_refused_at_hello(bundle, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(bundle.directory, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["codec"]["note"] = "changed"
    (other / "manifest.json").write_text(json.dumps(manifest))
    url = f"stdio:{sys.executable} -m hil.agent.serve --stdio --bundle {other}"
    with pytest.raises(DeviceError, match=r"this run wants .*hil deploy"):
        open_device(url, bundle, POLICY)
