"""Myriad: the header by hand, the graph dump, the float twin, and a real compile where the old toolkit is installed."""

import os
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from export.bundle.assemble import Origin, assemble
from export.devices.myriad_blob import (
    HEADER_OCTETS,
    BlobHeader,
    parse_header,
    parse_stages,
    parse_used_memory,
    read_blob,
)
from export.devices.myriad_compiler import OldString, empty_map, map_entries, plugins_xml
from export.devices.myriad_toolkit import compile_form, compile_shortest, compiler_words, find_toolkit
from export.devices.to_myriad import _limits, compile_bundle, float_twin, report_network
from export.devices.to_myriad import as_text as report_text
from export.graphs.graph import load_graph
from export.graphs.to_float import to_float_model
from export.proof.front_ends import uniform
from export.proof.half_precision import Agreement, as_text, compare, in_half_precision, open_half
from hil.devices.targets import load_target
from payload.errors import InputError

TOOLKIT = os.environ.get("NADIR_MYRIAD_TOOLKIT")
needs_toolkit = pytest.mark.skipif(
    not TOOLKIT, reason="needs the old toolkit (openvino 2021.4.2), unpacked; set NADIR_MYRIAD_TOOLKIT to its folder"
)

#: A header octet by octet: every field is a different number.
HAND_MADE = (
    b"\x7felf" + bytes(48)  # prefix, 52 octets
    + b"\xed\x25\x00\x00"  # magic 9709 = 0x25ED
    + b"\x84\x00\x00\x00"  # file size 132
    + b"\x06\x00\x00\x00\x00\x00\x00\x00"  # version 6.0
    + b"\x01\x00\x00\x00\x02\x00\x00\x00"  # one input, two outputs
    + b"\x16\x00\x00\x00"  # 22 stages
    + b"\x00\x00\x10\x00\x00\x00\x08\x00"  # 1 048 576 octets in, 524 288 out
    + b"\x03\x00\x00\x00"  # batch 3
    + b"\x00\x00\x50\x00"  # BSS 5 242 880
    + b"\x0c\x00\x00\x00\x0b\x00\x00\x00"  # 12 CMX slices, 11 SHAVEs
    + b"\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00"  # hardware stage yes, SHAVE stage no, DMA yes
    + struct.pack("<4I", 0xC0, 0x100, 0x140, 0x940)  # sections
)  # fmt: skip


def test_every_field_of_a_hand_made_header():
    assert len(HAND_MADE) == HEADER_OCTETS == 132
    assert read_blob(HAND_MADE) == BlobHeader(
        132, (6, 0), 1, 2, 22, 1048576, 524288, 3, 5242880, 12, 11, True, False, True, (0xC0, 0x100, 0x140, 0x940)
    )


@pytest.mark.parametrize(
    ("octets", "message"),
    [
        (b"", "shorter than its header"),
        (HAND_MADE[:131], "shorter than its header"),
        (b"\x7fELF" + HAND_MADE[4:], "not a Myriad blob"),
        (HAND_MADE[:52] + b"\0" + HAND_MADE[53:], "magic is 9472, wanted 9709"),
        (HAND_MADE[:60] + b"\x05" + HAND_MADE[61:], r"blob version 5\.0"),
    ],
)
def test_what_is_no_blob_is_one_clear_line(octets, message):
    with pytest.raises(InputError, match=message):
        parse_header(octets)


def test_a_cut_blob_is_noticed():
    with pytest.raises(InputError, match="133 octets, its header says 132"):
        read_blob(HAND_MADE + b"\0")


DUMP = r"""digraph ie_vpu_model_view {
    label="Graph g\lextraAttrs = [\l    usedMemory = [\l        BSS = 52\l        CMX = 7\l    ]\l]\l"
    stage_2 [
        label="[1 / 2] Stage c0\ltype = Conv\lorigLayer = [\l    name = layer0\l    type = C\l]\lnumSHAVEs = 12\l"
    ];
    stage_1 [
        label="[0 / 0] Stage x@FP16\ltype = Convert\lnumSHAVEs = 7\lextraAttrs = [\l    scale = 1\l]\l"
    ];
    stage_3 [
        label="[-1 / 1] Stage c0@split\ltype = Split\lnumSHAVEs = 0\l"
    ];
    stage_1 -> data_1 [ label="StageOutput\lportInd = 0\l" ];
}"""


def test_stages_of_a_graph_dump_in_execution_order():
    stages = parse_stages(DUMP)
    assert [(s.order, s.name, s.kind, s.layer, s.shaves) for s in stages] == [
        (0, "x@FP16", "Convert", "", 7), (1, "c0", "Conv", "layer0", 12), (-1, "c0@split", "Split", "", 0),
    ]  # fmt: skip
    assert parse_used_memory(DUMP) == {"BSS": 52, "CMX": 7}
    assert parse_stages("") == () and parse_used_memory("") == {}


def test_the_old_string_has_its_length_before_its_text():
    import ctypes

    text = OldString("abc")
    record = ctypes.string_at(text.pointer.value - 24, 28)
    assert struct.unpack("=QQQ", record[:24]) == (3, 3, 1) and record[24:] == b"abc\0"


def test_the_empty_map_points_to_itself():
    import ctypes

    tree = empty_map()
    header = ctypes.addressof(tree) + 8
    _, _, parent, left, right, count = struct.unpack("=QQQQQQ", tree.raw)
    assert (parent, left, right, count) == (0, header, header, 0)


def test_a_map_is_read_in_the_order_of_its_keys():
    """header -> root "b", whose left is "a": each node is four words, its key's pointer, what its value points to."""
    import ctypes

    keys = [ctypes.create_string_buffer(text) for text in (b"a", b"b")]
    a, b = ((ctypes.c_uint64 * 6)(), (ctypes.c_uint64 * 6)())
    for node, key, value in ((a, keys[0], 11), (b, keys[1], 22)):
        node[4], node[5] = ctypes.addressof(key), value
    b[2] = ctypes.addressof(a)
    tree = empty_map()
    ctypes.c_uint64.from_address(ctypes.addressof(tree) + 16).value = ctypes.addressof(b)
    assert map_entries(tree) == [(b"a", 11), (b"b", 22)] and map_entries(empty_map()) == []


def test_the_plugin_file_names_platform_and_dump():
    text = plugins_xml(Path("/t/libs"), "VPU_MYRIAD_2450", Path("/s/graph.dot"))
    assert (
        'location="/t/libs/libmyriadPlugin.so"' in text and 'value="VPU_MYRIAD_2450"' in text and "/s/graph.dot" in text
    )


def test_the_compilers_own_words_come_through():
    noise = (
        "\x1b[1;33m[Warning][VPU] Deprecated\x1b[0m\nterminate called after throwing\n  what():  [ ERROR ]\nlayer Abs\n"
    )
    assert compiler_words(noise) == "[ ERROR ] layer Abs"
    assert compiler_words("") == "no message"


def test_a_missing_toolkit_says_what_to_install(tmp_path):
    with pytest.raises(InputError, match=r"no libmyriadPlugin\.so there; install the toolkit: .*openvino==2021\.4\.2"):
        find_toolkit(tmp_path)


def test_without_the_toolkit_the_report_holds_what_the_model_tells(build_cnn, tmp_path):
    model = float_twin(build_cnn(tmp_path / "net.onnx"), 32, 32)
    report = report_network("flight/net.onnx", model, load_target("myriad2"), 32, None, tmp_path / "none.blob")
    assert report.header is None and report.macs == 471040 and report.peak_activation_octets > 0
    assert {limit.what: limit.held for limit in report.limits} == {
        "uplink": True, "DDR": True, "CMX slices": None, "SHAVEs": None, "CMX data": None,
    }  # fmt: skip
    text = report_text(report)
    assert "not compiled" in text and "unknown without the toolkit" in text and "modelled" in text
    assert not (tmp_path / "none.blob").exists()


def test_a_target_that_is_not_a_vpu_is_refused(build_cnn, tmp_path):
    bundle = _bundle(build_cnn(tmp_path / "net.onnx"), tmp_path)
    with pytest.raises(InputError, match="npu is not compiled ahead of time"):
        compile_bundle(bundle, load_target("npu"), None, (32,), tmp_path / "out")


def test_a_wrong_tile_size_is_one_clear_line(build_two_planes, tmp_path):
    with pytest.raises(InputError, match="does not scale to 250 px; choose a tile size"):
        float_twin(build_two_planes(tmp_path / "p.onnx", blocks=33), 256, 250)


@needs_toolkit
@pytest.mark.slow
@pytest.mark.parametrize("name", ["myriad2", "myriadx"])
def test_a_real_compile(build_two_planes, tmp_path, name):
    bundle = _bundle(build_two_planes(tmp_path / "p.onnx", blocks=33), tmp_path, 256)
    out = tmp_path / "out"
    reports = compile_bundle(bundle, load_target(name), find_toolkit(Path(TOOLKIT)), (256, 512), out)
    for report in reports:
        blob = (out / report.blob).read_bytes()
        assert read_blob(blob) == report.header and report.header.stages >= 4
        cells = report.tile_px // 8 + 1
        assert report.header.batch == 4 and report.header.input_octets == 2 * 2 * (
            4 * 64 * cells * cells
        )  # two FP16 inputs
        assert any("Convolution" in s.kind or s.kind == "MyriadXHwOp" for s in report.stages)
        assert report.used_memory["BSS"] == report.header.bss_octets and report.held
    assert reports[1].header.bss_octets > reports[0].header.bss_octets
    assert (out / f"report-{name}.json").is_file()


@needs_toolkit
@pytest.mark.slow
def test_the_shipped_cloud_network_is_at_most_40_stages_on_myriad_2():
    """The compiler is the judge: no form that it is given computes anything else but bounds that the host keeps."""
    from payload.bundle import load_bundle

    bundle = load_bundle("edge")
    twin = float_twin(bundle.file("flight/clouds.onnx"), 256, 256)
    made = compile_shortest(twin, load_target("myriad2"), find_toolkit(Path(TOOLKIT)))
    assert made.header.stages <= 40 and made.ends == "NHWC" and made.form.endswith("biases as a channel")
    assert made.header.input_octets == 2 * 8 * 128 * 128 and made.header.output_octets == 2 * 64 * 32 * 32
    plain = compile_form(twin, load_target("myriad2"), find_toolkit(Path(TOOLKIT)))
    assert plain.header.stages > 60


@needs_toolkit
@pytest.mark.slow
def test_an_operator_the_compiler_refuses_is_told_in_its_words(qcdq, tmp_path):
    import onnx

    b = qcdq()
    b.save(tmp_path / "e.onnx", {"x": (1, 4, 4, 4)}, {b.node("Abs", "x"): (1, 4, 4, 4)}, opset=13)
    with pytest.raises(InputError, match=r"myriad2: the toolkit's compiler refused the network: .*Abs"):
        compile_shortest(onnx.load(str(tmp_path / "e.onnx")), load_target("myriad2"), find_toolkit(Path(TOOLKIT)))


def test_half_precision_rounds_every_result(qcdq, tmp_path):
    """1 + 2^-12 has no FP16: the sum 2049 + 0.5 becomes 2049.5 -> 2050 (steps of 2 above 2048, ties to even)."""
    b = qcdq()
    y = b.node("Add", "x", b.constant(np.float32(0.5)))
    graph = load_graph(b.save(tmp_path / "a.onnx", {"x": (1, 1, 1, 2)}, {y: (1, 1, 1, 2)}))
    out = open_half(graph.model)(np.float32([[[[2048, 100.25]]]]))[0]
    assert out.ravel().tolist() == [2048.0, 100.75]
    nodes = [n.op_type for n in in_half_precision(graph.model).graph.node]
    assert nodes.count("Cast") == 4  # the input and the result, there and back


def test_a_constant_beyond_half_precision_is_refused(qcdq, tmp_path):
    b = qcdq()
    y = b.node("Mul", "x", b.constant(np.float32([70000.0])))
    graph = load_graph(b.save(tmp_path / "m.onnx", {"x": (1, 1, 1, 2)}, {y: (1, 1, 1, 2)}))
    with pytest.raises(InputError, match="FP16 ends at 65504"):
        in_half_precision(graph.model)


def test_agreement_counts_indices_that_changed(build_cnn, tmp_path):
    from export.proof.inputs import random_feeder
    from payload.engine import open_engine

    path = build_cnn(tmp_path / "net.onnx")
    graph = load_graph(path)
    reference = open_engine("onnxruntime").load(path).run
    (same,) = compare("net", reference, reference, random_feeder(graph), 2, [uniform(0.25)])
    assert same.differing == 0 and same.agreement_percent == 100.0 and same.latent_snr_db == float("inf")
    half = open_half(to_float_model(graph, for_vpu=True))
    fine, coarse = compare("net", reference, half, random_feeder(graph), 2, [uniform(0.25), uniform(64.0)])
    assert fine.indices == coarse.indices == 2 * (512 + 2048)
    assert coarse.differing < fine.differing < fine.indices and 10 < fine.latent_snr_db < 80
    assert fine.psnr_cost_db is None and "uniform, step 64" in as_text([coarse])
    with pytest.raises(InputError, match="at least 1"):
        compare("net", reference, half, random_feeder(graph), 0, [])


def test_psnr_cost_is_the_difference_of_two_psnr():
    found = Agreement("n", "q", 1, 1000, 10, 1, 48.0, 47.5, 60.0)
    assert found.psnr_cost_db == 0.5 and found.agreement_percent == 99.0


@pytest.mark.slow
def test_nncf_baseline_is_measured_beside_the_trained_build(build_cnn, tmp_path):
    pytest.importorskip("nncf", reason="needs NNCF: pip install 'nadir-payload[ptq]'")
    from export.proof.inputs import random_feeder
    from export.proof.ptq import as_text as rows_text
    from export.proof.ptq import baselines

    path = build_cnn(tmp_path / "net.onnx")
    graph = load_graph(path)
    after, trained = baselines(
        to_float_model(graph, for_vpu=False), path, random_feeder(graph), (8, 4), tmp_path, uniform(1.0)
    )
    assert after.in_int8 == after.convolutions == 5 and 5 < after.snr_db < 80
    assert 0 < after.agreement_percent < 100 and 0 < trained.agreement_percent < 100
    assert trained.differing_between_isas == 0 and trained.in_int8 == 5
    assert "NNCF" in rows_text([after, trained])


def test_without_nncf_the_message_says_what_to_install(monkeypatch):
    from export.proof.ptq import require_nncf

    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(InputError, match=r"pip install 'nadir-payload\[ptq\]'"):
        require_nncf()


def _bundle(network, folder, tile_px=32):
    codec, origin = {"kind": "none"}, Origin({"name": "throw-away"}, "00" * 32)
    files = {"flight/net.onnx": network}
    return assemble(folder / "bundle", "test", ("B02",), tile_px, codec, files, origin, with_ir=False)


def test_memory_of_a_compiled_network_is_blob_bss_and_both_ends() -> None:
    header = SimpleNamespace(
        blob_octets=8 << 20, bss_octets=4 << 20, input_octets=2 << 20, output_octets=1 << 20, cmx_slices=3, shaves=3
    )
    limits = {limit.what: limit for limit in _limits(load_target("myriad2"), header, {"CMX": 2**20}, 5, 6)}
    assert (limits["DDR"].needed, limits["uplink"].needed, limits["CMX data"].needed) == (15.0, (8 << 20) / 1e6, 1.0)
    bare = {limit.what: limit for limit in _limits(load_target("myriad2"), None, {}, 3 << 20, 1 << 20)}
    assert (bare["DDR"].needed, bare["uplink"].needed, bare["CMX data"].needed) == (4.0, (3 << 20) / 1e6, None)
