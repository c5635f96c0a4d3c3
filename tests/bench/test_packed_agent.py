"""The zipapp holds all that runs on a board: its members against a walk of the disk, and a run out of the zip."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import hil
import payload
from hil.host.agent_zip import write_agent
from hil.line.code_id import SOURCES, agent_sources

#: Rooms of the bench that stay on the host. A new room is the agent's until it is named here.
OF_THE_HOST = {"host", "bench", "campaign", "commands", "profiles", "devices"}


def on_disk():
    """Names, as in the archive, of every source file that a board needs."""
    found = set()
    for package in (payload, hil):
        root = Path(package.__file__).parent
        for path in root.rglob("*"):
            inside = path.relative_to(root.parent)
            if path.suffix in SOURCES and "__pycache__" not in inside.parts:
                found.add(inside)
    keep = {path for path in found if path.parts[0] == "payload"}
    keep |= {
        path for path in found if path.parts[0] == "hil" and len(path.parts) > 2 and path.parts[1] not in OF_THE_HOST
    }
    return {path.as_posix() for path in keep} | {"hil/__init__.py"}


def members(agent):
    with zipfile.ZipFile(agent) as packed:
        return set(packed.namelist())


def test_no_file_of_payload_or_agent_is_missing_from_the_zip(tiny_bundle, tmp_path):
    packed = {name for name in members(write_agent(tiny_bundle, tmp_path)) if not name.startswith("bundle/")}
    assert packed == on_disk() | {"__main__.py"}
    assert len(packed) > 50


def test_a_sub_package_that_is_added_is_found(monkeypatch, tmp_path):
    """As files are walked: a flat listing once would have left a new room out."""
    room = tmp_path / "payload_made_up" / "deep" / "deeper"
    room.mkdir(parents=True)
    for folder in (room, room.parent, room.parents[1]):
        (folder / "__init__.py").write_text("")
    (room / "new.py").write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("hil.line.code_id.AGENT_ROOMS", ("payload_made_up",))
    assert "payload_made_up/deep/deeper/new.py" in agent_sources()


def test_every_module_in_the_zip_imports_out_of_the_zip(tiny_bundle, tmp_path):
    """Nothing of the checkout, nothing of the extras: what lies in the zip finds all it needs in the zip."""
    agent = write_agent(tiny_bundle, tmp_path)
    names = [name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in sorted(members(agent))
             if name.endswith(".py") and name != "__main__.py"]  # fmt: skip
    script = (
        f"import importlib, sys; sys.path.insert(0, {str(agent)!r})\n"
        f"for name in {names!r}:\n"
        "    found = importlib.import_module(name)\n"
        f"    assert found.__file__.startswith({str(agent)!r}), found.__file__\n"
    )
    clean = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, env=clean, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
