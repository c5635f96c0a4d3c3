"""Blobs on an agent: a variant's networks through the old toolkit's interface, which a fake stands in for.

The fake is a package `openvino.inference_engine` for the worker's Python alone. Its blobs hold the float twins as ONNX,
and it keeps to the toolkit's ways: shapes in the order N, C, H, W whatever lies in memory, FP16 at both ends.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from export.bundle.sign import new_key, public_path, sign_bundle
from export.devices.to_myriad import float_twin
from export.graphs.ends import ends_of
from export.graphs.fewer_stages import forms
from export.graphs.graph import load_graph
from hil.agent.blobs.myriad import PYTHON, MyriadEngine, variant_part
from hil.agent.encoding import PayloadEncoder
from hil.agent.trust import Trust
from hil.host.client import DeviceError, open_device
from payload.bundle import DEFAULT, load_bundle, shipped_bundles
from payload.engine import open_engine
from payload.errors import BundleError, InputError
from payload.link import tile_code
from payload.pipeline import Payload
from payload.policy import Gate, Policy
from payload.tiles import Tile

POLICY = Policy(step_dn=90.0, gate=Gate(withhold_above_percent=100.0))
pytestmark = pytest.mark.skipif(
    DEFAULT not in shipped_bundles(), reason="the shipped bundle is not built in this checkout"
)

FAKE = '''
import numpy, onnxruntime

class Data:
    precision, layout = "FP16", "NHWC"
    def __init__(self, shape):
        self.shape = list(shape)

class Info:
    def __init__(self, shape):
        self.input_data = Data(shape)

def swapped(array):
    """Memory in the order N, H, W, C under a shape N, C, H, W -> the array, and back."""
    n, c, h, w = array.shape
    return array.reshape(n, h, w, c).transpose(0, 3, 1, 2)

class Network:
    def __init__(self, blob):
        self.session = onnxruntime.InferenceSession(blob, providers=["CPUExecutionProvider"])
        self.input_info = {v.name: Info(v.shape) for v in self.session.get_inputs()}
        self.outputs = {v.name: Data(v.shape) for v in self.session.get_outputs()}
    def infer(self, given):
        feeds = {name: swapped(array).astype(numpy.float32) for name, array in given.items()}
        found = self.session.run(None, feeds)
        return {n: numpy.ascontiguousarray(a.transpose(0, 2, 3, 1)).astype(numpy.float16).reshape(a.shape)
                for n, a in zip(self.outputs, found)}

class IECore:
    def import_network(self, model_file, device_name):
        assert device_name == "MYRIAD"
        octets = open(model_file, "rb").read()
        if octets == b"no device":
            raise RuntimeError("Can not init Myriad device: NC_ERROR")
        return Network(octets)
'''


@pytest.fixture(scope="module")
def old_python(tmp_path_factory):
    """An interpreter in whose environment the fake is the old toolkit."""
    folder = tmp_path_factory.mktemp("old")
    (folder / "openvino").mkdir()
    (folder / "openvino" / "__init__.py").touch()
    (folder / "openvino" / "inference_engine.py").write_text(FAKE)
    python = folder / "python3.9"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


@pytest.fixture(scope="module")
def variant(tmp_path_factory):
    """The shipped bundle with blobs that the fake can read, as `write_variant` lays it out."""
    bundle, folder = load_bundle(DEFAULT), tmp_path_factory.mktemp("variant") / "edge"
    shutil.copytree(bundle.directory, folder)
    manifest, networks = dict(bundle.manifest), {}
    for name in ("flight/clouds.onnx", "flight/encoder.onnx"):
        *_, model = forms(float_twin(bundle.file(name), 256, 256)).values()
        blob = name.replace(".onnx", ".blob")
        (folder / blob).write_bytes(model.SerializeToString())
        networks[name] = {"blob": blob, **ends_of(load_graph(bundle.file(name), free_px=256)).to_table()}
        (folder / name).unlink()  # what is run from its blob need not go up
    import hashlib

    blobs = {n["blob"]: hashlib.sha256((folder / n["blob"]).read_bytes()).hexdigest() for n in networks.values()}
    manifest |= {"files": bundle.manifest["files"] | blobs, "variant": {"networks": networks}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "signature.json").unlink()
    return load_bundle(folder, flight_only=True)


@pytest.fixture(scope="module")
def tile():
    y, x = np.mgrid[:256, :256]
    smooth = 900 + 500 * np.sin(x / 37) * np.cos(y / 53)
    noise = np.random.default_rng(4).normal(0, 60, (4, 256, 256))
    return Tile(0, 0, np.clip(smooth + noise, 0, 10_000).astype(np.uint16), np.ones((256, 256), bool))


def test_the_payload_on_blobs_sends_what_it_sends_on_int8_but_for_near_ties(old_python, variant, tile, monkeypatch):
    monkeypatch.setenv(PYTHON, str(old_python))
    encoder = PayloadEncoder(variant.directory, POLICY, "myriad", 1)
    assert encoder.engine == "myriad 2021.4.2"
    code = tile_code.unpack(encoder.encode(tile))
    reference = Payload(load_bundle(DEFAULT), POLICY, open_engine("onnxruntime"))
    wanted = reference.encode_tile(tile)
    found, exact = (reference.codec.finest(reference.codec.decode(c.side, c.layers)) for c in (code, wanted))
    assert code.kind == wanted.kind and code.side == wanted.side
    assert 0 < np.count_nonzero(found != exact) + 1 < 0.01 * found.size


def test_an_agent_offers_the_engine_where_an_old_python_is_named(old_python, variant, tile, monkeypatch):
    monkeypatch.setenv(PYTHON, str(old_python))
    with open_device("host:", variant, POLICY, "myriad") as session:
        coded = list(session.encode_tiles([tile]))
        assert session.info.engine == "myriad 2021.4.2" and session.info.ran["encoder network"] == "myriad 2021.4.2"
    assert len(coded) == 1 and tile_code.unpack(coded[0].octets).kind.name == "CODED"


def test_without_an_old_python_the_engine_says_what_to_install(variant, monkeypatch):
    monkeypatch.delenv(PYTHON, raising=False)
    with pytest.raises(InputError, match=r"install openvino==2021\.4\.2 into a Python 3\.9 and name that"):
        MyriadEngine(variant)
    monkeypatch.setenv(PYTHON, "/no/such/python")
    with pytest.raises(InputError, match=r"/no/such/python: does not start \(No such file"):
        MyriadEngine(variant).load(variant.directory / "flight/clouds.onnx")


def test_without_a_device_the_toolkits_words_come_through(old_python, variant, tmp_path, monkeypatch):
    monkeypatch.setenv(PYTHON, str(old_python))
    shutil.copytree(variant.directory, tmp_path / "v")
    (tmp_path / "v" / "flight" / "clouds.blob").write_bytes(b"no device")
    bundle = type(variant)(tmp_path / "v", variant.manifest)
    with pytest.raises(InputError, match="the Myriad refused: Can not init Myriad device: NC_ERROR; plug a device in"):
        MyriadEngine(bundle).load(bundle.directory / "flight/clouds.onnx")


def test_a_bundle_without_blobs_is_told_how_to_get_them(old_python):
    engine = MyriadEngine(load_bundle(DEFAULT), [str(old_python)])
    with pytest.raises(BundleError, match=r"no blob of flight/encoder\.onnx; make a variant .*--variant DIR"):
        engine.load(load_bundle(DEFAULT).file("flight/encoder.onnx"))


@pytest.mark.parametrize("table", [{}, {"blob": "../x", "inputs": [], "outputs": []}, {"blob": 1, "inputs": 3}, []])
def test_a_variants_table_that_makes_no_sense_is_refused(variant, table):
    bundle = type(variant)(variant.directory, variant.manifest | {"variant": {"networks": {"n": table}}})
    with pytest.raises(BundleError, match="compile it again"):
        variant_part(bundle, "n")


def test_the_worker_that_dies_is_told_in_one_line(old_python, variant, monkeypatch):
    monkeypatch.setenv(PYTHON, str(old_python))
    network = MyriadEngine(variant).load(variant.directory / "flight/encoder.onnx")
    network.close()
    with pytest.raises(InputError, match="the Myriad's worker ended: was the device unplugged"):
        network.run(np.zeros((8, 64, 33, 33), np.float32))


def test_an_agent_with_keys_runs_no_variant_that_is_unsigned_tampered_or_older(variant, tmp_path, monkeypatch):
    """The blobs are under the signature, too."""
    key, folder, trusted = tmp_path / "k.pem", tmp_path / "v", tmp_path / "trust"
    new_key(key)
    trusted.mkdir()
    shutil.copy(public_path(key), trusted / "k.pub")
    shutil.copytree(variant.directory, folder)
    for name in ("clouds", "encoder"):  # signing checks every file
        shutil.copy(load_bundle(DEFAULT).file(f"flight/{name}.onnx"), folder / "flight")
    with pytest.raises(BundleError):
        Trust(trusted).load(folder)
    sign_bundle(folder, key, serial=5)
    trust = Trust(trusted)
    trust.remember(trust.load(folder))
    blob = folder / "flight" / "encoder.blob"
    octets = blob.read_bytes()
    blob.write_bytes(octets[:-1] + bytes([octets[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"encoder\.blob: sha256 is"):
        trust.load(folder)
    blob.write_bytes(octets)
    sign_bundle(folder, key, serial=4)
    with pytest.raises(BundleError, match="serial number 4, this device has run 5"):
        trust.load(folder)
    (folder / "signature.json").unlink()
    with pytest.raises(DeviceError, match=r"no signature\.json|unsigned|not signed"):
        _agent(folder, trusted)


def _agent(folder: Path, trusted: Path) -> None:
    bundle = load_bundle(folder, flight_only=True)
    command = f"stdio:{sys.executable} -m hil.agent.serve --stdio --bundle {folder} --trust {trusted}"
    with open_device(command, bundle, POLICY):
        pass


@pytest.mark.skipif(
    not os.environ.get(PYTHON), reason=f"needs the old toolkit in a Python of its own; set {PYTHON} to it"
)
def test_the_real_toolkit_goes_as_far_as_looking_for_a_device(variant):
    """A real blob is needed here: the toolkit reads it before it looks for the device."""
    with pytest.raises(InputError, match="the Myriad refused: "):
        MyriadEngine(variant).load(variant.directory / "flight/clouds.onnx")
