"""A bundle's variant: its blobs are files of the manifest, what the host needs is beside them, its id is its own."""

import dataclasses
import json

import pytest

from export.bundle.delta import uplinked
from export.bundle.sign import new_key, public_path, sign_bundle
from export.bundle.variant import write_variant
from export.devices.myriad_blob import BlobHeader, Stage
from export.devices.to_myriad import float_twin, report_network
from hil.devices.latency import network_work
from hil.devices.targets import load_target
from payload.bundle import load_bundle
from payload.errors import BundleError, InputError
from payload.signature import load_public_key

MYRIADX = load_target("myriadx")
HEADER = BlobHeader(5, (6, 0), 1, 1, 3, 10, 10, 8, 64, 9, 7, True, True, True, (0, 0, 0, 0))
STAGES = (Stage(0, "in", "Copy", "conv", 0), Stage(1, "hw", "MyriadXHwOp", "conv", 0), Stage(-1, "v", "Split", "", 0))


@pytest.fixture
def blobs(tmp_path):
    """Reports as a compile gives them, and the folder of their blobs."""
    bundle, reports, folder = load_bundle("edge"), [], tmp_path / "blobs"
    folder.mkdir()
    for name in ("flight/clouds.onnx", "flight/encoder.onnx"):
        model = float_twin(bundle.file(name), 256, 256)
        told = report_network(name, model, MYRIADX, 256, None, folder / "none")
        blob = f"{name.rpartition('/')[2]}.blob"
        (folder / blob).write_bytes(name.encode())
        reports.append(dataclasses.replace(told, header=HEADER, stages=STAGES, blob=blob, form="short", ends="NCHW"))
    return reports, folder


def test_a_variant_holds_blobs_stage_tables_and_what_the_host_does(blobs, tmp_path):
    bundle = load_bundle("edge")
    variant = write_variant(bundle, MYRIADX, *blobs, tmp_path / "v")
    assert variant.name == "edge-myriadx" and variant.bundle_id != bundle.bundle_id
    assert set(variant.manifest["files"]) - set(bundle.manifest["files"]) == {
        "flight/clouds.blob", "flight/encoder.blob",
    }  # fmt: skip
    told = variant.manifest["variant"]
    assert (told["of"], told["target"], told["toolkit"]) == (
        f"{bundle.bundle_id:08x}", "myriadx", "openvino 2021.4.2",
    )  # fmt: skip
    encoder = told["networks"]["flight/encoder.onnx"]
    assert (encoder["stages"], encoder["batch"], encoder["shaves"]) == (3, 8, 7)
    assert encoder["stage_table"] == [["Copy", "conv", 0], ["MyriadXHwOp", "conv", 0]]
    assert encoder["inputs"] == [{"name": "planes", "low": -128.0, "high": 127.0}]
    assert network_work(variant, "flight/encoder.onnx", MYRIADX) == blobs[0][1].work
    assert not (tmp_path / "v" / "signature.json").exists()


def test_the_uplink_of_a_variant_is_its_blobs_and_tables(blobs, tmp_path):
    write_variant(load_bundle("edge"), MYRIADX, *blobs, tmp_path / "v")
    blobs_and_tables = ["flight/clouds.blob", "flight/encoder.blob", "flight/tables.npz"]
    assert uplinked(tmp_path / "v") == ["manifest.json", *blobs_and_tables]
    (tmp_path / "v" / "flight" / "encoder.onnx").unlink()
    load_bundle(tmp_path / "v", flight_only=True)
    with pytest.raises(BundleError, match=r"encoder\.onnx: listed in the manifest but not there"):
        load_bundle(tmp_path / "v")


def test_a_changed_blob_or_table_is_refused_under_a_key(blobs, tmp_path):
    write_variant(load_bundle("edge"), MYRIADX, *blobs, tmp_path / "v")
    new_key(tmp_path / "k.pem")
    keys = [load_public_key(public_path(tmp_path / "k.pem"))]
    with pytest.raises(BundleError):
        load_bundle(tmp_path / "v", trusted_keys=keys)
    sign_bundle(tmp_path / "v", tmp_path / "k.pem", serial=2)
    assert load_bundle(tmp_path / "v", trusted_keys=keys).manifest["serial"] == 2
    manifest = json.loads((tmp_path / "v" / "manifest.json").read_text())
    manifest["variant"]["networks"]["flight/encoder.onnx"]["inputs"][0]["high"] = 5.0
    (tmp_path / "v" / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    with pytest.raises(BundleError, match="does not match the manifest"):
        load_bundle(tmp_path / "v", trusted_keys=keys)


def test_a_network_that_was_not_compiled_at_the_bundles_size_is_told(blobs, tmp_path):
    reports, folder = blobs
    other = [reports[0], dataclasses.replace(reports[1], tile_px=512)]
    with pytest.raises(InputError, match=r"flight/encoder\.onnx was not compiled for 256 px tiles; give --toolkit"):
        write_variant(load_bundle("edge"), MYRIADX, other, folder, tmp_path / "v")
    assert not (tmp_path / "v").exists()
