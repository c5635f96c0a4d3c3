"""Networks inside a runtime: asked for a known answer, as little as finds every hit."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from payload.bundle import load_bundle
from payload.engine import open_engine
from payload.guard.probes import HeardNetwork, Probe
from payload.memory import RunsInside
from payload.native import library
from payload.pipeline import Payload
from payload.policy import Policy, Protection

needs_kernel = pytest.mark.skipif(not library.available, reason="the compiled kernel is not built")


@needs_kernel
def test_behind_a_scene_a_runtime_is_asked_for_one_plane_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole tile through the encoder would cost a scene of 25 tiles a 25th."""
    pytest.importorskip("openvino")
    payload = Payload(load_bundle("edge"), Policy(), open_engine("openvino"), Protection())
    assert payload.guard is not None
    network = payload.codec._network.network  # type: ignore[attr-defined]
    asked, run = [], network.run

    def counted(*inputs: Any) -> Any:
        asked.append(len(inputs[0]))
        return run(*inputs)

    monkeypatch.setattr(network, "run", counted)
    assert payload.guard._find("after the scene", whole=False)
    assert asked == [1]


@needs_kernel
def test_the_encoder_inside_a_runtime_answers_otherwise_wherever_it_is_hit(tmp_path: Path) -> None:
    """Nobody can reach into a runtime: the hit copy is made of the bundle's own file of weights."""
    pytest.importorskip("openvino")
    engine = open_engine("openvino")
    bundle = load_bundle("edge")
    payload = Payload(bundle, Policy(), engine, Protection())
    assert payload.guard is not None
    probe = payload.guard.probes[0]
    right = payload.codec._network.network  # type: ignore[attr-defined]
    shutil.copy(bundle.file("flight/encoder.xml"), tmp_path)
    weights = bundle.file("flight/encoder.bin").read_bytes()
    rng = np.random.default_rng(9)
    for at in (0, len(weights) - 1, *rng.integers(len(weights), size=10)):
        hit = bytearray(weights)
        hit[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "encoder.bin").write_bytes(hit)
        payload.codec._network.network = engine.load(tmp_path / "encoder.xml", shape=(1, 64, 33, 33))  # type: ignore[attr-defined]
        assert not probe.passes(), at
    payload.codec._network.network = right  # type: ignore[attr-defined]
    assert probe.passes()


def test_what_the_self_test_did_not_ask_is_asked_anew() -> None:
    """An answer that was heard counts for the same question alone."""
    network = HeardNetwork(Doubling())
    probe = Probe(RunsInside("doubling", network, (np.arange(3),)))
    probe.listen(True)
    network.run(np.arange(4))
    assert probe.passes()
    network.run(np.arange(3))
    network.network.run = lambda *inputs: [inputs[0] * 3]  # type: ignore[method-assign]
    assert probe.passes()  # heard
    assert not probe.passes()  # asked


class Doubling:
    def run(self, *inputs: Any) -> list[Any]:
        return [inputs[0] * 2]
