"""The guard: nothing that was hit reaches a tile code that leaves, and every hit is told."""

import ctypes
import gc
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from payload.bundle import load_bundle
from payload.codec.interface import CodedTile
from payload.codec.lapped.codec import FsqCodec
from payload.codec.lapped.compiled_layers import EntropyKernel
from payload.codec.lapped.tables import load_tables
from payload.engine import open_engine
from payload.errors import BundleError, InputError
from payload.guard.telemetry import Count, EventId, Mode
from payload.guard.twins import Mended, Scrubber, octets_of
from payload.guard.vector import Vector, known_vectors, short_test
from payload.link.tile_code import Kind, TileCode
from payload.memory import Held
from payload.native import library
from payload.pipeline import Payload
from payload.policy import Gate, Policy, Protection
from payload.scene import SceneInfo
from payload.sensor import RGBN

needs_kernel = pytest.mark.skipif(not library.available, reason="the compiled kernel is not built")


class Imager:
    """Does something before it hands over the strip of a row: what hits the payload while a scene is coded."""

    def __init__(self, dn: np.ndarray) -> None:
        self.info = SceneInfo("made up", *dn.shape[1:], RGBN, 10.0)
        self._dn = dn
        self.before: dict[int, Any] = {}

    def read(self, row_px: int, col_px: int, height_px: int, width_px: int) -> Any:
        self.before.pop(row_px // 64, lambda: None)()
        dn = self._dn[:, row_px : row_px + height_px, col_px : col_px + width_px]
        return dn, np.ones(dn.shape[1:], bool)


@pytest.fixture(autouse=True)
def no_hit_is_left_behind() -> Iterator[None]:
    """Tables that codecs share are made anew behind every test."""
    yield
    FsqCodec.forget()


@pytest.fixture
def scene(ground_of: Any) -> Imager:
    return Imager(ground_of(3, 2, bright=((1, 1),)))


@pytest.fixture
def guarded(toy_bundle_with_gate: Path, toy_engine: Any) -> Any:
    def build(protection: Protection | None = None, **policy: Any) -> Payload:
        bundle = load_bundle(toy_bundle_with_gate)
        return Payload(bundle, Policy(gate=Gate(audit_count=1), **policy), toy_engine, protection or Protection())

    return build


@pytest.fixture
def clean(guarded: Any, scene: Imager) -> list[TileCode]:
    payload = guarded()
    payload.guard = None
    return list(payload.tile_codes(scene))


def flip(held: Held, octet: int = 0, mask: int = 0x40) -> None:
    octets_of(held)[octet] ^= mask


def twin_of(payload: Payload, name: str) -> Any:
    assert payload.guard is not None
    return next(twin for twin in payload.guard.scrubber.twins if twin.held.name == name)


def events(payload: Payload) -> list[EventId]:
    return [event.event for event in payload.telemetry.take()]


def test_protection_changes_no_octet_where_nothing_is_hit(guarded: Any, scene: Imager, clean: list[TileCode]) -> None:
    for protection in (Protection(), Protection(scrub_octets=1024, network_tiles=4), Protection(read_back=True)):
        payload = guarded(protection)
        assert list(payload.tile_codes(scene)) == clean
        assert payload.telemetry.counts[Count.MEMORY_HITS] == payload.telemetry.counts[Count.RECODED] == 0


def test_a_hit_in_any_held_memory_at_any_time_changes_no_tile(
    guarded: Any, scene: Imager, clean: list[TileCode]
) -> None:
    """One bit of every array and structure, before the scene or behind its first strip; small slices and whole ones."""
    payload = guarded(Protection(self_test=False))
    for number, twin in enumerate(payload.guard.scrubber.twins):
        place = (number * 7919) % twin.held.octets
        scene.before = {number % 3: lambda twin=twin, place=place: flip(twin.held, place)}
        payload.guard.protection = Protection(self_test=False, scrub_octets=(2048, 1 << 20)[number % 2])
        assert list(payload.tile_codes(scene)) == clean, twin.held.name
        assert payload.telemetry.counts[Count.MEMORY_HITS] == number + 1, twin.held.name


def test_without_the_guard_a_hit_spoils_tiles(guarded: Any, scene: Imager, clean: list[TileCode]) -> None:
    payload = guarded()
    flip(twin_of(payload, "power_law").held, 2 * 1500 + 1)
    payload.guard = None
    assert list(payload.tile_codes(scene)) != clean


def test_a_copy_that_is_hit_is_mended_from_the_memory(guarded: Any, scene: Imager, clean: list[TileCode]) -> None:
    payload = guarded()
    twin_of(payload, "power_law").copy[77] ^= 1
    assert list(payload.tile_codes(scene)) == clean
    assert EventId.COPY_HIT in events(payload)


def test_where_memory_and_copy_are_hit_the_golden_copy_is_loaded(
    guarded: Any, scene: Imager, clean: list[TileCode]
) -> None:
    payload = guarded()
    twin = twin_of(payload, "power_law")

    def hit() -> None:
        flip(twin.held, 9)
        twin.copy[5] ^= 1

    scene.before = {1: hit}
    assert list(payload.tile_codes(scene)) == clean
    told = events(payload)
    assert EventId.UNMENDED_HIT in told and EventId.RELOADED in told
    assert payload.telemetry.mode is Mode.NOMINAL


def test_where_the_golden_copy_is_damaged_tiles_go_by_fallback(
    toy_bundle_with_gate: Path, tmp_path: Path, toy_engine: Any, scene: Imager
) -> None:
    pytest.importorskip("imagecodecs", reason="fallback tiles are JPEG 2000")
    import shutil

    shutil.copytree(toy_bundle_with_gate, tmp_path / "b")
    payload = Payload(load_bundle(tmp_path / "b"), Policy(), toy_engine, Protection())
    (tmp_path / "b" / "flight" / "tables.npz").write_bytes(b"hit")
    for twin in payload.guard.scrubber.twins[:1]:  # type: ignore[union-attr]
        flip(twin.held)
        twin.copy[0] ^= 1
    codes = list(payload.tile_codes(scene))
    assert {code.kind for code in codes} == {Kind.FALLBACK}
    assert payload.telemetry.mode is Mode.FALLBACK
    assert EventId.FALLBACK in events(payload)


def test_where_nothing_helps_tiles_are_declared_and_not_sent(
    guarded: Any, scene: Imager, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = guarded()

    def gone() -> None:
        raise InputError("not here")

    monkeypatch.setattr(payload, "reopen", gone)
    monkeypatch.setattr(payload, "fall_back", gone)
    twin = twin_of(payload, "power_law")
    flip(twin.held)
    twin.copy[0] ^= 1
    assert {code.kind for code in payload.tile_codes(scene)} == {Kind.OMITTED}
    assert payload.telemetry.mode is Mode.SAFE


def test_a_network_that_answers_otherwise_is_loaded_again_and_all_that_waits_is_coded_again(
    guarded: Any, scene: Imager, clean: list[TileCode], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate's network begins to withhold everything behind the first strip; the codes that left are right."""
    payload = guarded(Protection(network_tiles=5))
    network = payload.clouds.network
    right = network.run
    scene.before = {1: lambda: monkeypatch.setattr(network, "run", lambda *inputs: [right(*inputs)[0][:, ::-1]])}
    assert list(payload.tile_codes(scene)) == clean
    told = events(payload)
    assert EventId.NETWORK_HIT in told and EventId.RELOADED in told
    assert payload.telemetry.counts[Count.RECODED] == 5


def test_an_error_out_of_hit_memory_is_mended_and_the_tile_is_coded(
    guarded: Any, scene: Imager, clean: list[TileCode], monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = guarded()
    encode = payload.codec.encode
    fail = [True]

    def faulty(*arguments: Any) -> CodedTile:
        if fail and fail.pop():
            raise IndexError("out of hit memory")
        return encode(*arguments)

    scene.before = {1: lambda: monkeypatch.setattr(payload.codec, "encode", faulty)}
    assert list(payload.tile_codes(scene)) == clean
    assert EventId.ENCODER_FAULT in events(payload)


def test_reading_back_finds_what_changed_while_a_tile_was_coded(
    guarded: Any, scene: Imager, clean: list[TileCode], monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = guarded(Protection(read_back=True))
    encode = payload.codec.encode
    calls = []

    def sometimes(*arguments: Any) -> CodedTile:
        calls.append(1)
        coded = encode(*arguments)
        if len(calls) == 4:
            return CodedTile(coded.side, (coded.layers[0][:-1] + b"\x55", *coded.layers[1:]), coded.errors)
        return coded

    monkeypatch.setattr(payload.codec, "encode", sometimes)
    assert list(payload.tile_codes(scene)) == clean
    assert EventId.READ_BACK_FAILED in events(payload)


def test_the_wrong_answer_to_the_self_test_is_told_and_leads_to_fallback(
    toy_bundle_with_gate: Path, toy_engine: Any, scene: Imager
) -> None:
    pytest.importorskip("imagecodecs", reason="fallback tiles are JPEG 2000")
    payload = Payload(load_bundle(toy_bundle_with_gate), Policy(), toy_engine, Protection())
    assert payload.guard is not None
    payload.guard._vectors[payload.bundle.bundle_id] = Vector(1, 2)
    list(payload.tile_codes(scene))
    assert EventId.SELF_TEST_FAILED in events(payload)
    assert payload.telemetry.mode is Mode.FALLBACK


def test_a_tile_beyond_its_deadline_is_told_with_its_place_and_kept(
    guarded: Any, scene: Imager, clean: list[TileCode], monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = guarded(Protection(tile_deadline_s=60.0))
    assert list(payload.tile_codes(scene)) == clean and EventId.LATE_TILE not in events(payload)
    clock = iter(range(0, 10_000, 61))
    monkeypatch.setattr("payload.guard.guard.time.monotonic", lambda: float(next(clock)))
    assert list(payload.tile_codes(scene)) == clean
    late = [event for event in payload.telemetry.take() if event.event is EventId.LATE_TILE]
    assert [event.tile for event in late] == [(code.row, code.col) for code in clean if code.kind is not Kind.AUDIT]
    assert payload.telemetry.counts[Count.LATE_TILES] == len(late)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_the_guards_watchdog_ends_a_payload_that_hangs_and_no_other(guarded: Any, scene: Imager) -> None:
    """In a process of its own, the second time with an imager that hangs before its second strip."""
    payload = guarded(Protection(watchdog_s=2.0))
    for hangs in (False, True):
        scene.before = {1: lambda: time.sleep(600)} if hangs else {}
        pid = os.fork()
        if pid == 0:
            list(payload.tile_codes(scene))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert status == (signal.SIGALRM if hangs else 0)


def reachable(owner: Any, found: dict[int, Any], seen: set[int]) -> None:
    """Every array and ctypes structure that hangs on an object."""
    if id(owner) in seen or isinstance(owner, (str, bytes, int, float, type)):
        return
    seen.add(id(owner))
    if isinstance(owner, (np.ndarray, ctypes.Structure)):
        found[id(owner)] = owner
        return
    children = owner.values() if isinstance(owner, dict) else owner if isinstance(owner, (list, tuple)) else ()
    for child in (*children, *getattr(owner, "__dict__", {}).values()):
        reachable(child, found, seen)


@needs_kernel
@pytest.mark.parametrize("bundle", ["edge", "corsa-fpn3-256"])
def test_every_array_of_a_codec_is_held_or_written_anew_for_every_tile(bundle: str) -> None:
    from payload.engine import open_engine

    payload = Payload(load_bundle(bundle), Policy(), open_engine("native"), Protection(self_test=False))
    held = {id(twin.held.memory) for twin in payload.guard.scrubber.twins}  # type: ignore[union-attr]
    anew: dict[int, Any] = {}
    entropy, buffers = getattr(payload.codec, "_entropy", None), getattr(payload.codec, "_buffers", None)
    reachable(buffers, anew, set())
    rooms = ("_scratch", "_magnitude", "_out", "_ends", "_room", "_dense")
    reachable([getattr(entropy, name, None) for name in rooms], anew, set())
    every: dict[int, Any] = {}
    reachable([payload.codec, payload.clouds and payload.clouds.exponentials], every, set())
    gc.collect()
    runtimes = [a for a in every.values() if isinstance(a, np.ndarray) and a.base is not None and a.dtype.kind == "f"]
    lost = [a for key, a in every.items() if key not in held | anew.keys() and not any(a is r for r in runtimes)]
    assert [getattr(a, "shape", a) for a in lost] == []


@needs_kernel
def test_the_kernel_follows_no_pointer_that_was_hit(make_tables: Any, tmp_path: Path) -> None:
    """Every bit of every pointer of the structures: refused, where the tree before ended in a segmentation fault."""
    coder = EntropyKernel(load_tables(make_tables(tmp_path / "t.npz")), 8, 8)
    layers = coder.encode_layers(_indices())
    for structure in (coder._model, coder._layers[0]):
        for name in type(structure).arrays:
            at = getattr(type(structure), name).offset
            octets = octets_of(Held("structure", "pointers", structure))
            for bit in range(64):
                octets[at + bit // 8] ^= 1 << bit % 8
                with pytest.raises(BundleError, match="tables in memory are not those"):
                    coder.encode_layers(_indices())
                octets[at + bit // 8] ^= 1 << bit % 8
    assert coder.encode_layers(_indices()) == layers


def _indices() -> Any:
    from payload.codec.lapped.quantiser import Indices

    rng = np.random.default_rng(3)
    magnitude = (rng.random((256, 8, 8)) < 0.1).astype(np.uint16) * 3
    return Indices(magnitude, rng.random(magnitude.shape) < 0.5)


@pytest.mark.parametrize("kernel", [False, pytest.param(True, marks=needs_kernel)])
def test_every_octet_of_every_piece_is_compared_by_kernel_and_c_library_alike(
    kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "available", kernel)
    arrays = [np.arange(n, dtype=np.uint8) for n in (1, 7, 64, 200)]
    scrubber = Scrubber(Held(f"a{k}", "tables", a) for k, a in enumerate(arrays))
    assert scrubber.all() == [] == Scrubber(()).all()
    for number, array in enumerate(arrays):
        for place in range(len(array)):
            array[place] ^= 128
            assert [(hit.name, hit.mended) for hit in scrubber.all()] == [(f"a{number}", Mended.MEMORY)]
            assert array[place] == place


def test_slices_go_round_through_all_memory() -> None:
    arrays = [np.arange(n, dtype=np.uint8) for n in (100, 50, 300, 7)]
    scrubber = Scrubber(Held(f"a{k}", "tables", a) for k, a in enumerate(arrays))
    arrays[3][2] ^= 8
    found = [scrubber.scrub(150) for _ in range(3)]
    assert [[(h.name, h.mended) for h in hits] for hits, _ in found] == [[], [], [("a3", Mended.MEMORY)]]
    assert [complete for _, complete in found] == [False, False, True]
    assert arrays[3].tolist() == list(range(7))


def test_the_shipped_bundles_have_their_answers() -> None:
    from payload.bundle import shipped_bundles

    assert {load_bundle(name).bundle_id for name in shipped_bundles()} == set(known_vectors())


@pytest.mark.parametrize("engine", ["native", "openvino", "onnxruntime"])
def test_the_known_tile_has_its_known_octets_under_every_engine(engine: str) -> None:
    from payload.engine import open_engine

    if engine == "native" and not library.available:
        pytest.skip("the compiled kernel is not built")
    if engine != "native":
        pytest.importorskip(engine)
    payload = Payload(load_bundle("edge"), Policy(), open_engine(engine), Protection())
    assert payload.guard is not None and payload.guard.self_test("now")
    assert EventId.VECTOR_LEARNT not in events(payload)


@needs_kernel
@pytest.mark.parametrize("engine", ["native", "openvino"])
def test_the_short_test_notices_weights_and_scales(engine: str) -> None:
    pytest.importorskip("openvino")
    payload = Payload(load_bundle("edge"), Policy(), open_engine(engine), Protection())
    assert payload.guard is not None
    short = short_test(payload.codec, 4)
    assert short is not None and short.passes()
    for name in ("power_law", "transform.weights", "rotation.cosines", "kernel.layer0.base", "second_level"):
        twin = twin_of(payload, name)
        octets_of(twin.held)[::2] ^= 1
        assert not short.passes(), name
        twin.mend()
        assert short.passes(), name
