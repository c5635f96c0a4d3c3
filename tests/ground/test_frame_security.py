"""Frame security: GCM by its definition, the window, and what a changed, replayed or foreign frame comes to."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.errors import InputError, StreamError
from payload.link.frames.security import SECURITY_OCTETS, Opener, Sealer, Security, SecurityCounts, without_security
from payload.link.frames.stack import Stack, packets_on_air
from payload.link.frames.transfer_frame import Frame, FrameFormat, pack, unpack
from payload.link.space_packet import SequenceCounter, segment
from sim.link.frames.receiver import FrameReceiver
from sim.mission.spec import SHIPPED, load_mission

ciphers = pytest.importorskip("cryptography.hazmat.primitives.ciphers")
LAYOUT = FrameFormat("tm", 120, 42)
INNER = without_security(LAYOUT)


@pytest.fixture(scope="module")
def security(tmp_path_factory) -> Security:
    path = tmp_path_factory.mktemp("key") / "frames.key"
    path.write_text(bytes(range(32)).hex())
    return Security(str(path), spi=7, first_iv=5)


def frame(count: int = 0) -> bytes:
    return pack(Frame(2, count, 0, bytes((count + k) & 255 for k in range(INNER.data_octets))), INNER)


def aes(key: bytes, block: bytes) -> bytes:
    encryptor = ciphers.Cipher(ciphers.algorithms.AES(key), ciphers.modes.ECB()).encryptor()
    return encryptor.update(block)


def ghash(h: int, octets: bytes) -> int:
    """NIST SP 800-38D, 6.3 and 6.4, bit by bit."""
    y = 0
    for at in range(0, len(octets), 16):
        x, z, v = y ^ int.from_bytes(octets[at : at + 16], "big"), 0, h
        for bit in range(127, -1, -1):
            z ^= v if x >> bit & 1 else 0
            v = v >> 1 ^ (0xE1 << 120 if v & 1 else 0)
        y = z
    return y


def gcm(key: bytes, iv: bytes, plain: bytes, clear: bytes) -> bytes:
    """SP 800-38D, 7.1, over single AES blocks."""
    pad = [b"\0" * (-len(part) % 16) for part in (clear, plain)]
    stream = b"".join(aes(key, iv + (k + 2).to_bytes(4, "big")) for k in range(-(-len(plain) // 16)))
    text = bytes(a ^ b for a, b in zip(plain, stream, strict=False))
    lengths = (8 * len(clear)).to_bytes(8, "big") + (8 * len(text)).to_bytes(8, "big")
    s = ghash(int.from_bytes(aes(key, bytes(16)), "big"), clear + pad[0] + text + pad[1] + lengths)
    return text + (s ^ int.from_bytes(aes(key, iv + b"\0\0\0\1"), "big")).to_bytes(16, "big")


def test_gcm_by_hand_gives_the_standards_own_answer() -> None:
    assert gcm(bytes(32), bytes(12), bytes(16), b"").hex() == (
        "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
    )  # McGrew and Viega, test case 14


def test_a_sealed_frame_by_hand(security) -> None:
    sent = frame()
    sealed = Sealer(security, LAYOUT).seal(sent)
    clear = sent[:6] + bytes.fromhex("0007000000000000000000000005")  # header; SPI 7; number 5
    assert sealed[:-2] == clear + gcm(bytes(range(32)), clear[8:], sent[6:-2], clear)
    assert len(sealed) == LAYOUT.octets == len(sent) + SECURITY_OCTETS
    assert unpack(sealed, LAYOUT).channel == 2  # any receiver finds the frame, its channel and its count


@settings(max_examples=50)
@given(st.lists(st.integers(0, 90), max_size=60))
def test_each_frame_is_taken_once_in_any_order_within_the_window(security, order) -> None:
    sealer, opener = Sealer(security, LAYOUT), Opener(security, LAYOUT)
    sealed, taken, newest = [sealer.seal(frame(k)) for k in range(91)], set(), -1
    for number in order:
        wanted = number not in taken and number > newest - 64
        try:
            assert opener.open(sealed[number]) == frame(number) and wanted
        except StreamError:
            assert not wanted
        taken, newest = taken | ({number} if wanted else set()), max(newest, number)
    assert opener.counts == SecurityCounts(replayed=len(order) - len(taken))


def test_no_changed_bit_of_any_octet_is_taken(security) -> None:
    sealed = Sealer(security, replace(LAYOUT, fecf=False)).seal(frame()[:-2])
    opener = Opener(security, replace(LAYOUT, fecf=False))
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit >> 3] ^= 0x80 >> (bit & 7)
        with pytest.raises(StreamError):
            opener.open(bytes(changed))
    assert opener.open(sealed) == frame()[:-2]  # what was refused has not moved the window
    assert opener.counts == SecurityCounts(other_key=16, bad_mac=8 * len(sealed) - 16)


def test_frames_under_another_key_or_none_are_refused_and_counted(security, tmp_path) -> None:
    (tmp_path / "other.key").write_text("11" * 32)
    opener = Opener(security, LAYOUT)
    other = Sealer(Security(str(tmp_path / "other.key"), spi=7), LAYOUT)
    for hostile in (other.seal(frame()), pack(Frame(2, 0, 0, bytes(LAYOUT.data_octets)), LAYOUT)):
        with pytest.raises(StreamError):
            opener.open(hostile)
    assert opener.counts == SecurityCounts(other_key=1, bad_mac=1)


def test_packets_come_through_the_whole_stack_and_replays_and_forgeries_are_counted(security) -> None:
    stack = Stack(interleave=1, lead_in_frames=1, security=security)
    counter = SequenceCounter(5)
    packets = [(0, p) for k in range(30) for p in segment(bytes([k]) * 90, counter, 200)]
    units = list(packets_on_air(packets, stack))
    assert {len(unit) for unit in units} == {stack.unit_octets}
    forged = list(packets_on_air(packets, replace(stack, security=None)))
    receiver = FrameReceiver(stack)
    air = b"".join([*units, *units[3:6], *forged[2:6]])
    assert [*receiver.push(air), *receiver.finish()] == packets
    counts = receiver.reception.security
    assert counts is not None and counts.replayed == 3 and counts.other_key + counts.bad_mac == 4


@pytest.mark.parametrize("text", [None, "", "00" * 31, "zz" * 32])
def test_a_key_that_is_none_is_refused_with_one_line(text, tmp_path) -> None:
    if text is not None:
        (tmp_path / "key").write_text(text)
    with pytest.raises(InputError, match="wanted 64 hex digits"):
        Security(str(tmp_path / "key")).cipher()


def test_a_mission_switches_it_on_with_a_key_beside_it(tmp_path: Path) -> None:
    (tmp_path / "frames.key").write_text("22" * 32)
    text = (SHIPPED / "phisat2.toml").read_text()
    (tmp_path / "m.toml").write_text(text + '\n[link.security]\nkey_file = "frames.key"\n')
    stack = load_mission(tmp_path / "m.toml").link.stack
    assert stack is not None and stack.security is not None
    assert stack.security.key_file == str(tmp_path / "frames.key")
    plain = load_mission("phisat2").link.stack
    assert plain is not None and plain.packet_layout.data_octets - stack.packet_layout.data_octets == SECURITY_OCTETS
