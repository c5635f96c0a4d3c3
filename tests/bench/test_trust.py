"""Whose bundles a device runs: signed by a key it holds, unchanged, none older than it has run before."""

import json
import shutil
import sys

import pytest

from export.bundle.sign import new_key, public_path, sign_bundle
from hil.agent.trust import Trust
from hil.host.agent_zip import write_agent
from hil.host.client import open_device
from hil.host.session_values import DeviceError, Patience
from hil.host.trusted_bundle import shipped_keys, trusted_bundle
from payload.bundle import load_bundle
from payload.errors import BundleError, InputError, SignatureError
from payload.policy import Policy
from payload.signature import load_public_key

pytest.importorskip("cryptography", reason="cryptography is not installed")
HASTY = Patience(hello_s=10.0, silence_s=10.0, attempts=2, pause_s=0.05)


@pytest.fixture
def signed(tiny_bundle, tmp_path):
    """Makes a signed copy of the tiny bundle with a serial number; `trust` is the device's folder."""
    new_key(tmp_path / "flight.pem")
    (tmp_path / "trust").mkdir()
    shutil.copy(public_path(tmp_path / "flight.pem"), tmp_path / "trust" / "flight.pub")

    def make(serial, name=None):
        copy = tmp_path / (name or f"bundle-{serial}")
        shutil.copytree(tiny_bundle.directory, copy)
        manifest = json.loads((copy / "manifest.json").read_text())
        del manifest["files"]["ground/none.bin"]
        (copy / "manifest.json").write_text(json.dumps(manifest))
        sign_bundle(copy, tmp_path / "flight.pem", serial)
        return copy

    return make


def try_device(bundle, fake_agent, trust, tile=None):
    """A session with an agent that holds `bundle` and trusts the keys in `trust`."""
    command = f"{sys.executable} {fake_agent.__file__} 0 --stdio --bundle {bundle} --trust {trust}"
    with open_device(
        f"stdio:{command}", load_bundle(bundle, flight_only=True), Policy(), "fake", patience=HASTY
    ) as session:
        return session.encode_tile(tile) if tile is not None else None


def test_a_signed_bundle_runs_and_its_number_is_remembered(signed, fake_agent, tmp_path, make_tiles):
    (tile,) = make_tiles(1)
    coded = try_device(signed(5), fake_agent, tmp_path / "trust", tile)
    assert coded.octets == fake_agent.expected(tile, Policy())
    assert (tmp_path / "trust" / "serial").read_text() == "5\n"


def test_an_older_bundle_is_refused_by_the_device_with_one_line_to_the_host(signed, fake_agent, tmp_path):
    old, new = signed(5), signed(6)
    try_device(new, fake_agent, tmp_path / "trust")
    with pytest.raises(DeviceError, match="serial number 5, this device has run 6") as refusal:
        try_device(old, fake_agent, tmp_path / "trust")
    assert "\n" not in str(refusal.value)
    assert Trust(tmp_path / "trust").newest() == 6


def test_a_bundle_that_was_only_looked_at_does_not_count(signed, tmp_path):
    """Loading counts up, a check does not: a bundle that cannot run must not lock out the one that can."""
    newer = signed(9)
    trust = Trust(tmp_path / "trust")
    assert trust.load(newer).manifest["serial"] == 9
    assert trust.newest() == 0


@pytest.mark.parametrize("spoil", ["unsigned", "manifest", "file", "stranger"])
def test_a_bundle_that_was_tampered_with_never_runs(spoil, signed, fake_agent, tmp_path):
    """On the tree before, `hil run` held such a bundle."""
    bundle = signed(1)
    if spoil == "unsigned":
        (bundle / "signature.json").unlink()
    elif spoil == "manifest":
        text = (bundle / "manifest.json").read_text()
        (bundle / "manifest.json").write_text(text.replace('"tiny"', '"tinY"'))
    elif spoil == "file":
        (bundle / "flight" / "table.bin").write_bytes(b"tableS")
    else:
        new_key(tmp_path / "other.pem")
        sign_bundle(bundle, tmp_path / "other.pem", 1)
    shown = signed(1, "whole")
    command = f"{sys.executable} {fake_agent.__file__} 0 --stdio --bundle {bundle} --trust {tmp_path / 'trust'}"
    with pytest.raises(DeviceError, match=r"sign|sha256") as refusal:
        open_device(f"stdio:{command}", load_bundle(shown, flight_only=True), Policy(), "fake", patience=HASTY)
    assert "\n" not in str(refusal.value) and "lost after" not in str(refusal.value)


def test_a_bundle_that_is_changed_while_the_agent_runs_is_refused_at_the_next_load(
    signed, fake_agent, tmp_path, make_tiles
):
    bundle = signed(1)
    command = f"{sys.executable} {fake_agent.__file__} 0 --stdio --bundle {bundle} --trust {tmp_path / 'trust'}"
    with open_device(
        f"stdio:{command}", load_bundle(bundle, flight_only=True), Policy(), "fake", patience=HASTY
    ) as session:
        session.encode_tile(make_tiles(1)[0])
        (bundle / "flight" / "table.bin").write_bytes(b"other!")
        with pytest.raises(DeviceError, match="sha256"):
            session.reload()


def test_the_packed_agent_carries_the_signature_and_refuses_where_it_is_not_trusted(signed, tmp_path):
    bundle = load_bundle(signed(3), flight_only=True)
    agent = write_agent(bundle, tmp_path / "device")
    url = f"stdio:{sys.executable} -P {agent} --stdio --trust {tmp_path / 'trust'}"
    with pytest.raises(DeviceError) as refusal:  # it is trusted, but has no networks to load
        open_device(url, bundle, Policy(), "openvino", patience=HASTY)
    assert "sign" not in str(refusal.value)
    new_key(tmp_path / "other.pem")
    shutil.copy(public_path(tmp_path / "other.pem"), tmp_path / "trust" / "flight.pub")
    with pytest.raises(DeviceError, match="which is not trusted"):
        open_device(url, bundle, Policy(), "openvino", patience=HASTY)


def test_a_folder_without_keys_and_a_counter_that_is_none_are_refused(signed, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \*.pub"):
        Trust(tmp_path / "empty")
    bundle = signed(1)
    (tmp_path / "trust" / "serial").write_text("-3")
    with pytest.raises(InputError, match="no serial number"):
        Trust(tmp_path / "trust").load(bundle)


@pytest.mark.parametrize("serial", [-1, True, "5", 1.5, 2**63])
def test_a_serial_that_is_none_is_refused(serial, signed, tmp_path):
    bundle = signed(serial)
    with pytest.raises(BundleError, match="serial is"):
        Trust(tmp_path / "trust").load(bundle)


def test_the_bench_refuses_a_signed_bundle_that_was_changed_though_nobody_names_a_key(signed, tmp_path):
    """On the tree before, `hil run` held it: one octet of the manifest is another, and no key was asked for."""
    directory, key = signed(1), load_public_key(tmp_path / "trust" / "flight.pub")
    with pytest.raises(SignatureError, match="--trusted-key"):
        trusted_bundle(directory)  # signed by somebody unknown
    assert trusted_bundle(directory, [key]).name == load_bundle(directory, flight_only=True).name
    manifest = directory / "manifest.json"
    manifest.write_text(manifest.read_text().replace("tiny", "tinY"))
    for keys in ([], [key]):
        with pytest.raises(SignatureError):
            trusted_bundle(directory, keys)


def test_the_bench_takes_an_unsigned_bundle_unless_key_or_mission_ask(tiny_bundle, signed, tmp_path):
    key = load_public_key(tmp_path / "trust" / "flight.pub")
    assert trusted_bundle(tiny_bundle.directory).bundle_id == tiny_bundle.bundle_id
    with pytest.raises(SignatureError, match="unsigned"):
        trusted_bundle(tiny_bundle.directory, [key])
    (tmp_path / "m.toml").write_text(f'trusted_keys = ["{key.hex()}"]\n')
    with pytest.raises(SignatureError, match="unsigned"):
        trusted_bundle(tiny_bundle.directory, (), str(tmp_path / "m.toml"))
    (tmp_path / "m.toml").write_text("trusted_keys = [7]\n")
    with pytest.raises(InputError, match="trusted_keys cannot be read"):
        trusted_bundle(tiny_bundle.directory, (), str(tmp_path / "m.toml"))


def test_the_shipped_bundle_passes_by_the_shipped_missions_key():
    pytest.importorskip("sim.mission.spec", reason="the ground is not installed")
    assert shipped_keys() and trusted_bundle("edge").name == "edge"
