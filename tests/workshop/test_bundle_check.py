"""The proof of a bundle: it passes where it should, and catches what it is there to catch."""

import json
import platform

import numpy as np
import pytest

from export.builds import flight_networks
from export.bundle.assemble import Origin, assemble, derive
from export.graphs.graph import load_graph
from export.graphs.to_openvino import execution, write_ir
from export.proof.check import Proof, Row, check_bundle, static_faults, table
from export.proof.inputs import Feeder, TilePool, random_feeder, real_feeder, real_pool
from export.proof.settings import isas_here, refuse_absent
from export.proof.tile_codes import Codes, Setting, headline
from payload.bundle import load_bundle
from payload.errors import InputError

ORIGIN = Origin({"name": "throw-away"}, "00" * 32)


def bundle_of(network, out, with_ir=True):
    codec = {"kind": "fsq"}
    return assemble(
        out, "test", ("B02", "B03", "B04", "B08"), 32, codec, {"flight/net.onnx": network}, ORIGIN, with_ir=with_ir
    )


def proof_of(bundle, isas=("", "AVX2"), tiles=3):
    feeders = {n: random_feeder(load_graph(bundle.file(n))) for n in flight_networks(bundle)}
    return check_bundle(bundle, feeders, tiles=tiles, isas=isas, threads=(1,))


def test_a_sound_bundle_holds(build_cnn, tmp_path):
    bundle = bundle_of(build_cnn(tmp_path / "net.onnx"), tmp_path / "bundle")
    proof = proof_of(bundle)
    assert proof.held, table(proof)
    assert [(r.network, r.runtime, r.isa) for r in proof.rows] == [
        ("flight/net.onnx", "onnxruntime", ""),
        ("flight/net.onnx", "openvino", ""), ("flight/net.onnx", "openvino", "AVX2"),
        ("flight/net.xml", "openvino", ""), ("flight/net.xml", "openvino", "AVX2"),
    ]  # fmt: skip
    assert all(r.elements == 3 * (512 + 2048) for r in proof.rows)
    assert all(r.in_int8 == r.convolutions == 5 for r in proof.rows if r.runtime == "openvino")
    again = json.loads(proof.to_json())
    assert again["held"] is True and again["real"] is False and again["rows"][0]["mismatches"] == 0
    assert "HELD" in table(proof)


def test_the_instruction_set_limit_reaches_the_runtime(build_cnn, tmp_path):
    bundle = bundle_of(build_cnn(tmp_path / "net.onnx"), tmp_path / "bundle", with_ir=False)
    rows = {r.isa: r for r in proof_of(bundle, tiles=1).rows if r.runtime == "openvino"}
    if not any("avx512" in p for p in rows[""].primitives):
        pytest.skip("this CPU has no AVX-512: nothing for the limit to take away")
    assert not any("avx512" in p for p in rows["AVX2"].primitives)


def test_an_unfolded_model_is_caught(build_cnn, tmp_path):
    bundle = bundle_of(build_cnn(tmp_path / "net.onnx", folded=False), tmp_path / "bundle", with_ir=False)
    proof = proof_of(bundle, isas=("",))
    assert not proof.held
    assert len([f for f in proof.faults if "fold the Clip" in f]) == 5
    openvino = next(r for r in proof.rows if r.runtime == "openvino")
    assert openvino.mismatches == 0  # the results are equal: only the runtime model reveals it
    assert openvino.in_int8 == 0 and not openvino.held
    assert "NOT HELD" in table(proof)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the int16 pair sums that saturate are x86's")
def test_an_eight_bit_model_is_caught(build_cnn, tmp_path):
    bundle = bundle_of(build_cnn(tmp_path / "net.onnx", bits=8), tmp_path / "bundle", with_ir=False)
    proof = proof_of(bundle)
    assert not proof.held
    assert any("8-bit weights, at most 7 bits are portable" in f for f in proof.faults)
    assert next(r for r in proof.rows if r.isa == "AVX2").mismatches > 0  # pair sums saturate without VNNI


def test_a_model_with_float_weights_is_a_fault(qcdq, tmp_path):
    b = qcdq()
    y = b.node("Conv", "x", b.constant(np.ones((2, 1, 1, 1), np.float32)), kernel_shape=[1, 1])
    graph = load_graph(b.save(tmp_path / "f.onnx", {"x": (1, 1, 4, 4)}, {y: (1, 2, 4, 4)}))
    assert "float weights" in static_faults(graph, "flight/f.onnx")[0]


def test_the_torch_model_is_held_against_the_reference_too(build_cnn, tmp_path):
    bundle = bundle_of(build_cnn(tmp_path / "net.onnx"), tmp_path / "bundle", with_ir=False)
    feeder = random_feeder(load_graph(bundle.file("flight/net.onnx")))

    def wrong(*arrays):  # a model that is off by one everywhere
        from export.proof.integer_reference import IntegerNetwork

        return [o + 1 for o in IntegerNetwork(load_graph(bundle.file("flight/net.onnx"))).run(*arrays)]

    proof = check_bundle(
        bundle, {"flight/net.onnx": feeder}, 2, isas=(), threads=(1,), torch_models={"flight/net.onnx": wrong}
    )
    row = next(r for r in proof.rows if r.runtime == "brevitas")
    assert row.mismatches == row.elements and row.largest_difference == 1.0 and not proof.held


def test_tiles_of_changing_size_are_refused(build_cnn, tmp_path):
    bundle = bundle_of(build_cnn(tmp_path / "net.onnx"), tmp_path / "bundle", with_ir=False)
    feeder = Feeder("odd", "test", False, lambda i: (np.zeros((1, 4, 32 + 32 * (i > 0), 32), np.float32),))
    with pytest.raises(InputError, match="feed tiles of one size"):
        check_bundle(bundle, {"flight/net.onnx": feeder}, 2, isas=(), threads=())


def test_a_wrong_number_of_inputs_is_refused(build_two_planes, tmp_path):
    bundle = bundle_of(build_two_planes(tmp_path / "p.onnx"), tmp_path / "bundle", with_ir=False)
    feeder = Feeder("one", "test", False, lambda i: (np.zeros((4, 64, 9, 9), np.float32),))
    with pytest.raises(InputError, match="2 inputs, the feeder gives 1"):
        check_bundle(bundle, {"flight/net.onnx": feeder}, 1)


def test_building_refuses_a_network_that_would_run_in_float(build_two_planes, build_cnn, tmp_path):
    with pytest.raises(InputError, match="run in float"):
        bundle_of(build_cnn(tmp_path / "n.onnx", folded=False), tmp_path / "bundle")
    with pytest.raises(InputError, match="1 of 2 convolutions run in float"):  # shared weights, summed inside the graph
        bundle_of(build_two_planes(tmp_path / "p.onnx"), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists() and not list(tmp_path.glob(".bundle-*"))


def test_the_manifest_says_what_was_built(build_cnn, tmp_path):
    bundle = bundle_of(build_cnn(tmp_path / "net.onnx"), tmp_path / "bundle")
    network = bundle.manifest["networks"]["flight/net.onnx"]
    assert network["macs"] == 471040 and network["macs_per_px"] == 460.0 and network["parameters"] == 2768
    assert network["peak_activation_octets"] > 0
    assert set(bundle.manifest["files"]) == {"flight/net.onnx", "flight/net.xml", "flight/net.bin"}
    assert bundle.manifest["built"]["versions"]["openvino"] and bundle.manifest["built"]["data_sha256"] == "00" * 32


def test_rebuilding_gives_the_same_bundle(build_cnn, tmp_path):
    network = build_cnn(tmp_path / "net.onnx")
    first, second = bundle_of(network, tmp_path / "a"), bundle_of(network, tmp_path / "b")
    assert first.manifest == second.manifest
    assert bundle_of(network, tmp_path / "a").manifest == first.manifest  # in place of the former


def test_a_folder_that_is_no_bundle_is_not_overwritten(build_cnn, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep")
    with pytest.raises(InputError, match="is not a bundle"):
        bundle_of(build_cnn(tmp_path / "net.onnx"), tmp_path / "mine", with_ir=False)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "keep"


def test_the_float_twin_is_close_and_holds_no_quantiser(build_cnn, tmp_path):
    from payload.engine import open_engine

    bundle = bundle_of(build_cnn(tmp_path / "net.onnx"), tmp_path / "bundle")
    twin = derive(bundle, "fp16-vpu", tmp_path / "vpu")
    graph = load_graph(twin.file("flight/net.onnx"))
    assert graph.opset == 13 and not {n.op_type for n in graph.nodes} & {"QuantizeLinear", "DequantizeLinear"}
    assert twin.manifest["target"] == "fp16-vpu" and "flight/net.xml" not in twin.manifest["files"]
    assert twin.bundle_id != bundle.bundle_id
    rounded = derive(bundle, "fp32", tmp_path / "fp32", keep_rounding=True)
    tile = np.random.default_rng(0).integers(0, 256, (1, 4, 32, 32)).astype(np.float32)
    wanted = open_engine("onnxruntime").load(bundle.file("flight/net.onnx")).run(tile)
    exact = open_engine("onnxruntime").load(rounded.file("flight/net.onnx")).run(tile)
    loose = open_engine("onnxruntime").load(twin.file("flight/net.onnx")).run(tile)
    assert all(np.array_equal(a, b) for a, b in zip(wanted, exact, strict=True))
    assert all(0 < np.abs(a - b).max() < 0.05 * np.abs(a).max() for a, b in zip(wanted, loose, strict=True))
    with pytest.raises(InputError, match="promises no equality"):
        proof_of(twin)
    with pytest.raises(InputError, match="already fp16-vpu"):
        derive(twin, "fp32", tmp_path / "again")


def test_the_ir_is_kept_in_full_precision(build_cnn, tmp_path):
    how = write_ir(build_cnn(tmp_path / "net.onnx"), tmp_path / "net.xml")
    assert how.all_int8 and len(how.precisions) == 5
    assert execution(tmp_path / "net.xml").all_int8 and not list(tmp_path.glob("partial-*"))


def test_mosaics_hold_every_pool_tile_and_odd_sizes_are_refused():
    dn = np.arange(6 * 4 * 16 * 16, dtype=np.uint16).reshape(6, 4, 16, 16)
    pool = TilePool(dn, "00")
    big = pool.tile(4, 32)
    assert big.dn.shape == (4, 32, 32)
    assert np.array_equal(big.dn[:, :16, :16], dn[4]) and np.array_equal(big.dn[:, :16, 16:], dn[5])
    assert np.array_equal(big.dn[:, 16:, :16], dn[0]) and np.array_equal(big.dn[:, 16:, 16:], dn[1])
    assert np.array_equal(pool.tile(7, 8).dn, dn[1][:, :8, :8])
    with pytest.raises(InputError, match="choose a multiple"):
        pool.tile(0, 24)
    feeder = real_feeder(lambda tile: (tile.dn[None].astype(np.float32),), 16, pool)
    assert feeder.real and np.array_equal(feeder.arrays(2)[0][0], dn[2])


def test_missing_calibration_data_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="no pool of tiles"):
        real_pool(tmp_path / "absent.npz")
    (tmp_path / "bad.npz").write_bytes(b"zip? no")
    with pytest.raises(InputError, match=r"not a pool of tiles \(BadZipFile"):
        real_pool(tmp_path / "bad.npz")
    np.savez(tmp_path / "float.npz", x=np.zeros((2, 4, 8, 8), np.float32))
    with pytest.raises(InputError, match=r"x is float32 .*; wanted an \.npz with x uint16"):
        real_pool(tmp_path / "float.npz")


def test_an_origin_without_data_is_refused():
    with pytest.raises(InputError, match="digest of the training data is missing"):
        Origin({}, "")


def test_a_tampered_bundle_does_not_load(build_cnn, tmp_path):
    bundle = bundle_of(build_cnn(tmp_path / "net.onnx"), tmp_path / "bundle", with_ir=False)
    network = bundle.file("flight/net.onnx")
    network.write_bytes(network.read_bytes() + b"\0")
    with pytest.raises(InputError, match="changed after it was built"):
        load_bundle(tmp_path / "bundle")


def row(isa: str, primitives: tuple[str, ...], runtime: str = "openvino", mismatches: int = 0) -> Row:
    return Row("flight/net.onnx", runtime, 1, isa, 10, 1000, mismatches, 0.0, 3, 3, primitives)


def rows_of(*rows: Row) -> Proof:
    return Proof("b", "00", {}, {}, {}, True, rows, (), {}, {})


def test_settings_that_ran_the_same_kernels_are_one_path():
    """Four limits on a host with AVX2 alone ran one set of kernels: the headline must not speak of four."""
    same = [row(isa, ("jit_avx2_I8",)) for isa in ("", "AVX512_CORE", "AVX2_VNNI", "AVX2")]
    proof = rows_of(*same, row("SSE41", ("jit_sse42_I8",)), row("", (), "onnxruntime"))
    assert "6000 elements compared, 0 differ" in proof.headline
    assert "6 settings ran 3 distinct code paths a network" in proof.headline
    assert "onnxruntime; openvino: jit_avx2_I8; openvino: jit_sse42_I8" in proof.headline
    kept = json.loads(proof.to_json())
    assert kept["distinct_paths"] == 3 and [len(p["settings"]) for p in kept["paths"]] == [4, 1, 1]
    assert table(proof).count("flight/net.onnx  openvino: jit_avx2_I8") == 1


def test_an_instruction_set_that_the_host_lacks_is_no_setting():
    avx2 = frozenset({"sse4_1", "avx", "avx2"})
    assert isas_here(avx2) == ("", "AVX2", "SSE41")
    refuse_absent(("", "AVX2"), avx2)
    with pytest.raises(InputError, match=r"no AVX2_VNNI \(avx_vnni\), so a limit to it proves nothing; it has AVX2"):
        refuse_absent(("AVX2", "AVX2_VNNI"), avx2)
    with pytest.raises(InputError, match="'AVX3' is unknown"):
        refuse_absent(("AVX3",), avx2)
    with pytest.raises(InputError, match=r"it has none"):
        refuse_absent(("AVX2",), frozenset())


def test_tile_codes_count_the_paths_that_ran():
    def codes(isa: str, primitives: tuple[str, ...], sha256: str = "a") -> Codes:
        return Codes(Setting("openvino", 1, isa, True), 5, 100, sha256, primitives)

    twice = [codes("", ("jit_avx2_I8",)), codes("AVX2", ("jit_avx2_I8",))]
    assert headline(twice).startswith("HELD: 2 settings that ran 1 distinct code paths (openvino: jit_avx2_I8,")
    assert headline([*twice, codes("SSE41", ("jit_sse42_I8",), "b")]).startswith("NOT HELD: 3 settings that ran 2")
