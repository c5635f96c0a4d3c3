"""Networks that a process compiles once: which are the same, who may ask, and that scenes come out as they do alone."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from payload.bundle import load_bundle
from payload.clouds.network import load_cloud_net
from payload.engine import open_engine
from payload.errors import InputError
from sim.downlink import Request, downlink
from sim.ground.residual_network import ResidualNetwork, open_network
from sim.onboard import kept_engine
from sim.onboard.kept_engine import KeptEngine
from sim.progress import silent


class Counted:
    """An engine that counts what it loads; a network gives what it is given and the number of its file's octets."""

    name, version, reshapes = "openvino", "1", True

    def __init__(self) -> None:
        self.loaded: list[tuple] = []

    def load(self, path: Path, require_int8: bool = False, shape: tuple[int, ...] | None = None) -> "Counted":
        self.loaded.append((path.name, require_int8, shape))
        return self

    def run(self, *inputs):
        return [array + len(self.loaded) for array in inputs]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.xml"
    path.write_bytes(b"graph")
    path.with_suffix(".bin").write_bytes(b"weights")
    return path


def test_a_network_is_loaded_once_and_anew_where_its_octets_or_the_request_differ(file: Path) -> None:
    counted = Counted()
    engine = KeptEngine(counted)
    assert (engine.name, engine.version, engine.reshapes) == ("openvino", "1", True)
    first = engine.load(file)
    copy = file.with_name("another.xml")
    copy.write_bytes(file.read_bytes())
    copy.with_suffix(".bin").write_bytes(b"weights")
    assert engine.load(file) is first and engine.load(copy) is first
    file.with_suffix(".bin").write_bytes(b"others")  # rebuilt in its place
    assert engine.load(file) is not first
    others = {id(engine.load(copy, True)), id(engine.load(copy, False, (1, 2))), id(engine.load(copy, False, (1, 3)))}
    assert len(others) == 3 and id(first) not in others and len(counted.loaded) == 5
    assert first.run(np.zeros(1))[0] == [5]


def test_the_newest_are_kept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_engine, "MOST_KEPT", 2)
    counted = Counted()
    engine = KeptEngine(counted)
    for side in (1, 2, 1, 3, 1, 2):  # 2 has gone when 3 came, since 1 was asked for after it
        engine.load(file, shape=(side,))
    assert [shape for _, _, shape in counted.loaded] == [(1,), (2,), (3,), (2,)]


def test_one_engine_a_name_and_an_unknown_one_is_refused() -> None:
    assert kept_engine.kept_engine("native") is kept_engine.kept_engine("native")
    with pytest.raises(InputError, match="choose one of"):
        kept_engine.kept_engine("abacus")


def test_several_ask_a_kept_network_and_each_gets_its_own_answer() -> None:
    bundle, engine = load_bundle(), KeptEngine(open_engine())
    nets = [load_cloud_net(bundle, engine).network for _ in range(2)]
    assert nets[0] is nets[1]
    (shape,) = {load_cloud_net(bundle, open_engine()).network._given.shape}
    asked = [np.random.default_rng(n).integers(0, 255, shape).astype(np.uint8) for n in range(24)]
    alone = [load_cloud_net(bundle, open_engine()).network.run(one)[0] for one in asked[:6]]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: nets[0].run(one)[0], asked))
    assert all(np.array_equal(a, b) for a, b in zip(alone, found, strict=False))


def test_the_ground_decodes_as_with_the_engine_itself() -> None:
    bundle = load_bundle()
    assert isinstance(open_network(bundle.file("ground/decoder.onnx"), KeptEngine(open_engine())), ResidualNetwork)


def test_scenes_come_out_of_a_process_that_keeps_its_networks_as_they_do_alone(tmp_path: Path) -> None:
    engine = KeptEngine(open_engine())
    for seed in range(2):
        kept = downlink(Request("demo:256", tmp_path / f"kept{seed}", engine=engine, seed=seed), silent)
        alone = downlink(Request("demo:256", tmp_path / f"alone{seed}", engine="openvino", seed=seed), silent)
        assert kept["rate"] == alone["rate"] and kept["quality"] == alone["quality"]
        for name in ("packets.bin", "reconstruction.tif", "cloud.tif"):
            assert (tmp_path / f"kept{seed}" / name).read_bytes() == (tmp_path / f"alone{seed}" / name).read_bytes()
