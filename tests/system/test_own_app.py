"""An application from outside: docs/your-own-app.md followed to the letter, the class and the network."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from payload.apps.interface import Meter, TileView, View
from payload.apps.network_app import NetworkApp
from payload.bundle import load_bundle
from payload.engine import open_engine
from payload.tiles import Tile

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your-own-app.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`([\w./-]+)`:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = [
    line.split() for language, block in re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL) if not language
    for line in block.splitlines()
]  # fmt: skip


@pytest.fixture(scope="module")
def follower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the page was followed as far as `pip install`, which leaves a .dist-info folder on the path."""
    folder = tmp_path_factory.mktemp("follower")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    info = folder / "nadir-salt" / "nadir_salt-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nadir-salt\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[nadir.apps]\nsalt = nadir_salt:Salt\n")
    return folder


def run(follower: Path, code: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(follower / "nadir-salt"), str(ROOT)])
    command = [sys.executable, "-c", code, *arguments]
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(command, cwd=follower, env=environment, capture_output=True, text=True, check=False)


def answers_of(follower: Path, name: str) -> list[dict]:
    """What the page's mission of that name brings down."""
    main = "from sim.cli import main; main()"
    new, downlink = (
        next(c for c in COMMANDS if c[:2] == words and any(name in word for word in c))
        for words in (["sim", "mission"], ["sim", "downlink"])
    )
    assert run(follower, main, new[1:]).returncode == 0
    table = re.search(rf"```toml\n(\[apps\.{name}\].*?)```", PAGE, re.DOTALL)
    with (follower / f"{name}.toml").open("a", encoding="utf-8") as mission:
        mission.write("\n" + table.group(1))
    done = run(follower, main, downlink[1:])
    assert done.returncode in (0, 1), done.stderr
    features = json.loads((follower / f"{name}-run" / "answers.geojson").read_text())["features"]
    return [feature["properties"] for feature in features]


@pytest.mark.slow
def test_the_class_of_the_page_flies_and_answers(follower) -> None:
    answers = answers_of(follower, "salt")
    assert answers and all(one["indicator"] == 130 and one["alert"] for one in answers)


@pytest.mark.slow
def test_the_network_of_the_page_is_the_same_on_both_runtimes_and_says_what_it_should(follower) -> None:
    pytest.importorskip("onnx")
    made = run(follower, FILES["make_green.py"], [])
    assert made.returncode == 0, made.stderr
    build = next(c for c in COMMANDS if "--app" in c)
    done = run(follower, "import sys; from export.__main__ import main; sys.exit(main())", build[3:])
    assert done.returncode == 0, done.stderr
    bundle = load_bundle(follower / "my-edge")
    rng = np.random.default_rng(0)
    tile = Tile(0, 0, rng.integers(100, 9000, (4, 256, 256)).astype(np.uint16), np.ones((256, 256), bool))
    found = []
    for engine in ("openvino", "onnxruntime", "native"):
        app = NetworkApp("green", bundle, open_engine(engine))
        view = View(TileView(tile, bundle.sensor, None), (slice(0, 256), slice(0, 256)), Meter(1e9, 1e9))
        found.append(app.look(view))
    assert found[0] == found[1] == found[2]
    cells = tile.dn.reshape(4, 128, 2, 128, 2).astype(int).sum(axis=(2, 4))
    roots = np.minimum(np.sqrt(cells), 255).astype(int)
    assert found[0][0].counts == (4 * int((roots[1] > roots[3]).sum()),)
    assert any(one["alert"] for one in answers_of(follower, "green"))
