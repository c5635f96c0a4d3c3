"""The onboard store: what was acknowledged is there after any cut, and a scene goes on behind its last tile."""

import errno
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import ArrayScene

from payload.bundle import load_bundle
from payload.errors import StreamError
from payload.guard.telemetry import EventId
from payload.link.streams import Stream
from payload.pipeline import Payload
from payload.policy import Gate, Policy, Protection
from payload.scene import SceneInfo
from payload.sensor import RGBN
from payload.store import record, state
from payload.store.files import FolderFiles
from payload.store.record import Kind, Record
from payload.store.recorder import Recorded, record_scene, send_scene
from payload.store.store import Store

ROOM = 1 << 24
records = st.builds(
    Record, st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=60)
)


@given(records)
def test_unpack_is_the_inverse_of_pack(one: Record) -> None:
    assert record.unpack(record.pack(one)) == one


def test_octets_of_a_record_by_hand() -> None:
    packed = record.pack(Record(Kind.TILE, 7, 3, b"ab"))
    assert packed[:-4].hex() == "4e5201020000000700000003000000026162"
    with pytest.raises(StreamError, match="cut short"):
        record.unpack(packed[:-1])


@given(st.lists(records, max_size=4), st.binary(max_size=40), st.integers(0, 4))
def test_whole_records_are_found_whatever_lies_between_them(ones: list[Record], junk: bytes, place: int) -> None:
    packed = [record.pack(one) for one in ones]
    octets = b"".join([*packed[:place], junk, *packed[place:]])
    assert [found.record for found in record.scan(BytesIO(octets))] == ones


@given(st.builds(state.State, *([st.integers(0, 2**16 - 1)] * 1), clean=st.booleans(), sent=st.integers(0, 9)))
def test_a_state_reads_back_and_a_damaged_one_is_none(now: state.State) -> None:
    slot = state.pack(now)
    assert (state.unpack(slot), len(slot)) == (now, state.SLOT_OCTETS)
    assert state.unpack(bytes([slot[0] ^ 1]) + slot[1:]) is None


@pytest.fixture
def payload(toy_bundle_with_gate: Path, toy_engine: Any) -> Payload:
    policy = Policy(gate=Gate(audit_count=1))
    return Payload(load_bundle(toy_bundle_with_gate), policy, toy_engine, Protection(network_tiles=2))


@pytest.fixture
def scene(ground_of: Any) -> ArrayScene:
    dn = ground_of(3, 2, bright=((0, 1), (1, 1), (2, 0)))
    return ArrayScene(SceneInfo("made up", *dn.shape[1:], RGBN, 10.0), dn, np.ones(dn.shape[1:], bool))


def all_packets(payload: Payload, store: Store, octets: int | None = None) -> list[bytes]:
    packets: list[bytes] = []
    while waiting := list(store.waiting()):
        packets += send_scene(payload, store, waiting[0], octets)
    return packets


def sent(payload: Payload, scene: ArrayScene, header: Any) -> list[bytes]:
    """What `transmit` sends but for its own housekeeping, which the store has none of."""
    telemetry = payload.policy.apid + Stream.TELEMETRY
    return [p for p in payload.transmit(scene, header) if int.from_bytes(p[:2], "big") & 2047 != telemetry]


@pytest.mark.parametrize("budget_octets", [None, 20_000])
def test_a_stored_scene_goes_down_as_one_that_was_never_stored(
    payload: Payload, scene: ArrayScene, tmp_path: Path, budget_octets: int | None
) -> None:
    payload.policy = Policy(gate=Gate(audit_count=1), budget_octets=budget_octets)
    store = Store(FolderFiles(tmp_path / "s", ROOM))
    done = record_scene(payload, store, scene)
    assert (done.complete, done.stored, done.coded) == (True, 6, 6)
    header = payload.header_of(scene, done.scene_id or 0)
    assert all_packets(payload, store, octets=3000) == sent(payload, scene, header)
    assert [p.name for p in (tmp_path / "s").iterdir()] == ["state"]


@pytest.mark.parametrize("stop", range(7))
def test_a_scene_goes_on_behind_its_last_tile_and_its_octets_are_the_same(
    payload: Payload, scene: ArrayScene, tmp_path: Path, stop: int
) -> None:
    class CutError(Exception):
        pass

    seen: list[Any] = []

    def cut(address: Any) -> None:
        seen.append(address)
        if len(seen) == stop:
            raise CutError

    if stop:
        with pytest.raises(CutError):
            record_scene(payload, Store(FolderFiles(tmp_path / "s", ROOM)), scene, cut)
    store = Store(FolderFiles(tmp_path / "s", ROOM))
    done = record_scene(payload, store, scene)
    assert (done.scene_id, done.stored, done.coded, done.complete) == (1, 6, 6 - stop, True)
    assert all_packets(payload, store) == sent(payload, scene, payload.header_of(scene, 1))
    events = [event.event for event in store.telemetry.take()]
    assert (EventId.UNCLEAN_START in events, EventId.RESUMED in events) == (stop > 0, stop > 0)


def test_a_torn_record_is_cut_off_and_its_tile_is_pending(payload: Payload, scene: ArrayScene, tmp_path: Path) -> None:
    store = Store(FolderFiles(tmp_path / "s", ROOM))
    record_scene(payload, store, scene)
    complete = (tmp_path / "s" / "00000001.scene").read_bytes()
    whole = [found.end for found in record.scan(BytesIO(complete))]
    for cut in (*whole[1:-1:3], whole[3] - 1, whole[3] + 5):
        for path in (tmp_path / "s").glob("0*"):
            path.unlink()
        (tmp_path / "s" / "state").unlink()
        (tmp_path / "s" / "00000001.part").write_bytes(complete[:cut])
        store = Store(FolderFiles(tmp_path / "s", ROOM))
        assert (tmp_path / "s" / "00000001.part").stat().st_size == max(end for end in whole if end <= cut)
        assert record_scene(payload, store, scene).complete
        assert all_packets(payload, store) == sent(payload, scene, payload.header_of(scene, 1))


def test_a_record_that_rots_becomes_a_hole_that_is_told(payload: Payload, scene: ArrayScene, tmp_path: Path) -> None:
    record_scene(payload, Store(FolderFiles(tmp_path / "s", ROOM)), scene)
    path = tmp_path / "s" / "00000001.scene"
    octets = bytearray(path.read_bytes())
    tile = [found for found in record.scan(BytesIO(bytes(octets))) if found.record.kind is Kind.TILE][1]
    octets[tile.begin + 40] ^= 4
    path.write_bytes(bytes(octets))
    store = Store(FolderFiles(tmp_path / "s", ROOM))
    assert EventId.STORE_DAMAGED in [event.event for event in store.telemetry.take()]
    (log,) = store.waiting()
    assert len(log.tiles) == 5
    assert all_packets(payload, store)


class FullAt(FolderFiles):
    """A disk that is full at its n-th write, of which a part is written all the same."""

    def __init__(self, folder: Path, writes: int) -> None:
        self.writes = writes
        super().__init__(folder, ROOM)

    def append(self, name: str, octets: bytes) -> None:
        self.writes -= 1
        if self.writes == 0:
            super().append(name, octets[: len(octets) // 2])
            raise OSError(errno.ENOSPC, "full")
        super().append(name, octets)


@pytest.mark.parametrize("write", range(2, 18))
def test_a_store_that_is_full_at_any_write_loses_nothing_and_goes_on_when_there_is_room(
    payload: Payload, scene: ArrayScene, tmp_path: Path, write: int
) -> None:
    told: list[Any] = []
    files = FullAt(tmp_path / "s", write)
    store = Store(files)
    done = record_scene(payload, store, scene, told.append)
    if not done.complete:
        assert EventId.STORE_FULL in [event.event for event in store.telemetry.take()]
        again = Store(FolderFiles(tmp_path / "s", ROOM))
        assert all(set(told) <= set(log.tiles) for log in again.scenes.values())
        done = record_scene(payload, again, scene)
        store = again
    assert done.complete
    packets = all_packets(payload, store)
    assert packets == sent(payload, scene, payload.header_of(scene, done.scene_id or 0))


def test_the_capacity_is_a_full_disk_and_what_is_sent_makes_room(
    payload: Payload, scene: ArrayScene, tmp_path: Path
) -> None:
    files = FolderFiles(tmp_path / "s", 60_000)
    store = Store(files)
    while record_scene(payload, store, scene).complete:
        pass
    assert files._used <= 60_000
    assert all_packets(payload, store)
    assert record_scene(payload, store, scene).complete


def test_an_id_is_never_given_twice_even_where_the_state_is_lost(
    payload: Payload, scene: ArrayScene, tmp_path: Path
) -> None:
    record_scene(payload, Store(FolderFiles(tmp_path / "s", ROOM)), scene)
    (tmp_path / "s" / "state").write_bytes(b"\xff" * 1024)
    store = Store(FolderFiles(tmp_path / "s", ROOM))
    assert store.state.now.next_scene_id == 2
    assert EventId.STORE_DAMAGED in [event.event for event in store.telemetry.take()]


def test_a_pass_that_ends_goes_on_in_the_next_with_the_next_count(
    payload: Payload, scene: ArrayScene, tmp_path: Path
) -> None:
    store = Store(FolderFiles(tmp_path / "s", ROOM))
    record_scene(payload, store, scene)
    (log,) = store.waiting()
    first = list(send_scene(payload, store, log, 4000))
    store = Store(FolderFiles(tmp_path / "s", ROOM))
    packets = first + all_packets(payload, store)
    assert packets == sent(payload, scene, payload.header_of(scene, 1))
    record_scene(payload, store, scene)
    (one, *_) = all_packets(payload, store)
    layers = [p for p in packets if p[:2] == one[:2]]
    assert int.from_bytes(one[2:4], "big") & 0x3FFF == len(layers)


def test_only_one_file_stays_open(payload: Payload, scene: ArrayScene, tmp_path: Path) -> None:
    store = Store(FolderFiles(tmp_path / "s", ROOM))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        record_scene(payload, store, scene)
        all_packets(payload, store)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


def test_files_of_a_stream_are_read_from_the_beginning(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path, ROOM)
    files.append("a", b"123")
    stream: BinaryIO = files.read("a")
    assert stream.read() == b"123"
    stream.close()


def test_a_scene_that_a_store_cannot_even_begin_is_not_begun(
    payload: Payload, scene: ArrayScene, tmp_path: Path
) -> None:
    Store(FolderFiles(tmp_path, 1 << 20))
    used = sum(path.stat().st_size for path in tmp_path.iterdir())
    full = Store(FolderFiles(tmp_path, used + 20))
    assert record_scene(payload, full, scene) == Recorded(None, 0, 0, False)
