"""`python -m export`: what each command prints and its exit code, 0 held, 1 not held, 2 bad input in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export.__main__ import main
from export.bundle.assemble import Origin, assemble
from export.graphs.graph import load_graph
from export.proof.front_ends import feeder_for, front_end_for, quantiser_for
from export.proof.inputs import TilePool, real_pool
from payload.bundle import load_bundle
from payload.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("NADIR_DATA", REPOSITORY.parent / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="needs the real tiles in the data folder next to the checkout"
)


@pytest.fixture
def bundle(build_cnn, tmp_path):
    network = build_cnn(tmp_path / "net.onnx")
    assemble(
        tmp_path / "bundle", "test", ("B02", "B03", "B04", "B08"), 32, {"kind": "none"}, {"flight/net.onnx": network},
        Origin({"name": "throw-away"}, "00" * 32), with_ir=False,
    )  # fmt: skip
    return str(tmp_path / "bundle")


def one_line(capsys):
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1, text
    return text


def test_check_holds_and_writes_its_proof(bundle, capsys):
    assert main(["check", bundle, "--random", "--tiles", "2", "--isa", "", "--threads", "1"]) == 0
    told = capsys.readouterr().out
    assert "HELD: 10240 elements compared, 0 differ" in told
    assert "2 settings ran 2 distinct code paths a network" in told
    proof = json.loads((Path(bundle) / "check.json").read_text())
    assert proof["held"] and not proof["real"] and [r["runtime"] for r in proof["rows"]] == ["onnxruntime", "openvino"]
    load_bundle(bundle)  # the proof beside it does not disturb the bundle


def test_check_says_no_with_exit_code_one(build_cnn, tmp_path, capsys):
    network = build_cnn(tmp_path / "net8.onnx", bits=8)
    files = {"flight/net.onnx": network}
    assemble(
        tmp_path / "b8", "t", ("B02",), 32, {"kind": "none"}, files, Origin({"name": "t"}, "00" * 32), with_ir=False
    )
    assert main(["check", str(tmp_path / "b8"), "--random", "--tiles", "1", "--isa", "AVX2", "--threads", "1"]) == 1
    assert "NOT HELD" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "no-such-bundle"], "no manifest.json there"),
        (["check", "BUNDLE", "--pool", "absent.npz"], "no pool of tiles"),
        (
            ["check", "BUNDLE", "--random", "--network", "flight/x.onnx"],
            "no network flight/x.onnx; it has flight/net.onnx",
        ),
        (["compile", "BUNDLE", "--target", "myriad7"], "target 'myriad7' is unknown"),
        (["compile", "BUNDLE", "--target", "myriadx", "--toolkit", "/"], "install the toolkit"),
        (["compile", "BUNDLE", "--target", "npu"], "not compiled ahead of time"),
        (["ptq", "BUNDLE", "--pool", "absent.npz"], "no pool of tiles"),
        (["memory", "BUNDLE", "--target", "abacus"], "target 'abacus' is unknown"),
        (["sign", "BUNDLE"], "no key given"),
        (["sign", "BUNDLE", "--key", "absent.pem"], "no such key"),
        (["delta", "BUNDLE", "no-such-bundle"], "no manifest.json there"),
        (["delta", "BUNDLE", "out", "--apply", "absent.delta"], "give a delta file"),
        (["build", "--recipe", "no-such-recipe"], "recipe 'no-such-recipe' is unknown"),
        (["build", "--bundle", "BUNDLE", "--target", "int8-po2w7"], "derive fp16-vpu or fp32"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(bundle, capsys, monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NADIR_MYRIAD_TOOLKIT", raising=False)
    before = sorted(p for p in tmp_path.rglob("*") if p.is_file())
    assert main([bundle if w == "BUNDLE" else w for w in words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("error: ") == 1 and "Traceback" not in captured.err
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == before  # nothing half written


def test_a_corrupt_network_is_bad_input(bundle, capsys):
    import hashlib

    path = Path(bundle) / "flight/net.onnx"
    path.write_bytes(b"\x08\x08garbage")
    manifest = json.loads((Path(bundle) / "manifest.json").read_text())
    manifest["files"]["flight/net.onnx"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (Path(bundle) / "manifest.json").write_text(json.dumps(manifest))
    for words in (["check", bundle, "--random"], ["memory", bundle]):
        assert main(words) == 2
        assert "not a valid ONNX network" in one_line(capsys)


def test_compile_without_the_toolkit_still_reports(bundle, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("NADIR_MYRIAD_TOOLKIT", raising=False)
    out = tmp_path / "out"
    assert main(["compile", bundle, "--target", "myriad2", "--tile", "32", "64", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "no toolkit: nothing is compiled" in text and "openvino==2021.4.2" in text and "tile 64 px" in text
    reports = json.loads((out / "report-myriad2.json").read_text())
    assert [r["tile_px"] for r in reports] == [32, 64] and reports[0]["header"] is None and reports[0]["held"]


def test_memory_targets_and_derived_builds(bundle, capsys, tmp_path):
    assert (
        main(["memory", bundle, "--target", "myriad2", "--tile", "32", "64", "--chart", str(tmp_path / "m.svg")]) == 0
    )
    assert "myriad2 on_chip_mib: fits" in capsys.readouterr().out and (tmp_path / "m-net.svg").is_file()
    assert main(["targets", "--bundle", bundle]) == 0
    text = capsys.readouterr().out
    assert "cortex-a53" in text and "ms" in text and "assumed" in text
    assert main(["build", "--bundle", bundle, "--target", "fp16-vpu", "--out", str(tmp_path / "vpu")]) == 0
    assert "test-fp16-vpu" in capsys.readouterr().out
    assert load_graph(tmp_path / "vpu/flight/net.onnx").opset == 13


def test_sign_and_delta(bundle, build_cnn, capsys, tmp_path):
    pytest.importorskip("cryptography")
    key = tmp_path / "k.pem"
    assert main(["sign", bundle, "--new-key", str(key), "--key", str(key)]) == 0
    assert "signed by key" in capsys.readouterr().out
    files = {"flight/net.onnx": build_cnn(tmp_path / "other.onnx"), "flight/tables.npz": b"1" * 99}
    assemble(
        tmp_path / "new", "t", ("B02",), 32, {"kind": "none"}, files, Origin({"name": "t"}, "00" * 32), with_ir=False
    )
    assert main(["delta", bundle, str(tmp_path / "new"), "--out", str(tmp_path / "d")]) == 0
    assert "uplink:" in capsys.readouterr().out
    assert main(["delta", bundle, str(tmp_path / "made"), "--apply", str(tmp_path / "d")]) == 0
    assert load_bundle(tmp_path / "made").manifest == load_bundle(tmp_path / "new").manifest


def test_the_module_runs_as_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "export", "targets"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert "myriadx" in done.stdout


def codec_bundle(build, folder, name="flight/encoder.onnx", more=None):
    files = {name: build(folder / "net.onnx"), "flight/tables.npz": load_bundle().file("flight/tables.npz")}
    origin = Origin({"name": "throw-away"}, "00" * 32)
    bands = ("B02", "B03", "B04", "B08")
    return assemble(folder / "codec", "test", bands, 256, {"kind": "fsq"}, files, origin, with_ir=False, more=more)


def test_each_flying_network_has_its_payload_front_end(build_cnn, tmp_path):
    bundle = codec_bundle(build_cnn, tmp_path, more={"clouds": {}})
    assert front_end_for(bundle, "flight/encoder.onnx") is not None
    assert front_end_for(bundle, "flight/clouds.onnx") is not None
    assert front_end_for(bundle, "flight/other.onnx") is None
    assert feeder_for(bundle, "flight/encoder.onnx", None).name == "random"
    with pytest.raises(InputError, match="nothing quantises the outputs"):
        quantiser_for(bundle, "flight/other.onnx", 40.0)


def test_the_nested_quantiser_rebuilds_within_a_step(build_cnn, tmp_path):
    """Cells are at most one step wide beyond the dead zone, and the dead zone is narrower than two steps."""
    q = quantiser_for(codec_bundle(build_cnn, tmp_path), "flight/encoder.onnx", 64.0)
    latents = np.random.default_rng(0).integers(-(2**20), 2**20, (4, 64, 4, 4)).astype(np.int32)
    indices = q.indices(latents)
    step = 64 * 256
    assert np.abs(q.rebuilt(indices) - latents).max() < step
    known = indices.reshape(latents.shape)
    assert np.array_equal(np.sign(known)[known != 0], np.sign(latents)[known != 0])
    assert np.abs(latents[known == 0]).max() < step <= np.abs(latents[known != 0]).max()
    assert q.unit_dn == 2.0**-8


def test_a_vector_quantised_bundle_is_compared_by_its_codebooks(build_cnn, tmp_path):
    """Two layers of 4 and 8 vectors; latents that are the vectors themselves come back as their own indices."""
    rng = np.random.default_rng(0)
    books = [rng.permutation(np.arange(-16, 16))[: 2 * k].reshape(k, 2).astype(np.int8) for k in (4, 8)]
    np.savez(
        tmp_path / "t.npz", strides=[8, 4], book0=books[0], book1=books[1], mean_dn=np.zeros(4), scale_dn=np.ones(4)
    )
    files = {"flight/encoder.onnx": build_cnn(tmp_path / "net.onnx"), "flight/tables.npz": tmp_path / "t.npz"}
    bands, origin = ("B02", "B03", "B04", "B08"), Origin({"name": "vq"}, "00" * 32)
    bundle = assemble(tmp_path / "vq", "vq", bands, 32, {"kind": "vq"}, files, origin, with_ir=False)
    q = quantiser_for(bundle, "flight/encoder.onnx", 1.0)
    wanted = [rng.integers(0, 4, (2, 2)), rng.integers(0, 8, (4, 4))]
    outputs = [book[i].transpose(2, 0, 1)[None].astype(np.float32) for book, i in zip(books, wanted, strict=True)]
    latents = q.latents(outputs)
    assert q.indices(latents).tolist() == [*wanted[0].ravel(), *wanted[1].ravel()]
    assert np.array_equal(q.rebuilt(q.indices(latents)), latents)


@pytest.mark.realdata
@needs_data
def test_real_tiles_go_through_the_payloads_front_ends(build_cnn, tmp_path):
    bundle = codec_bundle(build_cnn, tmp_path, more={"clouds": {}})
    pool = real_pool(DATA / "train" / "tiles128.npz")
    (planes,) = front_end_for(bundle, "flight/encoder.onnx")(pool.tile(3, 256))
    assert planes.shape == (8, 64, 33, 33) and np.abs(planes).max() <= 128
    (pixels,) = front_end_for(bundle, "flight/clouds.onnx")(pool.tile(3, 256))
    assert pixels.shape == (1, 8, 128, 128) and pixels.dtype == np.uint8


@pytest.mark.parametrize("name", ["edge-s2-12", "edge-phisat2", "edge-s2-native"])
def test_the_cloud_network_of_many_bands_is_proven_on_the_four_that_it_sees_by_role(name):
    bundle, few = load_bundle(name), load_bundle("edge")
    side = bundle.tile_px
    dn = np.random.default_rng(0).integers(200, 5000, (1, len(bundle.bands), side, side)).astype(np.uint16)
    seen = dn[:, list(bundle.sensor.places("blue", "green", "red", "nir"))]
    (planes,) = feeder_for(bundle, "flight/clouds.onnx", TilePool(dn, "")).arrays(0)
    (wanted,) = front_end_for(few, "flight/clouds.onnx")(TilePool(seen, "").tile(0, side))
    assert np.array_equal(planes, wanted)


COMMANDS = ("train", "single-rate", "build", "check", "codes", "compile", "ptq", "memory", "targets", "sign", "delta")
WITHOUT_THE_EXTRA = """
import sys
for module in ("torch", "brevitas", "onnx", "onnxruntime", "onnxoptimizer", "safetensors", "nncf", "cryptography"):
    sys.modules[module] = None
from export.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def without_the_extra(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_THE_EXTRA, *words]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in COMMANDS), ["--version"]])
def test_help_and_version_need_no_extra(words):
    done = without_the_extra(*words)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert ("usage: python -m export" if "--help" in words else "nadir-payload ") in done.stdout


@pytest.mark.parametrize(
    "words",
    [["train", "--recipe", "edge"], ["check", "edge", "--random"], ["targets", "--bundle", "edge"], ["memory", "edge"]],
)
def test_without_the_extra_one_line_names_it(words):
    done = without_the_extra(*words)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1 and "pip install 'nadir-payload[train]'" in done.stderr, done.stderr
