"""`hil run --place`: a stand-in of labgrid-client that keeps a diary and runs what it is told on this machine."""

import sys

import pytest

from hil.host.labgrid_place import CLIENT, place
from hil.host.transports import connector
from payload.errors import InputError

STAND_IN = """#!{python}
import pathlib, shutil, subprocess, sys
here = pathlib.Path(__file__).parent
words = sys.argv[1:]
with (here / "diary").open("a") as diary:
    diary.write(" ".join(words) + chr(10))
verb = next(word for word in words if word in ("acquire", "release", "scp", "ssh"))
rest = words[words.index(verb) + 1 :]
if "nobody" in words:
    sys.exit("labgrid-client: Error: place pattern nobody matches nothing")
if verb == "scp":
    shutil.copy(rest[0], here / "on-board")
if verb == "ssh":
    print("Selected role main from configuration file", flush=True)
    sys.exit(subprocess.call([rest[0], here / "on-board", *rest[2:]]))
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder on the path with the stand-in; the diary is in it."""
    client = tmp_path / CLIENT
    client.write_text(STAND_IN.format(python=sys.executable))
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def diary(lab):
    return [line.split()[2] for line in (lab / "diary").read_text().splitlines()]


def test_a_place_is_acquired_gets_the_agent_and_is_released_whatever_happens(lab, tiny_bundle):
    with pytest.raises(ZeroDivisionError), place("pi", None, tiny_bundle) as url:
        assert url.startswith("stdio:") and url.endswith("--stdio")
        assert connector(url, tiny_bundle.directory)
        assert (lab / "on-board").read_bytes()[:20] == b"#!/usr/bin/env pytho"
        raise ZeroDivisionError
    assert diary(lab) == ["acquire", "scp", "release"]


def test_what_labgrid_says_first_does_not_disturb_the_line(lab, tiny_bundle):
    with place(f"pi?python={sys.executable}", None, tiny_bundle) as url:
        started = connector(url, tiny_bundle.directory)()
        assert started.read(30.0).startswith(b"Selected role")
        started.close()


def test_a_place_that_is_not_there_and_a_client_that_is_not_there_are_one_line(lab, tiny_bundle, monkeypatch):
    with pytest.raises(InputError, match=r"place nobody: .*matches nothing.*show"), place("nobody", None, tiny_bundle):
        pass
    with pytest.raises(InputError, match="no such labgrid environment file"), place("pi", lab / "x.yaml", tiny_bundle):
        pass
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="pip install labgrid"), place("pi", None, tiny_bundle):
        pass
