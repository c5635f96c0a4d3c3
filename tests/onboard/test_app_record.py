"""Records of applications: octets by hand, one law, and nothing that is damaged is believed."""

from random import Random
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payload.errors import InputError, StreamError
from payload.link.app_record import OCTETS, AppRecord, Flag, pack, unpack
from payload.link.streams import Stream, stream_of


def random_record(seed: int) -> AppRecord:
    """Every field anywhere in its range; one draw of hypothesis, which is slow at eighteen of them."""
    rng = Random(seed)
    bits = rng.getrandbits
    total, place = rng.randint(1, 65535), rng.random() < 0.5
    signed = lambda: bits(32) - 2**31  # noqa: E731
    return AppRecord(
        bits(32), rng.randrange(total), total, bits(32), bits(8), signed(), signed(),
        (bits(32), bits(32), bits(16), bits(16)), Flag(bits(4)) | (Flag.PLACED if place else Flag(0)),
        rng.choice([None, 0, 65534]), rng.choice([None, "2026-04-18T10:51:07Z"]), rng.choice([None, 0, 100]),
        (signed(), signed()) if place else None,
    )  # fmt: skip


records = st.integers(0, 2**32 - 1).map(random_record)


def test_a_record_by_hand() -> None:
    record = AppRecord(
        0xA1A2A3A4, 1, 3, 0x0B0C0D0E, 4, -2, 500, (256, 512, 7, 3), Flag.ALERT | Flag.PLACED, 9,
        "1958-01-02T00:00:01.002Z", 77, (15_000_000, -2),
    )  # fmt: skip
    wanted = bytes.fromhex(
        "1d"  # 0001 version, 1101 mark
        "11"  # placed, alert
        "a1a2a3a4" "0001" "0003" "0b0c0d0e" "04" "0009"  # scene, number, of, application, indicator, site
        "0001" "000003ea" "0000"  # day 1, 1002 ms, 0 us
        "fffffffe" "000001f4" "4d"  # value, threshold, confidence
        "00000100" "00000200" "0007" "0003"  # top, left, height, width
        "00e4e1c0" "fffffffe"  # 1.5 degrees east, 0.0000002 south
    )  # fmt: skip
    assert pack(record) == wanted + crc32(wanted).to_bytes(4, "big")
    assert unpack(pack(record)) == record


def test_a_record_takes_twenty_to_sixty_octets_and_goes_down_with_the_alerts() -> None:
    octets = pack(AppRecord(1, 0, 1, 2, 3, 4, 5, (0, 0, 1, 1)))
    assert 20 <= len(octets) == OCTETS <= 60
    assert stream_of(octets) is Stream.ALERTS


@given(records)
def test_unpack_is_the_inverse_of_pack(record) -> None:
    assert unpack(pack(record)) == record


@given(records, st.integers(0, 8 * OCTETS - 1))
def test_a_flipped_bit_is_refused(record, bit) -> None:
    octets = bytearray(pack(record))
    octets[bit // 8] ^= 0x80 >> bit % 8
    with pytest.raises(StreamError):
        unpack(bytes(octets))


@given(st.binary(max_size=80))
def test_octets_of_anything_are_refused_in_words(octets) -> None:
    with pytest.raises(StreamError):
        unpack(octets)


def test_a_later_version_and_a_record_that_contradicts_itself_are_refused() -> None:
    octets = pack(AppRecord(1, 0, 1, 2, 3, 4, 5, (0, 0, 1, 1)))
    with pytest.raises(StreamError, match="version 2; this ground reads version 1"):
        unpack(b"\x2d" + octets[1:])
    contradiction = octets[:6] + b"\x00\x05" + octets[8:-4]  # number 5 of 1
    with pytest.raises(StreamError, match="number 5 of 1"):
        unpack(contradiction + crc32(contradiction).to_bytes(4, "big"))


def test_a_value_that_does_not_fit_is_named() -> None:
    with pytest.raises(InputError, match="does not fit its record"):
        pack(AppRecord(1, 0, 1, 2, 3, 2**31, 5, (0, 0, 1, 1)))
