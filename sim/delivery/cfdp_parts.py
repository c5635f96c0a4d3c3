"""What CFDP entities are made with: how they talk, their timers, what they are told, and where their file lies."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cfdppy import IndicationConfig, LocalEntityConfig, RemoteEntityConfig
from cfdppy.filestore import NativeFilestore
from cfdppy.mib import CheckTimerProvider, DefaultFaultHandlerBase
from cfdppy.user import CfdpUserBase
from spacepackets.cfdp import ChecksumType, ConditionCode, TransmissionMode
from spacepackets.countdown import Countdown
from spacepackets.util import ByteFieldGenerator

from sim.ground.received_file import ReceivedFile

#: Entities on this link, in one octet.
SATELLITE, GROUND = 1, 2
#: The passes bound a transfer, not a count of timers that ran out.
UNLIMITED = 1 << 31
Clock = Callable[[], float]


@dataclass(frozen=True)
class Protocol:
    """How two entities talk. `pdu_octets`: of the longest PDU. Times in seconds."""

    pdu_octets: int
    acknowledged: bool = True
    ack_timer_s: float = 1.0
    nak_timer_s: float = 1.0
    checksum: ChecksumType = ChecksumType.CRC_32
    satellite: int = SATELLITE
    ground: int = GROUND


class Timer(Countdown):
    """A countdown by the clock it is given."""

    def __init__(self, interval_s: float, now: Clock) -> None:
        super().__init__(None)
        self._interval_s, self._now = interval_s, now
        self.reset()

    def reset(self, new_timeout: Any = None) -> None:
        self._end_s = self._now() + self._interval_s

    def timed_out(self) -> bool:
        return self._now() >= self._end_s

    @property
    def left_s(self) -> float:
        return self._end_s - self._now()


def remote_entity(entity: int, protocol: Protocol) -> RemoteEntityConfig:
    """What one entity knows of the other."""
    mode = TransmissionMode.ACKNOWLEDGED if protocol.acknowledged else TransmissionMode.UNACKNOWLEDGED
    return RemoteEntityConfig(
        entity_id=ByteFieldGenerator.from_int(1, entity), max_file_segment_len=None, max_packet_len=protocol.pdu_octets,
        closure_requested=False, crc_on_transmission=False, default_transmission_mode=mode, crc_type=protocol.checksum,
        positive_ack_timer_interval_seconds=protocol.ack_timer_s, positive_ack_timer_expiration_limit=UNLIMITED,
        immediate_nak_mode=False, nak_timer_interval_seconds=protocol.nak_timer_s, nak_timer_expiration_limit=UNLIMITED,
    )  # fmt: skip


def local_entity(entity: int, listener: "Listener") -> LocalEntityConfig:
    told = IndicationConfig(False, False, False, True, False, False)
    return LocalEntityConfig(ByteFieldGenerator.from_int(1, entity), told, Faults(listener))


class Timers(CheckTimerProvider):
    def __init__(self, protocol: Protocol, now: Clock) -> None:
        self._protocol, self._now = protocol, now

    def provide_check_timer(self, local_entity_id: Any, remote_entity_id: Any, entity_type: Any) -> Countdown:
        return Timer(self._protocol.ack_timer_s, self._now)


class Listener(CfdpUserBase):
    """What an entity is told: how its transaction ended, and what went wrong."""

    def __init__(self, store: NativeFilestore) -> None:
        super().__init__(store)
        self.faults: list[ConditionCode] = []
        self.complete = False

    def transaction_finished_indication(self, params: Any) -> None:
        told = params.finished_params
        self.complete = told.condition_code == ConditionCode.NO_ERROR and told.delivery_code.value == 0

    def transaction_indication(self, transaction_indication_params: Any) -> None: ...
    def eof_sent_indication(self, transaction_id: Any) -> None: ...
    def metadata_recv_indication(self, params: Any) -> None: ...
    def file_segment_recv_indication(self, params: Any) -> None: ...
    def report_indication(self, transaction_id: Any, status_report: Any) -> None: ...
    def suspended_indication(self, transaction_id: Any, cond_code: Any) -> None: ...
    def resumed_indication(self, transaction_id: Any, progress: int) -> None: ...
    def fault_indication(self, transaction_id: Any, cond_code: Any, progress: int) -> None: ...
    def abandoned_indication(self, transaction_id: Any, cond_code: Any, progress: int) -> None: ...
    def eof_recv_indication(self, transaction_id: Any) -> None: ...


class Faults(DefaultFaultHandlerBase):
    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener

    def _note(self, transaction_id: Any, cond: ConditionCode, progress: int) -> None:
        self._listener.faults.append(cond)

    notice_of_suspension_cb = notice_of_cancellation_cb = abandoned_cb = ignore_cb = _note


class SourceStore(NativeFilestore):
    """The file to be sent, opened once."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[Path, Any] = {}

    def read_data(self, file: Path, offset: int | None, read_len: int | None = None) -> bytes:
        stream = self._open.get(file) or self._open.setdefault(file, file.open("rb"))
        stream.seek(offset or 0)
        return stream.read(-1 if read_len is None else read_len)

    def close(self) -> None:
        for stream in self._open.values():
            stream.close()


class TargetStore(NativeFilestore):
    """One file, whatever name comes over the link: a sender does not choose where the ground writes."""

    def __init__(self, file: ReceivedFile) -> None:
        super().__init__()
        self._file = file

    def file_exists(self, path: Path) -> bool:
        return True

    def is_directory(self, path: Path) -> bool:
        return False

    def truncate_file(self, file: Path) -> None: ...

    def delete_file(self, file: Path) -> Any: ...

    def write_data(self, file: Path, data: bytes, offset: int | None) -> None:
        self._file.write(offset or 0, bytes(data))

    def calculate_checksum(
        self, checksum_type: ChecksumType, file_path: Path, size_to_verify: int, segment_len: int = 4096
    ) -> bytes:
        if checksum_type == ChecksumType.MODULAR:
            return _modular(self._file, size_to_verify)
        return self._file.crc32(size_to_verify).to_bytes(4, "big")


def _modular(file: ReceivedFile, octets: int) -> bytes:
    """CFDP's own checksum: the sum of the file's 32-bit words, zeros after its end."""
    total = 0
    for at in range(0, octets, 1 << 20):
        piece = file.read(at, min(1 << 20, octets - at))
        total += int(np.frombuffer(piece + bytes(-len(piece) % 4), ">u4").sum(dtype=np.uint64))
    return (total % (1 << 32)).to_bytes(4, "big")
