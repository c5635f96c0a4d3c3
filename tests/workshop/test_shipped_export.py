"""The bundle that is shipped: what its check.json promises, seen again on a few tiles, and compiled for both VPUs."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.builds import flight_networks
from export.devices.myriad_toolkit import find_toolkit
from export.devices.to_myriad import compile_bundle
from export.proof.check import check_bundle, table
from export.proof.front_ends import feeder_for
from export.proof.inputs import real_pool
from hil.devices.targets import load_target
from payload.bundle import load_bundle, shipped_bundles
from payload.codec.registry import open_codec
from payload.sensor import RGBN
from sim.ground.decoder_size import decoder_size

DATA = Path(os.environ.get("NADIR_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
TOOLKIT = os.environ.get("NADIR_MYRIAD_TOOLKIT")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shipped_bundles(), reason="no bundle is shipped in this tree")]


@pytest.mark.realdata
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real tiles in the data folder next to the checkout")
@pytest.mark.parametrize("name", [name for name in shipped_bundles() if load_bundle(name).bands == RGBN])
def test_every_runtime_equals_the_reference_on_real_tiles(name):
    bundle, pool = load_bundle(name), real_pool(DATA / "train" / "tiles128.npz")
    feeders = {n: feeder_for(bundle, n, pool) for n in flight_networks(bundle)}
    proof = check_bundle(bundle, feeders, tiles=4, isas=("", "AVX2"), threads=(1,))
    assert proof.real and proof.held, table(proof)


@pytest.mark.parametrize("name", shipped_bundles())
def test_the_proof_that_ships_beside_a_bundle_is_of_this_bundle_and_held(name):
    proof = json.loads((load_bundle(name).directory / "check.json").read_text(encoding="utf-8"))
    assert proof["held"] and proof["real"] and proof["bundle_id"] == f"{load_bundle(name).bundle_id:08x}"


@pytest.mark.skipif(not TOOLKIT, reason="needs the old toolkit (openvino 2021.4.2); set NADIR_MYRIAD_TOOLKIT to it")
@pytest.mark.parametrize("target", ["myriad2", "myriadx"])
@pytest.mark.parametrize("name", shipped_bundles())
def test_blobs_compile_at_both_tile_sizes(name, target, tmp_path):
    bundle = load_bundle(name)
    reports = compile_bundle(bundle, load_target(target), find_toolkit(Path(TOOLKIT)), (256, 512), tmp_path)
    assert {r.tile_px for r in reports} == {256, 512} and all(r.header and r.held for r in reports)
    assert {r.network for r in reports} == set(flight_networks(bundle))


@pytest.mark.parametrize("name", shipped_bundles())
def test_the_decoders_size_that_pages_show_is_that_of_its_network(name):
    bundle = load_bundle(name)
    file, size = open_codec(bundle).ground_network, decoder_size(bundle)
    if file is None:
        assert size == {}
        return
    network = onnx.load(bundle.file(file))
    assert size["parameters"] == sum(int(np.prod(weight.dims)) for weight in network.graph.initializer)
    assert size["decoder_octets"] == bundle.file(file).stat().st_size
    if bundle.manifest["codec"]["kind"] == "fsq":
        assert decoder_size(bundle, "best")["decoder_kmac_px"] == 8 * size["decoder_kmac_px"]
