"""What goes up before a scene: a second bundle on trial, telecommands; and what the ground is told of both."""

import fcntl
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from payload.bundle import SHIPPED
from payload.errors import InputError
from payload.signature import FILE, Signature, key_id, signed_octets
from sim.commands.root import app
from sim.downlink import Request, downlink
from sim.mission.spec import SHIPPED as MISSIONS
from sim.onboard.aboard import LOCK, Uplink

KEY = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)
PUBLIC = KEY.public_key().public_bytes_raw()


def signed_bundle(folder: Path, coarsest_step_dn: float | None = None) -> Path:
    """Bundle `edge`, or one beside it, signed by the test's key."""
    shutil.copytree(SHIPPED / "edge", folder)
    if coarsest_step_dn is not None:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["codec"]["coarsest_step_dn"] = coarsest_step_dn
        (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / FILE).write_text(Signature(key_id(PUBLIC), KEY.sign(signed_octets(folder))).to_json())
    return folder


@pytest.fixture
def satellite(tmp_path: Path) -> Any:
    """Runs of one payload that remembers: a small scene, its bundle, whatever goes up."""
    text = (MISSIONS / "phisat2.toml").read_text()
    mission = tmp_path / "mission.toml"
    mission.write_text(re.sub(r"(?m)^trusted_keys = .*$", f'trusted_keys = ["{PUBLIC.hex()}"]', text))
    first = signed_bundle(tmp_path / "first")

    def fly(upload: Path | None = None, commands: Path | None = None) -> dict[str, Any]:
        uplink = Uplink(None if upload is None else str(upload), commands, tmp_path / "memory")
        request = Request(
            "demo:64", tmp_path / "out", str(mission), str(first), overwrite=True, engine="native", uplink=uplink
        )
        return downlink(request, lambda stage, total: None)

    return fly


def command(tmp_path: Path, what: str, counter: int) -> Path:
    """A file of one command, as the command line makes it."""
    key, out = tmp_path / "key.pem", tmp_path / f"{counter}.bin"
    key.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    options = ["--key", str(key), "--counter", str(counter), "--out", str(out)]
    result = CliRunner().invoke(app, ["command", what, *options])
    assert result.exit_code == 0, result.output
    return out


def test_a_second_bundle_is_tried_confirmed_and_taken_back_by_command(satellite: Any, tmp_path: Path) -> None:
    told = satellite(signed_bundle(tmp_path / "second", 199.0))["housekeeping"]
    assert told["memory"] | {"flown_slot": "b", "on_trial": True, "active_slot": "b"} == told["memory"]
    back = command(tmp_path, "slot-a", 4)
    told = satellite(commands=back)["housekeeping"]
    assert (told["memory"]["flown_slot"], told["memory"]["active_slot"], told["guard"]["commands"]) == ("b", "a", 1)
    told = satellite(commands=back)["housekeeping"]  # replayed: the counter outlived the run
    assert (told["memory"]["flown_slot"], told["guard"]["commands_refused"], told["guard"]["commands"]) == ("a", 1, 0)


def test_a_trial_that_rots_is_rolled_back_and_the_ground_is_told(satellite: Any, tmp_path: Path) -> None:
    satellite()
    from payload.bundle import load_bundle
    from payload.guard.slots import Slots

    second = signed_bundle(tmp_path / "second", 199.0)
    slots = Slots(tmp_path / "memory" / "slots", [PUBLIC])
    slots.install(second, load_bundle(second).bundle_id)
    (slots.trial_folder / "flight" / "tables.npz").write_bytes(b"rot")
    told = satellite()["housekeeping"]
    assert told["memory"] | {"flown_slot": "a", "rolled_back": True, "on_trial": False} == told["memory"]
    assert told["guard"]["rollbacks"] == 1


def test_safe_mode_by_command_declares_every_tile(satellite: Any, tmp_path: Path) -> None:
    report = satellite(commands=command(tmp_path, "safe", 1))
    assert (report["tiles"]["omitted"], report["tiles"]["total"]) == (1, 1)
    assert (report["housekeeping"]["mode"], report["housekeeping"]["guard"]["safe_modes"]) == ("safe", 1)


def test_commands_that_are_no_file_and_a_memory_in_use_are_refused_in_one_line(satellite: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as stream:
        stream.truncate(1 << 21)
    for wrong in ("pipe", "huge", "nothing", "."):
        with pytest.raises(InputError, match="wanted one that `sim command` made"):
            satellite(commands=tmp_path / wrong)
    (tmp_path / "memory").mkdir(exist_ok=True)
    with (tmp_path / "memory" / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is at work with it"):
            satellite()
    shutil.rmtree(tmp_path / "memory")
    (tmp_path / "memory").write_text("a file")
    with pytest.raises(InputError, match="wanted a folder of the payload's"):
        satellite()


def test_what_goes_up_wants_a_guard(tmp_path: Path) -> None:
    text = (MISSIONS / "phisat2.toml").read_text()
    bare = re.sub(r"(?ms)^\[protection\].*?(?=^\[|\Z)", "", text)
    (tmp_path / "bare.toml").write_text(bare)
    request = Request("demo:64", tmp_path / "out", str(tmp_path / "bare.toml"), uplink=Uplink(upload="edge"))
    with pytest.raises(InputError, match=r"no \[protection\]"):
        downlink(request, lambda stage, total: None)
