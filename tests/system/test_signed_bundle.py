"""A mission that names trusted keys takes only bundles signed by one of them."""

import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from payload.bundle import SHIPPED
from payload.errors import BundleError, InputError
from payload.signature import ALGORITHM, FILE, Signature, key_id, signed_octets
from sim.downlink import Request, downlink
from sim.mission.spec import SHIPPED as MISSIONS
from sim.mission.spec import load_mission


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED / "edge", tmp_path / "edge"))


def _mission(folder: Path, key: Ed25519PrivateKey) -> Path:
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    text = f'trusted_keys = ["{public.hex()}"]\n' + (MISSIONS / "phisat2.toml").read_text()
    path = folder / "mission.toml"
    path.write_text(text)
    return path


def _sign(bundle: Path, key: Ed25519PrivateKey) -> None:
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = Signature(key_id(public), key.sign(signed_octets(bundle)))
    assert ALGORITHM in signature.to_json()
    (bundle / FILE).write_text(signature.to_json())


def _run(scene: str, bundle: Path, mission: Path, out: Path) -> dict[str, object]:
    return downlink(Request(scene, out, str(mission), str(bundle)), lambda stage, total: None)


def test_signed_by_a_trusted_key_is_taken(tmp_path: Path, bundle: Path) -> None:
    key = Ed25519PrivateKey.generate()
    _sign(bundle, key)
    report = _run("demo:256", bundle, _mission(tmp_path, key), tmp_path / "out")
    assert report["tiles"]["total"] == 1  # type: ignore[index]


def test_unsigned_and_wrongly_signed_are_refused(tmp_path: Path, bundle: Path) -> None:
    mission = _mission(tmp_path, Ed25519PrivateKey.generate())
    with pytest.raises(BundleError):
        _run("demo:256", bundle, mission, tmp_path / "out")
    _sign(bundle, Ed25519PrivateKey.generate())
    with pytest.raises(BundleError):
        _run("demo:256", bundle, mission, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_key_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mission.toml"
    path.write_text('trusted_keys = ["abc"]\n' + (MISSIONS / "phisat2.toml").read_text())
    with pytest.raises(InputError, match="64 hex digits"):
        load_mission(path)
