"""A codec from outside: docs/your-own-codec.md followed to the letter, in processes that find it by its entry point."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from payload.bundle import bare_bundle
from payload.codec import registry
from payload.codec.registry import SHIPPED, open_codec, open_fallback
from payload.errors import BundleError
from payload.link.tile_code import Kind
from payload.sensor import RGBN

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your-own-codec.md").read_text(encoding="utf-8")


def files_of(page: str) -> dict[str, str]:
    """Every file whose name stands before a block of code."""
    return dict(re.findall(r"`([\w./-]+)`:\n\n```\w+\n(.*?)```", page, re.DOTALL))


def commands_of(page: str) -> list[list[str]]:
    """The lines of the blocks that are in no language."""
    blocks = re.findall(r"```(\w*)\n(.*?)```", page, re.DOTALL)
    return [line.split() for language, block in blocks if not language for line in block.splitlines()]


@pytest.fixture(scope="module")
def follower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the page was followed as far as `pip install`, which leaves a .dist-info folder on the path."""
    folder = tmp_path_factory.mktemp("follower")
    for name, text in files_of(PAGE).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    project = tomllib.loads((folder / "nadir-zlib" / "pyproject.toml").read_text())["project"]
    info = folder / "nadir-zlib" / "nadir_zlib-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = "".join(f"{k} = {v}\n" for k, v in project["entry-points"]["nadir.codecs"].items())
    (info / "entry_points.txt").write_text(f"[nadir.codecs]\n{points}")
    return folder


def run(follower: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(follower / "nadir-zlib"), str(ROOT)])
    command = [sys.executable, "-c", "from sim.cli import main; main()", *arguments]
    return subprocess.run(
        command, cwd=follower, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_page_on_your_own_codec_works_as_it_is_written(follower: Path) -> None:
    install, downlink, evaluate = commands_of(PAGE)
    assert install == ["pip", "install", "./nadir-zlib"]
    sent = run(follower, downlink[1:])
    assert sent.returncode in (0, 1), sent.stderr
    report = json.loads((follower / "out" / "zlib" / "report.json").read_text())
    assert report["inputs"]["bundle"]["codec"] == "zlib" and report["tiles"]["coded"] > 0
    figures = {metric["key"]: metric["value"] for metric in report["quality"]["metrics"]}
    assert figures["psnr_10k_db"] > 40  # steps of 200 DN or finer: an RMSE of 58 at most
    compared = run(follower, evaluate[1:])
    assert compared.returncode == 0, compared.stderr
    result = json.loads((follower / "out" / "rd" / "rd.json").read_text())
    assert set(result["codecs"]) == {"nadir-edge", "nadir-zlib", "klt-jpeg2000"}
    assert result["bd_rate"]["nadir-edge"]["klt-jpeg2000"]["mean_percent"] < 0
    curve = [(row["octets"], row["psnr_10k_db"]) for row in result["rows"] if row["codec"] == "nadir-zlib"]
    assert len(curve) > 10 and all(fine > coarse for coarse, fine in zip(curve[0], curve[-1], strict=True))


def test_a_codec_that_nothing_registers_is_refused_with_those_that_are_there(follower: Path) -> None:
    bundle = str(follower / "nadir-zlib" / "bundle")
    command = [sys.executable, "-c", "from sim.cli import main; main()", "downlink", "--scene", "demo:256"]
    command += ["--bundle", bundle, "--allow-unsigned"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "codec kind 'zlib' is unknown, wanted one of fsq, fsq-groups, none, vq" in done.stderr


def test_pyproject_registers_what_the_payload_falls_back_on() -> None:
    """A board that runs from one zip file has no metadata; both ways lead to the same classes."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["nadir.codecs"]
    assert declared == SHIPPED


@pytest.mark.parametrize("kind", ["fsq", "vq", "none"])
def test_shipped_codecs_are_found_without_metadata(monkeypatch, kind) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: ())
    bundle = bare_bundle("x", RGBN)
    assert open_fallback(bundle).code_kind is Kind.FALLBACK
    bundle.manifest["codec"] = {"kind": kind}
    if kind == "none":
        assert open_codec(bundle).layers == 1
    else:  # found, and asks for the tables that this bundle has not
        with pytest.raises(BundleError, match=r"no file flight/tables.npz"):
            open_codec(bundle)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("a:A", "b:B"), r"'mine' is registered 2 times \(a:A and b:B\); uninstall all packages but one"),
        (("nowhere.at.all:A",), "registered as nowhere.at.all:A, which does not load .*install its package again"),
        (("json:Nothing",), "registered as json:Nothing, which does not load"),
    ],
)
def test_a_registration_that_cannot_be_used_is_named(monkeypatch, values, said) -> None:
    points = tuple(EntryPoint("mine", value, "nadir.codecs") for value in values)
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    bundle = bare_bundle("x", RGBN)
    bundle.manifest["codec"] = {"kind": "mine"}
    with pytest.raises(BundleError, match=said):
        open_codec(bundle)
