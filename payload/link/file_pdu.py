"""A CFDP PDU (CCSDS 727.0-B-5) <-> the space packet that carries it, both directions. docs/format.md, "Files".

One PDU a packet, whole, under APID 2045, which is CFDP's by the SANA registry. Down in telemetry packets, up in
telecommand packets. The CRC of the packet protects the PDU, so that the PDU carries none of its own.
"""

from spacepackets.cfdp.pdu.helper import GenericPduPacket, PduFactory

from payload.errors import StreamError
from payload.link import telecommand
from payload.link.space_packet import Packet, SequenceCounter, SequenceFlag, pack, unpack

CFDP_APID = 2045


def pack_down(pdu: bytes, counter: SequenceCounter) -> bytes:
    """The telemetry packet around a PDU. `counter` is of CFDP_APID."""
    return pack(Packet(counter.apid, counter.take(), SequenceFlag.WHOLE, pdu))


def unpack_down(packet: bytes) -> bytes:
    """The PDU in a telemetry packet; StreamError if there is none."""
    parsed = unpack(packet)
    if parsed.apid != CFDP_APID or parsed.flag is not SequenceFlag.WHOLE:
        raise StreamError(f"APID {parsed.apid} with flag {parsed.flag.name}, wanted a whole packet of APID {CFDP_APID}")
    return parsed.data


def pack_up(pdu: bytes, counter: SequenceCounter) -> bytes:
    """The telecommand packet around a PDU: as a telemetry packet but for the type bit."""
    return telecommand.pack_packet(pdu, counter.apid, counter.take())


def unpack_up(packet: bytes) -> bytes:
    """The PDU in a telecommand packet; StreamError if there is none."""
    return telecommand.unpack_packet(packet, CFDP_APID)


def parse_pdu(octets: bytes) -> GenericPduPacket:
    """The PDU in received octets; StreamError with the cause if there is none.

    The parser lets exceptions of many kinds escape on octets that are no PDU (IndexError, struct.error, ...): damage on
    the link is data, whatever the parser makes of it.
    """
    try:
        pdu = PduFactory.from_raw(octets)
    except Exception as error:
        raise StreamError(f"no CFDP PDU: {type(error).__name__}") from None
    if pdu is None:
        raise StreamError("no CFDP PDU: unknown directive")
    return pdu
