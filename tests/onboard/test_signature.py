"""Signed bundles: what verifies, what is refused, and that nothing of it is needed where no signature is required."""

import hashlib
import json
import subprocess
import sys

import pytest

from payload.bundle import FORMAT_VERSION, load_bundle
from payload.errors import BundleError, InputError
from payload.signature import (
    DOMAIN,
    Signature,
    key_id,
    load_public_key,
    read_signature,
    require_signature,
    signed_octets,
)

ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519", reason="needs cryptography")

#: RFC 8032, section 7.1, TEST 1: secret key, public key, and the signature of the empty message.
SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def write(directory, manifest=b'{"name": "test"}', secret=SECRET, message=None):
    (directory / "manifest.json").write_bytes(manifest)
    private = ed25519.Ed25519PrivateKey.from_private_bytes(secret)
    public = private.public_key().public_bytes_raw()
    signature = Signature(key_id(public), private.sign(message or signed_octets(directory)))
    (directory / "signature.json").write_text(signature.to_json())
    return public


def test_the_key_pair_is_the_standards_own():
    assert ed25519.Ed25519PrivateKey.from_private_bytes(SECRET).public_key().public_bytes_raw() == PUBLIC
    assert key_id(PUBLIC) == hashlib.sha256(PUBLIC).hexdigest()[:16]


def test_what_is_signed_is_the_prefix_and_the_manifest_as_it_lies(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b"{ }\n")
    assert signed_octets(tmp_path) == DOMAIN + b"{ }\n" == b"nadir-bundle-v1\x00{ }\n"


def test_a_good_signature_names_its_key(tmp_path):
    assert write(tmp_path) == PUBLIC
    assert require_signature(tmp_path, [bytes(32), PUBLIC]) == key_id(PUBLIC)


def test_unsigned_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b"{}")
    assert read_signature(tmp_path) is None
    with pytest.raises(BundleError, match="unsigned, wanted a signature"):
        require_signature(tmp_path, [PUBLIC])


def test_a_strangers_signature_is_refused(tmp_path):
    write(tmp_path, secret=bytes(range(32)))
    with pytest.raises(BundleError, match="which is not trusted; trusted are"):
        require_signature(tmp_path, [PUBLIC])


def test_a_changed_manifest_is_refused(tmp_path):
    write(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b'{"name": "Test"}')
    with pytest.raises(BundleError, match="changed after it was signed"):
        require_signature(tmp_path, [PUBLIC])


def test_a_signature_without_the_prefix_is_refused(tmp_path):
    write(tmp_path, message=b'{"name": "test"}')  # signed for something else
    with pytest.raises(BundleError, match="does not match"):
        require_signature(tmp_path, [PUBLIC])


def test_a_key_id_borrowed_from_a_trusted_key_does_not_help(tmp_path):
    write(tmp_path, secret=bytes(range(32)))
    table = json.loads((tmp_path / "signature.json").read_text()) | {"key_id": key_id(PUBLIC)}
    (tmp_path / "signature.json").write_text(json.dumps(table))
    with pytest.raises(BundleError, match="does not match"):
        require_signature(tmp_path, [PUBLIC])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"algorithm": "RSA", "key_id": "a", "signature": "00"}',
        '{"algorithm": "Ed25519", "key_id": "a", "signature": "zz"}',
    ],
)
def test_a_broken_signature_file_is_one_clear_line(tmp_path, text):
    write(tmp_path)
    (tmp_path / "signature.json").write_text(text)
    with pytest.raises(BundleError, match="sign the bundle again"):
        require_signature(tmp_path, [PUBLIC])


def test_requiring_signatures_without_keys_is_a_mistake_of_the_mission(tmp_path):
    write(tmp_path)
    with pytest.raises(InputError, match="no key is trusted"):
        require_signature(tmp_path, [])


def test_loading_demands_a_signature_only_when_keys_are_given(tmp_path):
    manifest = {"format_version": FORMAT_VERSION, "name": "t", "bands": ["B02"], "tile_px": 8, "files": {}}
    manifest["codec"] = {"kind": "fsq"}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert load_bundle(tmp_path).name == "t"
    with pytest.raises(BundleError, match="unsigned"):
        load_bundle(tmp_path, trusted_keys=[PUBLIC])
    write(tmp_path, manifest=json.dumps(manifest).encode())
    assert load_bundle(tmp_path, flight_only=True, trusted_keys=[PUBLIC]).name == "t"
    with pytest.raises(BundleError, match="not trusted"):
        load_bundle(tmp_path, trusted_keys=[bytes(32)])


def test_public_keys_are_read_from_hex(tmp_path):
    (tmp_path / "k.pub").write_text(PUBLIC.hex() + "\n")
    assert load_public_key(tmp_path / "k.pub") == PUBLIC
    for bad in ("12", "x" * 64, ""):
        (tmp_path / "k.pub").write_text(bad)
        with pytest.raises(InputError, match="64 hex digits"):
            load_public_key(tmp_path / "k.pub")


def test_without_the_package_the_message_says_what_to_install(tmp_path):
    write(tmp_path)
    code = (
        "import sys, pathlib; sys.modules['cryptography'] = None\n"
        "from payload.signature import require_signature\n"
        "from payload.errors import InputError\n"
        f"try: require_signature(pathlib.Path({str(tmp_path)!r}), [bytes.fromhex({PUBLIC.hex()!r})])\n"
        "except InputError as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install cryptography" in done.stdout
