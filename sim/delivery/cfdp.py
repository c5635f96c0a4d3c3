"""CFDP entities over cfdp-py 0.7: octets of PDUs in, octets of PDUs out, time as an argument.

What the library lacks is cured here, each cure with its test in tests/ground/test_cfdp.py:
a repeated EOF is acknowledged again (727.0-B-5, 4.7.2), and so is a repeated Finished; what arrives before the Metadata
is kept instead of asked for again; an EOF before the Metadata leaves its checksum; each transaction has a list of lost
segments of its own; what is no PDU, or none for this entity, is counted and left.
"""

from collections import deque
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfdppy import PutRequest, RemoteEntityConfigTable
from cfdppy.defs import CfdpState
from cfdppy.handler.dest import DestHandler, LostSegmentTracker
from cfdppy.handler.dest import TransactionStep as DestStep
from cfdppy.handler.source import SourceHandler
from cfdppy.handler.source import TransactionStep as SourceStep
from spacepackets.cfdp import Direction, DirectiveType, PduConfig
from spacepackets.cfdp.pdu import AckPdu, EofPdu, FileDataPdu, FinishedPdu, MetadataPdu, NakPdu
from spacepackets.cfdp.pdu.ack import TransactionStatus
from spacepackets.cfdp.pdu.file_data import FileDataParams
from spacepackets.seqcount import SeqCountProvider
from spacepackets.util import ByteFieldGenerator

from payload.errors import StreamError
from payload.link.file_pdu import parse_pdu
from sim.delivery.cfdp_parts import (
    Clock,
    Listener,
    Protocol,
    SourceStore,
    TargetStore,
    Timer,
    Timers,
    local_entity,
    remote_entity,
)
from sim.ground.received_file import ReceivedFile


@dataclass
class SentOctets:
    """Octets of PDUs that were sent: of the file for the first time and again, headers of file data, directives."""

    file: int = 0
    again: int = 0
    headers: int = 0
    directives: int = 0


class Sender(SourceHandler):
    """The entity that sends one file. `push` takes PDUs that arrived, `next_pdu` gives those to be sent."""

    def __init__(self, path: Path, protocol: Protocol, now: Clock, number: int = 1) -> None:
        self._clock, self._protocol = now, protocol
        self._inbox: deque[Any] = deque()
        self.ignored = 0
        self.sent = SentOctets()
        self._sent_to = 0  # file data up to here has been sent at least once
        self.listener = Listener(SourceStore())
        sequence = SeqCountProvider(16)
        sequence.count = number
        remote = remote_entity(protocol.ground, protocol)
        local, table = local_entity(protocol.satellite, self.listener), RemoteEntityConfigTable([remote])
        super().__init__(local, self.listener, table, Timers(protocol, now), sequence)
        there = ByteFieldGenerator.from_int(1, protocol.ground)
        self.put_request(PutRequest(there, path, Path(path.name), None, None))

    @property
    def finished(self) -> bool:
        """Whether the receiver said that it has the file, or that it gave up; in class 1, whether all was sent."""
        return self.state == CfdpState.IDLE and not self._pdus_to_be_sent

    @property
    def timer_s(self) -> float | None:
        """Seconds until a timer may make it send again; None while it waits for none."""
        waiting = self.step is SourceStep.WAITING_FOR_EOF_ACK
        return self._params.positive_ack_params.ack_timer.left_s if waiting else None

    def push(self, octets: bytes) -> None:
        """One PDU that arrived; what makes no sense here is counted in `ignored`."""
        try:
            self._inbox.append(parse_pdu(octets))
        except StreamError:
            self.ignored += 1

    def next_pdu(self) -> bytes | None:
        """The next PDU to be sent; None while there is nothing to say."""
        while not self._pdus_to_be_sent and self._inbox:
            self._take(self._inbox.popleft())
        if not self._pdus_to_be_sent:
            self.state_machine()
        held = self.get_next_packet()
        if held is None:
            return None
        octets = bytes(held.pdu.pack())
        self._count(held.pdu, len(octets))
        return octets

    def _count(self, pdu: Any, octets: int) -> None:
        """Counts a PDU that is sent by what is in it."""
        if not isinstance(pdu, FileDataPdu):
            self.sent.directives += octets
            return
        data = len(pdu.file_data)
        new = max(0, pdu.offset + data - max(pdu.offset, self._sent_to))
        self.sent.file += new
        self.sent.again += data - new
        self.sent.headers += octets - data
        self._sent_to = max(self._sent_to, pdu.offset + data)

    def _take(self, pdu: Any) -> None:
        if self.state == CfdpState.IDLE and isinstance(pdu, FinishedPdu):
            answer = _acknowledged_again(pdu, DirectiveType.FINISHED_PDU, Direction.TOWARDS_RECEIVER)
            self._add_packet_to_be_sent(answer)
            return
        try:
            self.state_machine(pdu)
        except Exception:  # whatever a PDU of hostile contents makes of the library: it is left
            self.ignored += 1

    def _start_positive_ack_procedure(self) -> None:
        super()._start_positive_ack_procedure()
        self._params.positive_ack_params.ack_timer = Timer(self._protocol.ack_timer_s, self._clock)


class Receiver(DestHandler):
    """The entity that receives one file, into `file`. `push` and `tick` give the PDUs to be sent back."""

    def __init__(self, file: ReceivedFile, protocol: Protocol, now: Clock) -> None:
        self._clock, self._protocol = now, protocol
        self.file = file
        self.ignored = self.naks = 0
        self._early: list[tuple[int, int]] = []  # (offset, octets) of file data that came before the Metadata
        self._early_eof: bytes | None = None
        self._metadata_timer: Timer | None = None  # runs while the Metadata is asked for
        self._transaction: tuple[int, int] | None = None  # source and number; of the first PDU, and no other is taken
        self._done = False
        self.listener = Listener(TargetStore(file))
        remote = remote_entity(protocol.satellite, protocol)
        local, table = local_entity(protocol.ground, self.listener), RemoteEntityConfigTable([remote])
        super().__init__(local, self.listener, table, Timers(protocol, now))
        self.arrived_octets = 0  # of file data, each time it came
        self.arrived_twice_octets = 0

    @property
    def complete(self) -> bool:
        """Whether the whole file is here and its checksum was right."""
        return self.listener.complete

    @property
    def timer_s(self) -> float | None:
        """Seconds until a timer may make it send again; None while none runs."""
        if self._metadata_timer is not None:
            return self._metadata_timer.left_s
        if self.step is DestStep.WAITING_FOR_FINISHED_ACK:
            return self._params.positive_ack_params.ack_timer.left_s
        timer = self._params.acked_params.procedure_timer
        return timer.left_s if self.deferred_lost_segment_procedure_active and timer is not None else None

    def push(self, octets: bytes) -> list[bytes]:
        """One PDU that arrived -> those to be sent back; what makes no sense here is counted in `ignored`."""
        before = self.file.octets
        try:
            pdu = parse_pdu(octets)
            self._take(pdu, octets)
            if isinstance(pdu, FileDataPdu):
                self.arrived_octets += len(pdu.file_data)
                self.arrived_twice_octets += len(pdu.file_data) - (self.file.octets - before)
        except Exception:  # whatever a PDU of hostile contents makes of the library: it is left
            self.ignored += 1
        return list(self._drain())

    def tick(self) -> list[bytes]:
        """What timers that ran out have to say."""
        if self._metadata_timer is not None and self._metadata_timer.timed_out() and self._early_eof is not None:
            self._ask_for_metadata(parse_pdu(self._early_eof))
        self.state_machine()
        return list(self._drain())

    def _take(self, pdu: Any, octets: bytes) -> None:
        transaction = (pdu.source_entity_id.value, pdu.transaction_seq_num.value)
        self._transaction = self._transaction or transaction
        if transaction != self._transaction:
            raise StreamError(f"a PDU of transaction {transaction}, this is {self._transaction}")
        if self._done and not isinstance(pdu, AckPdu):
            if isinstance(pdu, EofPdu):
                self._add_packet_to_be_sent(_acknowledged_again(pdu, DirectiveType.EOF_PDU, Direction.TOWARDS_SENDER))
        elif self.state == CfdpState.IDLE and self._protocol.acknowledged and not isinstance(pdu, MetadataPdu):
            self._keep(pdu, octets)
        elif isinstance(pdu, EofPdu) and self.step in _EOF_WAS_HERE:
            self._prepare_eof_ack_packet()
        else:
            self.state_machine(pdu)
            if isinstance(pdu, MetadataPdu) and (self._early or self._early_eof):
                self._take_early(pdu)

    def _keep(self, pdu: Any, octets: bytes) -> None:
        """Before the Metadata: file data goes to its place, an EOF is acknowledged and the Metadata asked for."""
        if pdu.direction != Direction.TOWARDS_RECEIVER or pdu.dest_entity_id.value != self.cfg.local_entity_id.value:
            raise StreamError("a PDU of another entity")
        if isinstance(pdu, FileDataPdu):
            self.file.write(pdu.offset, bytes(pdu.file_data))
            self._early.append((pdu.offset, len(pdu.file_data)))
        elif isinstance(pdu, EofPdu):
            self._early_eof = octets
            self._add_packet_to_be_sent(_acknowledged_again(pdu, DirectiveType.EOF_PDU, Direction.TOWARDS_SENDER))
            self._ask_for_metadata(pdu)

    def _ask_for_metadata(self, eof: EofPdu) -> None:
        self._metadata_timer = Timer(self._protocol.nak_timer_s, self._clock)
        self._add_packet_to_be_sent(NakPdu(_answering(eof), 0, eof.file_size, [(0, 0)]))

    def _take_early(self, metadata: MetadataPdu) -> None:
        """The Metadata is here: what came before it is taken as if it came now, in order of its place."""
        conf = copy(metadata.pdu_header.pdu_conf)
        conf.direction = Direction.TOWARDS_RECEIVER
        early, self._early, self._metadata_timer = sorted(set(self._early)), [], None
        for offset, octets in early:
            self.state_machine(FileDataPdu(copy(conf), FileDataParams(self.file.read(offset, octets), offset)))
        eof, self._early_eof = self._early_eof, None
        if eof is not None:
            self.state_machine(parse_pdu(eof))

    def _drain(self) -> Iterator[bytes]:
        while (held := self.get_next_packet()) is not None:
            self.naks += isinstance(held.pdu, NakPdu)
            yield bytes(held.pdu.pack())

    def _common_first_packet_handler(self, pdu: Any) -> bool | None:
        self._params.acked_params.lost_seg_tracker = LostSegmentTracker()  # the library's is one for all transactions
        return super()._common_first_packet_handler(pdu)

    def _start_positive_ack_procedure(self) -> None:
        super()._start_positive_ack_procedure()
        self._params.positive_ack_params.ack_timer = Timer(self._protocol.ack_timer_s, self._clock)

    def _deferred_lost_segment_handling(self) -> None:
        first = self._params.acked_params.procedure_timer is None
        super()._deferred_lost_segment_handling()
        if first and self._params.acked_params.procedure_timer is not None:
            self._params.acked_params.procedure_timer = Timer(self._protocol.nak_timer_s, self._clock)

    def _notice_of_completion(self) -> None:
        self._done = True
        super()._notice_of_completion()


#: Steps at which an EOF has been taken already: another one is a repetition, as its acknowledgement was lost.
_EOF_WAS_HERE = (
    DestStep.WAITING_FOR_MISSING_DATA, DestStep.TRANSFER_COMPLETION, DestStep.SENDING_FINISHED_PDU,
    DestStep.WAITING_FOR_FINISHED_ACK,
)  # fmt: skip


def _answering(pdu: Any) -> PduConfig:
    conf = copy(pdu.pdu_header.pdu_conf)
    conf.direction = Direction.TOWARDS_SENDER
    return conf


def _acknowledged_again(pdu: Any, directive: DirectiveType, direction: Direction) -> AckPdu:
    """What answers a directive of a transaction that is over, or whose beginning is not here yet."""
    conf = copy(pdu.pdu_header.pdu_conf)
    conf.direction = direction
    return AckPdu(conf, directive, pdu.condition_code, TransactionStatus.UNDEFINED)
