"""The bundle: every file against its checksum, every value of the manifest, and the id that rides in tile codes."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.bundle import DEFAULT, GROUND_CLOUDS_FILE, Bundle, identity, load_bundle, shipped_bundles
from payload.codec.registry import open_codec
from payload.errors import BundleError


@pytest.fixture
def bundle(toy_bundle, tmp_path) -> Path:
    return Path(shutil.copytree(toy_bundle, tmp_path / "bundle"))


def change(bundle: Path, **changes) -> Path:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))
    return bundle


def refused(bundle: Path | str, *words: str, **how) -> None:
    with pytest.raises(BundleError) as caught:
        load_bundle(bundle, **how)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_a_bundle_tells_what_its_manifest_says(bundle) -> None:
    found = load_bundle(bundle)
    assert (found.name, found.bands, found.tile_px) == ("toy", ("B02", "B03", "B04", "B08"), 64)
    assert found.codec["kind"] == "fsq"
    assert found.file("flight/tables.npz") == bundle / "flight" / "tables.npz"
    with pytest.raises(BundleError, match=r"no file flight/nothing\.onnx in its manifest"):
        found.file("flight/nothing.onnx")


def test_the_id_by_hand() -> None:
    manifest = {
        "format_version": 1, "name": "any", "bands": ["B02"], "tile_px": 8, "codec": {"kind": "fsq"},
        "files": {"b": "22", "a": "11"}, "built": "today",
    }  # fmt: skip
    canonical = b'{"bands":["B02"],"codec":{"kind":"fsq"},"files":{"a":"11","b":"22"},"format_version":1,"tile_px":8}'
    assert identity(manifest) == canonical
    assert Bundle(Path(), manifest).bundle_id == int(hashlib.sha256(canonical).hexdigest()[:8], 16)


def test_the_ground_s_cloud_network_decides_no_stream_and_its_octets_are_checked(bundle) -> None:
    before = load_bundle(bundle).bundle_id
    network = bundle / GROUND_CLOUDS_FILE
    network.parent.mkdir(exist_ok=True)
    network.write_bytes(b"any")
    files = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["files"]
    digest = hashlib.sha256(b"any").hexdigest()
    assert load_bundle(change(bundle, files=files | {GROUND_CLOUDS_FILE: digest})).bundle_id == before
    other = change(bundle, files=files | {"ground/other.onnx": digest})
    assert load_bundle(other, flight_only=True).bundle_id != before
    change(bundle, files=files | {GROUND_CLOUDS_FILE: digest})
    network.write_bytes(b"another")
    refused(bundle, "ground/clouds.onnx", "sha256")


@pytest.mark.parametrize(
    ("key", "value", "same"),
    [
        ("name", "another", True),  # what decides no stream is not in the id
        ("built", {"by": "hand"}, True),
        ("tile_px", 128, False),
        ("bands", ["B02", "B03", "B04", "B05"], False),
        ("codec", {"kind": "fsq", "layers": 4}, False),
        ("first_ground", {"ground/decoder.onnx": "00"}, False),
    ],
)
def test_the_id_changes_with_what_decides_a_stream_and_with_nothing_else(bundle, key, value, same) -> None:
    before = load_bundle(bundle).bundle_id
    assert (load_bundle(change(bundle, **{key: value})).bundle_id == before) is same


def test_a_better_decoder_network_leaves_the_id_alone(bundle) -> None:
    before, file = load_bundle(bundle), "ground/decoder.onnx"
    (bundle / file).write_bytes(b"better")
    files = before.manifest["files"] | {file: hashlib.sha256(b"better").hexdigest()}
    assert load_bundle(change(bundle, files=files)).bundle_id != before.bundle_id
    first = {file: before.manifest["files"][file]}
    assert load_bundle(change(bundle, files=files, first_ground=first)).bundle_id == before.bundle_id


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_of_a_listed_file_goes_unnoticed(toy_bundle, tmp_path_factory, data) -> None:
    bundle = Path(shutil.copytree(toy_bundle, tmp_path_factory.mktemp("flipped") / "bundle"))
    name = data.draw(st.sampled_from(sorted(load_bundle(bundle).manifest["files"])))
    octets = bytearray((bundle / name).read_bytes())
    octets[data.draw(st.integers(0, len(octets) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (bundle / name).write_bytes(octets)
    refused(bundle, name, "sha256 is", "the manifest says", "restore it or rebuild")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_manifest_is_a_bundle_error_or_another_bundle(toy_bundle, tmp_path_factory, data) -> None:
    """It carries no checksum of its own: a change that leaves it readable must not crash, and must change the id
    unless it is only a name or a note."""
    bundle = Path(shutil.copytree(toy_bundle, tmp_path_factory.mktemp("flipped") / "bundle"))
    original = load_bundle(bundle)
    octets = bytearray((bundle / "manifest.json").read_bytes())
    at = data.draw(st.integers(0, len(octets) - 1))
    octets[at] = data.draw(st.integers(0, 255).filter(lambda o: o != octets[at]))
    (bundle / "manifest.json").write_bytes(octets)
    try:
        found = load_bundle(bundle)
        open_codec(found)
    except BundleError as error:
        assert "\n" not in str(error)
        return
    decisive = ("format_version", "bands", "tile_px", "codec", "files")
    same = all(found.manifest[key] == original.manifest[key] for key in decisive)
    assert (found.bundle_id == original.bundle_id) is same


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tile_px": None, "codec": None}, ("tile_px, codec missing",)),
        ({"format_version": 1}, ("format_version '1'", "reads 2")),
        ({"tile_px": "256"}, ("tile_px is '256'", "a multiple of 8")),
        ({"tile_px": 100}, ("tile_px is '100'",)),
        ({"tile_px": 0}, ("tile_px is '0'",)),
        ({"tile_px": True}, ("tile_px is 'True'",)),
        ({"bands": "B02"}, ("bands is 'B02'", "a list of names")),
        ({"bands": []}, ("bands is '[]'",)),
        ({"bands": [2, 3]}, ("bands is '[2, 3]'",)),
        ({"codec": "fsq"}, ("codec is 'fsq'",)),
        ({"files": ["flight/encoder.onnx"]}, ("files is",)),
        ({"files": {"flight/encoder.onnx": 5}}, ("files is",)),
        ({"first_ground": {"flight/encoder.onnx": "00"}}, ("first_ground is", "files of ground/")),
        ({"first_ground": {"ground/other.onnx": "00"}}, ("first_ground is",)),
        ({"first_ground": ["ground/decoder.onnx"]}, ("first_ground is",)),
        ({"files": {"../secret": "00"}}, ("outside the bundle",)),
        ({"files": {"flight/gone.onnx": "00"}}, ("gone.onnx", "not there")),
    ],
)
def test_manifests_that_cannot_be_used_are_refused_by_name(bundle, changes, words) -> None:
    refused(change(bundle, **changes), *words)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "\xff\xfe"])
def test_manifests_that_are_no_table_are_refused(bundle, text) -> None:
    (bundle / "manifest.json").write_bytes(text.encode("latin-1"))
    refused(bundle, "manifest.json")


def test_the_flight_part_is_enough_on_board(bundle) -> None:
    shutil.rmtree(bundle / "ground")
    assert load_bundle(bundle, flight_only=True).name == "toy"
    refused(bundle, "ground/decoder.onnx", "not there")


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    refused("nothing-of-the-kind", "'nothing-of-the-kind'", "no manifest.json", DEFAULT)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"codec": {"kind": "dct"}}, "codec kind 'dct' is unknown"), ({"tile_px": 72}, "72 px, wanted a multiple of 64")],
)
def test_codecs_that_cannot_be_opened_are_refused(bundle, changes, words) -> None:
    with pytest.raises(BundleError, match=words):
        open_codec(load_bundle(change(bundle, **changes)))


@pytest.mark.parametrize("name", shipped_bundles())
def test_shipped_bundles_are_whole_and_list_everything_they_hold(name) -> None:
    found = load_bundle(name)
    held = {p.relative_to(found.directory).as_posix() for p in found.directory.rglob("*") if p.is_file()}
    assert held - {"manifest.json", "check.json", "compiled.json", "signature.json"} == set(found.manifest["files"])
