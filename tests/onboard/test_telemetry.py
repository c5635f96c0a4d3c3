"""Housekeeping and event records: one law over random values, and octets by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payload.errors import StreamError
from payload.guard.telemetry import (
    Count,
    Event,
    EventId,
    Housekeeping,
    Mode,
    Telemetry,
    pack_event,
    pack_housekeeping,
    unpack,
)

word = st.integers(0, 2**32 - 1)
half = st.integers(0, 2**16 - 2)
events = st.builds(
    Event, word, st.sampled_from(EventId), word, word, st.none() | st.tuples(half, half), st.text(max_size=40)
)
housekeeping = st.builds(
    Housekeeping, st.sampled_from(Mode), word, word, st.lists(word, max_size=255).map(tuple)
)


@given(events | housekeeping)
def test_unpack_is_the_inverse_of_pack(record: Event | Housekeeping) -> None:
    octets = pack_event(record) if isinstance(record, Event) else pack_housekeeping(record)
    assert unpack(octets) == record


@given(st.binary(max_size=80))
def test_octets_that_are_no_record_are_refused_and_nothing_else(octets: bytes) -> None:
    try:
        unpack(octets)
    except StreamError as error:
        assert "no housekeeping or event record" in str(error)


def test_octets_by_hand() -> None:
    record = Housekeeping(Mode.FALLBACK, 0xA1A2A3A4, 60, (1, 2))
    assert pack_housekeeping(record).hex() == "11" "01" "a1a2a3a4" "0000003c" "02" "00000001" "00000002"
    event = Event(7, EventId.MEMORY_HIT, 60, 0xA1A2A3A4, (1, 2), "ab")
    assert pack_event(event).hex() == "12" "0a" "00000007" "0000003c" "a1a2a3a4" "0001" "0002" "6162"
    with pytest.raises(StreamError):
        unpack(bytes.fromhex("2101"))


def test_a_counter_that_the_sender_did_not_know_reads_as_zero() -> None:
    assert Housekeeping(Mode.NOMINAL, 0, 0, (5,))[Count.ROLLBACKS] == 0


def test_events_are_numbered_and_the_oldest_go_first_where_too_many_wait() -> None:
    log = Telemetry(clock=lambda: -5.0)  # a clock before its epoch reads 0
    for _ in range(2000):
        log.tell(EventId.LATE_TILE)
    taken = log.take()
    assert (len(taken), taken[-1].number, taken[0].number, taken[0].time_s) == (1024, 2000, 977, 0)
    assert log.take() == []
