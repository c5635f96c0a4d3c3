"""Signing and delta uplink: round trips, sizes, damage."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.bundle.delta import FileDelta, apply_delta, as_text, make_delta, pack, patch, unpack, unpatch
from export.bundle.sign import new_key, public_path, sign_bundle
from payload.bundle import FORMAT_VERSION, load_bundle
from payload.errors import BundleError, InputError
from payload.signature import load_public_key, require_signature


def bundle(directory, files):
    directory.mkdir()
    for name, content in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(content)
    manifest = {
        "format_version": FORMAT_VERSION, "name": "t", "bands": ["B02"], "tile_px": 8, "codec": {"kind": "fsq"},
        "files": {n: hashlib.sha256(c).hexdigest() for n, c in files.items()},
    }  # fmt: skip
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_unpatch_is_the_inverse_of_patch(old, new):
    assert unpatch(old, patch(old, new)) == new


@settings(max_examples=40)
@given(
    st.binary(min_size=64, max_size=400), st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=30)), max_size=4)
)
def test_patches_survive_insertions(old, edits):
    new = old
    for at, piece in edits:
        new = new[:at] + piece + new[at:]
    assert unpatch(old, patch(old, new)) == new


@given(
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=32, max_size=32),
    st.lists(st.tuples(st.text(min_size=1, max_size=40), st.integers(0, 255), st.binary(max_size=50)), max_size=5),
)
def test_unpack_is_the_inverse_of_pack(before, after, files):
    octets = pack(before, after, [FileDelta(n, how, p, 0) for n, how, p in files])
    assert unpack(octets) == (before, after, files)


def test_the_octets_of_a_delta_by_hand():
    octets = pack(b"\x01" * 32, b"\x02" * 32, [FileDelta("f/a", 1, b"\xaa\xbb", 9)])
    assert octets == (
        b"NDLT\x01"  # magic, version 1
        + b"\x01" * 32  # sha256 of the manifest on board
        + b"\x02" * 32  # sha256 of the new manifest
        + b"\x00\x01"  # one file
        + b"\x03f/a"  # its name, three octets long
        + b"\x01"  # sent whole
        + b"\x00\x00\x00\x02\xaa\xbb"  # two octets of payload
    )


def test_a_shifted_file_with_slightly_changed_weights_packs_small():
    rng = np.random.default_rng(0)
    weights = rng.integers(-63, 64, 40_000).astype(np.int8)
    changed = np.clip(weights + (rng.random(40_000) < 0.05) * rng.integers(-1, 2, 40_000), -63, 63).astype(np.int8)
    old = b"head" + weights[:20_000].tobytes() + b"a name of a tensor in the middle" + weights[20_000:].tobytes()
    new = b"longer head" + changed[:20_000].tobytes() + b"a name of a tensor in the middle" + changed[20_000:].tobytes()
    payload = patch(old, new)
    assert unpatch(old, payload) == new
    assert len(payload) < 0.25 * len(new)


def test_a_delta_goes_up_and_comes_out_as_the_new_bundle(tmp_path):
    rng = np.random.default_rng(1)
    weights, tables = rng.bytes(5000), rng.bytes(3000)
    files = {"flight/encoder.onnx": weights, "flight/tables.npz": tables, "ground/decoder.onnx": b"big"}
    old = bundle(tmp_path / "old", files)
    retrained = bytes([weights[0] ^ 1]) + weights[1:]
    new = bundle(tmp_path / "new", files | {"flight/encoder.onnx": retrained, "flight/new.bin": b"n" * 50})
    delta, sent = make_delta(old, new)
    assert {f.name: f.how for f in sent} == {
        "manifest.json": 2, "flight/encoder.onnx": 2, "flight/new.bin": 1, "flight/tables.npz": 0,
    }  # fmt: skip
    assert len(delta) < 1200 and "uplink:" in as_text(sent, delta)
    rebuilt = apply_delta(old, delta, tmp_path / "out")
    assert rebuilt.manifest == json.loads((new / "manifest.json").read_text())
    assert (tmp_path / "out/flight/encoder.onnx").read_bytes() == retrained
    assert not (tmp_path / "out/ground").exists()  # the ground part never goes up


@pytest.mark.parametrize("cut", [0, 10, 80, -1])
def test_a_cut_delta_is_refused_and_leaves_nothing(tmp_path, cut):
    old = bundle(tmp_path / "old", {"flight/a": b"1" * 100})
    new = bundle(tmp_path / "new", {"flight/a": b"2" * 100})
    delta, _ = make_delta(old, new)
    with pytest.raises(InputError, match="delta"):
        apply_delta(old, delta[:cut], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damage_inside_a_file_is_refused(tmp_path):
    old = bundle(tmp_path / "old", {"flight/a": b"1" * 100})
    new = bundle(tmp_path / "new", {"flight/a": np.random.default_rng(0).bytes(400)})
    delta = bytearray(make_delta(old, new)[0])
    delta[-40] ^= 0xFF
    with pytest.raises(InputError):
        apply_delta(old, bytes(delta), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_delta_for_another_bundle_is_refused(tmp_path):
    old = bundle(tmp_path / "old", {"flight/a": b"1"})
    new, other = bundle(tmp_path / "new", {"flight/a": b"2"}), bundle(tmp_path / "other", {"flight/a": b"3"})
    with pytest.raises(InputError, match="made for another bundle"):
        apply_delta(other, make_delta(old, new)[0], tmp_path / "out")


def test_a_delta_cannot_write_outside_the_bundle(tmp_path):
    old = bundle(tmp_path / "old", {"flight/a": b"1"})
    digest = hashlib.sha256((old / "manifest.json").read_bytes()).digest()
    evil = pack(digest, digest, [FileDelta("../escaped", 1, patch(b"", b"x"), 1)])
    with pytest.raises(InputError, match="outside the bundle"):
        apply_delta(old, evil, tmp_path / "out")
    assert not (tmp_path / "escaped").exists()


def test_signing_and_verifying(tmp_path):
    pytest.importorskip("cryptography")
    directory = bundle(tmp_path / "b", {"flight/a": b"1"})
    public = new_key(tmp_path / "keys" / "flight.pem")
    assert load_public_key(public_path(tmp_path / "keys" / "flight.pem")) == public
    assert (tmp_path / "keys" / "flight.pem").stat().st_mode & 0o077 == 0
    signature = sign_bundle(directory, tmp_path / "keys" / "flight.pem")
    assert require_signature(directory, [public]) == signature.key_id
    (directory / "flight/a").write_bytes(b"2")
    with pytest.raises(BundleError, match="changed after it was built"):
        sign_bundle(directory, tmp_path / "keys" / "flight.pem")


def test_keys_are_never_overwritten_and_bad_ones_are_one_line(tmp_path):
    pytest.importorskip("cryptography")
    directory = bundle(tmp_path / "b", {"flight/a": b"1"})
    new_key(tmp_path / "k.pem")
    with pytest.raises(InputError, match="never overwritten"):
        new_key(tmp_path / "k.pem")
    with pytest.raises(InputError, match="no such key"):
        sign_bundle(directory, tmp_path / "absent.pem")
    (tmp_path / "bad.pem").write_text("-----BEGIN NOTHING-----")
    with pytest.raises(InputError, match="not an unencrypted PEM"):
        sign_bundle(directory, tmp_path / "bad.pem")
    assert not (directory / "signature.json").exists()


def test_the_signature_travels_with_the_delta(tmp_path):
    pytest.importorskip("cryptography")
    old = bundle(tmp_path / "old", {"flight/a": b"1" * 50})
    new = bundle(tmp_path / "new", {"flight/a": b"2" * 50})
    public = new_key(tmp_path / "k.pem")
    sign_bundle(new, tmp_path / "k.pem")
    apply_delta(old, make_delta(old, new)[0], tmp_path / "out")
    assert require_signature(tmp_path / "out", [public])


def test_only_what_one_device_runs_goes_up(tmp_path):
    """Weights lie in the ONNX file, which every engine reads, and once more in its IR: that stays on the ground."""
    weights = np.random.default_rng(0).bytes(5000)
    names = ("flight/net.onnx", "flight/net.xml", "flight/net.bin", "flight/tables.npz")
    old = bundle(tmp_path / "old", dict.fromkeys(names, weights))
    new = bundle(tmp_path / "new", dict.fromkeys(names, weights[::-1]))
    delta, files = make_delta(old, new)
    assert [f.name for f in files] == ["manifest.json", "flight/net.onnx", "flight/tables.npz"]
    assert len(delta) < 2.2 * len(weights) < len(make_delta(old, new, with_ir=True)[0])
    apply_delta(old, delta, tmp_path / "out")
    assert not (tmp_path / "out/flight/net.bin").exists()
    load_bundle(tmp_path / "out", flight_only=True)


def test_a_device_may_do_without_ir_but_not_without_networks(tmp_path):
    whole = bundle(tmp_path / "b", {"flight/net.onnx": b"1", "flight/net.xml": b"2", "flight/net.bin": b"3"})
    (whole / "flight/net.bin").write_bytes(b"4")
    with pytest.raises(BundleError, match="sha256"):  # one that is there must be right
        load_bundle(whole, flight_only=True)
    (whole / "flight/net.bin").unlink()
    load_bundle(whole, flight_only=True)
    with pytest.raises(BundleError, match="not there"):
        load_bundle(whole)
    (whole / "flight/net.onnx").unlink()
    with pytest.raises(BundleError, match="not there"):
        load_bundle(whole, flight_only=True)
