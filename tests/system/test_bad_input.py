"""Bad input through the real command line: one clear line on stderr, exit 2, no traceback, nothing left behind."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from payload.bundle import load_bundle

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("B02", "B03", "B04", "B08")


def sim(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sim.cli", *map(str, arguments)]
    environment = os.environ | {"PYTHONWARNINGS": "default", "COLUMNS": "200"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=280)


def raster(path: Path, dn: np.ndarray, names: tuple[str, ...] = NAMES, nodata: int | None = None) -> Path:
    profile = {"driver": "GTiff", "count": len(dn), "height": dn.shape[1], "width": dn.shape[2], "dtype": dn.dtype}
    place = {"crs": "EPSG:32631", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 4_600_000)}
    with rasterio.open(path, "w", **profile, **place, nodata=nodata) as file:
        file.write(dn)
        file.descriptions = names
    return path


def noise(bands: int = 4, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (bands, 64, 64)).astype(dtype)


def changed_bundle(folder: Path, file: str, at: int, value: bytes) -> Path:
    bundle = Path(shutil.copytree(load_bundle().directory, folder / "bundle"))
    octets = bytearray((bundle / file).read_bytes())
    at = at % len(octets)
    assert octets[at : at + 1] != value
    octets[at : at + 1] = value
    (bundle / file).write_bytes(octets)
    return bundle


def unreadable(t: Path) -> list:
    (t / "scene.tif").write_bytes(b"II*\x00 cut short")
    return ["--scene", t / "scene.tif"]


def nothing_there(t: Path) -> list:
    return ["--scene", t / "nowhere.tif"]


def a_device_that_is_none(t: Path) -> list:
    return ["--scene", "demo:256", "--device", "usb:"]


def a_comparison_with_nobody(t: Path) -> list:
    return ["--scene", "demo:256", "--compare"]


def three_bands(t: Path) -> list:
    return ["--scene", raster(t / "scene.tif", noise(3), NAMES[:3])]


def no_near_infrared(t: Path) -> list:
    return ["--scene", raster(t / "scene.tif", noise(), ("B02", "B03", "B04", "B11"))]


def float_samples_in_percent(t: Path) -> list:
    return ["--scene", raster(t / "scene.tif", (noise() / 3).astype(np.float32))]


def eight_bits(t: Path) -> list:
    return ["--scene", raster(t / "scene.tif", noise(dtype="uint8"))]


def no_data_at_all(t: Path) -> list:
    return ["--scene", raster(t / "scene.tif", np.zeros((4, 64, 64), np.uint16), nodata=0)]


def empty_safe(t: Path) -> list:
    (t / "S2B_MSIL1C.SAFE").mkdir()
    return ["--scene", t / "S2B_MSIL1C.SAFE"]


def cut_safe(t: Path) -> list:
    (t / "S2B_MSIL1C.SAFE").mkdir()
    (t / "S2B_MSIL1C.SAFE" / "MTD_MSIL1C.xml").write_text("<n1:Level-1C_User_Product xmlns:n1='x'><General_Info>")
    return ["--scene", t / "S2B_MSIL1C.SAFE"]


def cut_zip(t: Path) -> list:
    (t / "S2B_MSIL1C.SAFE.zip").write_bytes(b"PK\x03\x04" + bytes(300))
    return ["--scene", t / "S2B_MSIL1C.SAFE.zip"]


def unknown_key(t: Path) -> list:
    text = (ROOT / "sim" / "missions" / "phisat2.toml").read_text()
    (t / "mission.toml").write_text(text.replace("packet_octets", "packet_octet"))
    return ["--scene", "demo:64", "--mission", t / "mission.toml"]


def broken_toml(t: Path) -> list:
    (t / "mission.toml").write_text("name = 'x'\n[link\n")
    return ["--scene", "demo:64", "--mission", t / "mission.toml"]


def unknown_mission(t: Path) -> list:
    return ["--scene", "demo:64", "--mission", "phisat3"]


def tampered_encoder(t: Path) -> list:
    return ["--scene", "demo:64", "--bundle", changed_bundle(t, "flight/encoder.onnx", 5000, b"\x55")]


def tampered_manifest(t: Path) -> list:
    return ["--scene", "demo:64", "--bundle", changed_bundle(t, "manifest.json", 1, b"}")]


def unsigned(bundle: Path) -> Path:
    """So that what comes after the signature is looked at."""
    (bundle / "signature.json").unlink()
    return bundle


def garbled_manifest(t: Path) -> list:
    bundle = unsigned(changed_bundle(t, "manifest.json", 1, b"}"))
    return ["--scene", "demo:64", "--allow-unsigned", "--bundle", bundle]


def bundle_of_ones_own(t: Path) -> list:
    bundle = unsigned(Path(shutil.copytree(load_bundle().directory, t / "bundle")))
    return ["--scene", "demo:64", "--bundle", bundle]


def no_key(t: Path) -> list:
    return ["--scene", "demo:64", "--trust", t / "nowhere.pub"]


def manifest_of_other_tiles(t: Path) -> list:
    """The manifest says tiles of 128 px, the networks are made for 256."""
    bundle = Path(shutil.copytree(load_bundle().directory, t / "bundle"))
    manifest = json.loads((bundle / "manifest.json").read_text()) | {"tile_px": 128}
    (unsigned(bundle) / "manifest.json").write_text(json.dumps(manifest))
    return ["--scene", "demo:128", "--allow-unsigned", "--bundle", bundle]


def no_bundle(t: Path) -> list:
    return ["--scene", "demo:64", "--bundle", "corsa-fpn9"]


def unknown_engine(t: Path) -> list:
    return ["--scene", "demo:64", "--engine", "tensorrt"]


def bad_seed(t: Path) -> list:
    return ["--scene", raster(t / "scene.tif", noise()), "--seed", "-1"]


def bad_demo_size(t: Path) -> list:
    return ["--scene", "demo:10"]


def out_is_there(t: Path) -> list:
    (t / "out").mkdir()
    (t / "out" / "report.json").write_text("{}")
    return ["--scene", "demo:64", "--out", t / "out"]


def out_is_a_file(t: Path) -> list:
    (t / "out").write_text("precious")
    return ["--scene", "demo:64", "--out", t / "out", "--overwrite"]


def out_holds_something_else(t: Path) -> list:
    (t / "out").mkdir()
    (t / "out" / "thesis.tex").write_text("precious")
    return ["--scene", "demo:64", "--out", t / "out", "--overwrite"]


CASES: list[tuple[Callable[[Path], list], tuple[str, ...]]] = [
    (unreadable, ("scene.tif",)),
    (nothing_there, ("nowhere.tif",)),
    (a_device_that_is_none, ("usb:", "tcp://")),
    (a_comparison_with_nobody, ("--compare", "--device")),
    (three_bands, ("3 band(s)", "wanted B02, B03, B04, B08")),
    (no_near_infrared, ("B08", "B11")),
    (float_samples_in_percent, ("float32", "--scale 0.01")),
    (eight_bits, ("uint8", "uint16")),
    (no_data_at_all, ("no data",)),
    (empty_safe, ("MTD_MSI",)),
    (cut_safe, ("MTD_MSIL1C.xml",)),
    (cut_zip, ("zip",)),
    (unknown_key, ("mission.toml", "'packet_octet'", "did you mean 'packet_octets'?")),
    (broken_toml, ("mission.toml", "not valid TOML")),
    (unknown_mission, ("'phisat3'", "did you mean 'phisat2'?")),
    (tampered_encoder, ("encoder.onnx", "sha256", "restore it or rebuild")),
    (tampered_manifest, ("signature of key", "does not match the manifest", "restore")),
    (garbled_manifest, ("manifest.json", "not readable as JSON", "restore")),
    (bundle_of_ones_own, ("unsigned", "export sign", "--trust KEY.pub", "--allow-unsigned")),
    (no_key, ("nowhere.pub", "64 hex digits")),
    (manifest_of_other_tiles, ("do not fit together", "restore the bundle or rebuild")),
    (no_bundle, ("'corsa-fpn9'", "edge")),
    (unknown_engine, ("'tensorrt'", "openvino, onnxruntime")),
    (bad_seed, ("seed is -1", "wanted 0 or more")),
    (bad_demo_size, ("demo:10", "64 to 20000")),
    (out_is_there, ("already there", "--overwrite")),
    (out_is_a_file, ("is a file", "wanted a folder")),
    (out_holds_something_else, ("no run wrote", "--out")),
]


def everything_in(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(("prepare", "words"), CASES, ids=[case[0].__name__ for case in CASES])
def test_bad_input_is_one_line_that_says_how_to_mend_it(prepare, words, tmp_path) -> None:
    arguments = prepare(tmp_path)
    if "--out" not in arguments:
        arguments += ["--out", tmp_path / "out"]
    before = everything_in(tmp_path)
    done = sim("downlink", *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.endswith("\n") and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("sim: ") and "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert everything_in(tmp_path) == before  # nothing changed, nothing new, no half-written folder beside


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["downlink"], "--scene"),
        (["downlink", "--scene", "demo:64", "--seed", "seven"], "--seed"),
        (["downlink", "--scene", "demo:64", "--colour"], "--colour"),
        (["uplink"], "uplink"),
    ],
)
def test_mistakes_of_usage_exit_2_without_a_traceback(arguments, words) -> None:
    done = sim(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["passes", "--mission", "phisat3"], ("'phisat3'", "did you mean 'phisat2'?")),
        (["passes", "--start", "yesterday"], ("--start is 'yesterday'", "2026-06-21")),
        (["audit", "nowhere.json"], ("nowhere.json",)),
        (["evaluate", "--tiles", "nowhere.npz", "--out", "{out}"], ("nowhere.npz",)),
    ],
)
def test_the_other_commands_refuse_in_the_same_way(arguments, words, tmp_path) -> None:
    done = sim(*(argument.format(out=tmp_path / "out") for argument in arguments))
    assert done.returncode == 2 and done.stdout == "", done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("sim: ")
    for word in words:
        assert word in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_good_input_exits_by_its_requirements_and_prints_json_on_stdout_alone(tmp_path) -> None:
    done = sim("downlink", "--scene", "demo:64", "--out", tmp_path / "out", "--json")
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "out" / "report.json").read_text())
    assert done.returncode == (0 if report["held"] and report["measured_on_host"]["held"] else 1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
