"""Event records: one law over random values, and octets by hand; counters by their names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payload.errors import StreamError
from payload.guard.telemetry import Count, Event, EventId, Mode, Telemetry, named, pack_event, unpack

word = st.integers(0, 2**32 - 1)
half = st.integers(0, 2**16 - 2)
events = st.builds(
    Event, word, st.sampled_from(EventId), word, word, st.none() | st.tuples(half, half), st.text(max_size=40)
)


@given(events)
def test_unpack_is_the_inverse_of_pack(event: Event) -> None:
    assert unpack(pack_event(event)) == event


@given(st.binary(max_size=80))
def test_octets_that_are_no_record_are_refused_and_nothing_else(octets: bytes) -> None:
    try:
        unpack(octets)
    except StreamError as error:
        assert "no event record" in str(error)


def test_octets_by_hand() -> None:
    event = Event(7, EventId.MEMORY_HIT, 60, 0xA1A2A3A4, (1, 2), "ab")
    assert pack_event(event).hex() == "12" "0a" "00000007" "0000003c" "a1a2a3a4" "0001" "0002" "6162"
    with pytest.raises(StreamError):
        unpack(bytes.fromhex("2101"))


def test_a_status_has_every_counter_and_names_them() -> None:
    log = Telemetry(mode=Mode.SAFE, scene_id=9, guarded=True)
    log.count(Count.ROLLBACKS, 2)
    log.count(Count.TILES, 1 << 33)  # stops at its end
    status = log.status()
    assert (status.mode, status.scene_id, status[Count.ROLLBACKS], status[200]) == (2, 9, 2, 0)
    assert named(status.counts)["tiles"] == (1 << 32) - 1 and len(named((1, 2))) == 2


def test_what_was_told_before_the_payload_was_there_comes_first() -> None:
    earlier, log = Telemetry(), Telemetry(guarded=True)
    earlier.count(Count.ROLLBACKS)
    earlier.tell(EventId.ROLLED_BACK)
    log.adopt(earlier)
    log.tell(EventId.STARTED)
    assert [event.number for event in log.take()] == [1, 2] and log.status()[Count.ROLLBACKS] == 1
    assert Telemetry().status().counts == ()  # nobody guards: nothing is counted


def test_the_log_can_be_told_again() -> None:
    log = Telemetry()
    log.tell(EventId.STARTED)
    sent = log.take()
    assert log.take() == []
    log.tell_again()
    assert log.take() == sent


def test_events_are_numbered_and_the_oldest_go_first_where_too_many_wait() -> None:
    log = Telemetry(clock=lambda: -5.0)  # a clock before its epoch reads 0
    for _ in range(2000):
        log.tell(EventId.LATE_TILE)
    taken = log.take()
    assert (len(taken), taken[-1].number, taken[0].number, taken[0].time_s) == (1024, 2000, 977, 0)
    assert log.take() == []
