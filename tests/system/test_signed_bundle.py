"""A mission that names trusted keys takes only bundles signed by one of them."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from payload.bundle import SHIPPED, shipped_bundles
from payload.errors import BundleError, InputError, SignatureError
from payload.signature import ALGORITHM, FILE, Signature, key_id, signed_octets
from sim.downlink import Request, downlink
from sim.mission.spec import SHIPPED as MISSIONS
from sim.mission.spec import load_mission, shipped_missions
from sim.mission.trust import MISSIONS_OWN, UNSIGNED, Trust, load_trusted, signer


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED / "edge", tmp_path / "edge"))


def _mission(folder: Path, key: Ed25519PrivateKey) -> Path:
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return _mission_that_trusts(folder, public.hex())


def _mission_that_trusts(folder: Path, key: str) -> Path:
    path = folder / "mission.toml"
    text = (MISSIONS / "phisat2.toml").read_text()
    path.write_text(re.sub(r"(?m)^trusted_keys = .*$", f'trusted_keys = ["{key}"]', text))
    return path


def _sign(bundle: Path, key: Ed25519PrivateKey) -> None:
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = Signature(key_id(public), key.sign(signed_octets(bundle)))
    assert ALGORITHM in signature.to_json()
    (bundle / FILE).write_text(signature.to_json())


def _run(scene: str, bundle: str | Path, mission: str | Path, out: Path, trust: Trust = MISSIONS_OWN) -> dict[str, Any]:
    return downlink(Request(scene, out, str(mission), str(bundle), trust=trust), lambda stage, total: None)


@pytest.mark.parametrize("mission", shipped_missions())
@pytest.mark.parametrize("name", shipped_bundles())
def test_every_bundle_that_ships_is_signed_by_a_key_of_every_mission_that_ships(name: str, mission: str) -> None:
    """Red after a change to a bundle: sign it again, or give it a new key (docs/trust.md)."""
    loaded = load_mission(mission)
    assert signer(load_trusted(name, loaded), loaded).startswith("signed by key ")


def test_no_private_key_ships() -> None:
    root = SHIPPED.parents[1]
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False)
    kept = listed.stdout.splitlines()
    assert not [p for p in kept if Path(p).suffix == ".pem"]
    for path in kept:
        octets = (root / path).read_bytes() if (root / path).is_file() else b""
        assert b"-----BEGIN " + b"PRIVATE KEY" not in octets, path


def test_a_reference_mission_refuses_a_bundle_of_ones_own_and_says_how_to_fly_it(tmp_path: Path, bundle: Path) -> None:
    """On the tree before, the reference missions asked for no signature."""
    (bundle / FILE).unlink()
    with pytest.raises(SignatureError, match=r"unsigned.*--trust KEY\.pub.*--allow-unsigned"):
        _run("demo:64", bundle, "phisat2", tmp_path / "out")
    report = _run("demo:64", bundle, "phisat2", tmp_path / "out", Trust(allow_unsigned=True))
    assert report["inputs"]["bundle"]["signature"] == UNSIGNED


def test_a_key_on_the_command_line_is_trusted_besides_the_missions(tmp_path: Path, bundle: Path) -> None:
    key, mission = Ed25519PrivateKey.generate(), load_mission("phisat2")
    _sign(bundle, key)
    with pytest.raises(SignatureError, match=r"not trusted.*--trust KEY\.pub names its signer$"):
        load_trusted(str(bundle), Trust(allow_unsigned=True).added_to(mission))
    (tmp_path / "own.pub").write_text(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex())
    both = Trust((tmp_path / "own.pub",)).added_to(mission)
    own, shipped = (signer(load_trusted(where, both), both) for where in (str(bundle), "edge"))
    assert own.startswith("signed by key ") and shipped.startswith("signed by key ") and own != shipped


def test_allowing_unsigned_bundles_allows_no_changed_ones(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text()) | {"name": "another"}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SignatureError, match="does not match the manifest"):
        load_trusted(str(bundle), Trust(allow_unsigned=True).added_to(load_mission("phisat2")))


def test_a_mission_can_allow_unsigned_bundles_itself(tmp_path: Path, bundle: Path) -> None:
    (bundle / FILE).unlink()
    path = tmp_path / "mission.toml"
    path.write_text("allow_unsigned = true\n" + (MISSIONS / "phisat2.toml").read_text())
    mission = load_mission(path)
    assert signer(load_trusted(str(bundle), mission), mission) == UNSIGNED


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
    with pytest.raises(InputError, match="64 hex digits"):
        load_mission(_mission_that_trusts(tmp_path, "abc"))
