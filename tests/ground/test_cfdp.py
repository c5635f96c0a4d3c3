"""CFDP entities: what cfdp-py lacks and is cured, and a class 2 that gets through whatever is lost."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cfdppy.handler.dest import DestHandler
from hypothesis import given, settings
from hypothesis import strategies as st
from spacepackets.cfdp import ConditionCode
from spacepackets.cfdp.pdu import AckPdu, EofPdu, FileDataPdu, FinishedPdu, MetadataPdu, NakPdu

from payload.link.file_pdu import parse_pdu
from sim.delivery.cfdp import Protocol, Receiver, Sender
from sim.ground.received_file import ReceivedFile

TALK = Protocol(pdu_octets=100, ack_timer_s=1.0, nak_timer_s=1.0)
CONTENT = random.Random(5).randbytes(1500)
Lost = Callable[[object, int], bool]


class Line:
    """Two entities and what gets lost between them; seconds pass when both are silent."""

    def __init__(self, folder: Path, lost: Lost = lambda pdu, count: False, content: bytes = CONTENT) -> None:
        (folder / "file").write_bytes(content)
        self.now_s, self.lost, self.count = 0.0, lost, 0
        self.file = ReceivedFile()
        self.sender = Sender(folder / "file", TALK, lambda: self.now_s)
        self.receiver = Receiver(self.file, TALK, lambda: self.now_s)
        self.down: list[object] = []
        self.up: list[object] = []

    def run(self, seconds: int = 60) -> "Line":
        while not self.sender.finished and self.now_s < seconds:
            replies = [reply for pdu in self._sent() for reply in self.receiver.push(pdu)] + self.receiver.tick()
            self.up += map(parse_pdu, replies)
            for reply in replies:
                if not self._is_lost(reply):
                    self.sender.push(reply)
            self.now_s += 0.25
        return self

    def _sent(self) -> Iterator[bytes]:
        while (pdu := self.sender.next_pdu()) is not None:
            self.down.append(parse_pdu(pdu))
            if not self._is_lost(pdu):
                yield pdu

    def _is_lost(self, pdu: bytes) -> bool:
        self.count += 1
        return self.lost(parse_pdu(pdu), self.count)

    @property
    def content(self) -> bytes:
        return self.file.read(0, self.file.octets)


def first(kind: type) -> Lost:
    """Loses the first PDU of a kind."""
    seen: list[object] = []
    return lambda pdu, count: isinstance(pdu, kind) and (seen.append(pdu) or len(seen) == 1)


def several(*losses: Lost) -> Lost:
    return lambda pdu, count: any(loss(pdu, count) for loss in losses)


def test_a_file_goes_over_a_clean_line_without_a_repetition(tmp_path):
    line = Line(tmp_path).run()
    assert line.receiver.complete and line.content == CONTENT
    assert [type(pdu) for pdu in line.up] == [AckPdu, FinishedPdu]
    assert line.sender.sent.again == line.receiver.arrived_twice_octets == line.receiver.naks == 0


def test_a_lost_acknowledgement_of_eof_and_one_data_pdu_do_not_end_the_transfer(tmp_path):
    """cfdp-py 0.7 never acknowledges a repeated EOF: its sender ends in POSITIVE_ACK_LIMIT_REACHED though the file is
    whole on the ground."""
    line = Line(tmp_path, several(first(FileDataPdu), first(AckPdu))).run()
    assert line.sender.finished and line.receiver.complete and line.content == CONTENT
    assert line.sender.listener.complete


def test_the_library_alone_does_not_acknowledge_a_repeated_eof(tmp_path, monkeypatch):
    """The cure is still needed: without it the same case does not end. Where this fails, the cure can go."""
    monkeypatch.setattr(Receiver, "_take", lambda self, pdu, octets: DestHandler.state_machine(self, pdu))
    line = Line(tmp_path, several(first(FileDataPdu), first(AckPdu))).run(30)
    assert line.content == CONTENT and not line.sender.finished


@pytest.mark.parametrize("kinds", [(MetadataPdu,), (MetadataPdu, EofPdu), (MetadataPdu, NakPdu), (MetadataPdu, AckPdu)])
def test_what_comes_before_the_metadata_is_not_asked_for_again(tmp_path, kinds):
    line = Line(tmp_path, several(*map(first, kinds))).run()
    assert line.receiver.complete and line.content == CONTENT
    assert line.sender.sent.again == 0 and line.receiver.arrived_twice_octets == 0


def test_lost_metadata_and_lost_data_are_asked_for_together_and_no_more(tmp_path):
    line = Line(tmp_path, several(first(MetadataPdu), first(FileDataPdu))).run()
    assert line.content == CONTENT
    assert line.sender.sent.again == len(next(p for p in line.down if isinstance(p, FileDataPdu)).file_data)


def test_a_lost_acknowledgement_of_finished_is_given_again(tmp_path):
    line = Line(tmp_path)
    line.run()
    again = FinishedPdu(line.up[-1].pdu_header.pdu_conf, line.up[-1].finished_params)
    line.sender.push(bytes(again.pack()))
    answer = parse_pdu(line.sender.next_pdu())
    assert isinstance(answer, AckPdu) and answer.condition_code_of_acked_pdu == ConditionCode.NO_ERROR


def test_two_transfers_share_no_list_of_lost_segments(tmp_path):
    """cfdp-py 0.7 keeps one list for all transactions of a process."""
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    broken = Line(tmp_path / "a", lambda pdu, count: isinstance(pdu, FileDataPdu) and count % 2 == 0)
    for pdu in broken._sent():
        broken.receiver.push(pdu)
    line = Line(tmp_path / "b").run()
    assert line.content == CONTENT and line.receiver.naks == 0


def test_a_name_over_the_link_chooses_no_place_on_the_ground(tmp_path):
    line = Line(tmp_path)
    pdu = bytes(line.sender.next_pdu()).replace(b"\x04file", b"\x04/x/y")
    line.receiver.push(pdu)
    assert line.receiver.ignored == 0 and not Path("/x").exists()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 30))
def test_hostile_octets_stop_neither_entity(tmp_path_factory, octets, at):
    line = Line(tmp_path_factory.mktemp("line"))
    hostile = [octets, bytes([0x24]) + octets, bytes.fromhex("2000ff01010001020B") + octets]

    def lost(pdu: object, count: int) -> bool:
        if count == at:
            for piece in hostile:
                line.receiver.push(piece)
                line.sender.push(piece)
        return False

    line.lost = lost
    assert line.run(200).content[: len(CONTENT)] == CONTENT


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.05, 0.2, 0.4]))
def test_class_2_gets_every_octet_through_whatever_is_lost(tmp_path_factory, seed, loss):
    chance = random.Random(seed)
    line = Line(tmp_path_factory.mktemp("line"), lambda pdu, count: chance.random() < loss).run(500)
    assert line.receiver.complete and line.content == CONTENT
    assert line.receiver.arrived_twice_octets == 0


@pytest.mark.parametrize("octets", [0, 1, 88, 89])
def test_files_of_every_small_size_arrive(tmp_path, octets):
    line = Line(tmp_path, content=CONTENT[:octets]).run()
    assert line.receiver.complete and line.content == CONTENT[:octets]


def test_a_list_of_naks_longer_than_a_pdu_goes_up_in_several(tmp_path):
    content = random.Random(1).randbytes(60 * 88)
    lost = iter(range(10**6))
    every_second: Lost = lambda pdu, count: isinstance(pdu, FileDataPdu) and count < 60 and next(lost) % 2 == 0  # noqa: E731
    line = Line(tmp_path, every_second, content).run()
    naks = [pdu for pdu in line.up if isinstance(pdu, NakPdu)]
    assert line.content == content and len(naks) > 1 and all(len(pdu.pack()) <= 100 for pdu in naks)
