"""What framing takes: octets of packets in each octet of transfer frame."""

from sim.link.link import Link

#: Header of a TM transfer frame (CCSDS 132.0-B 4.1.2).
FRAME_HEADER_OCTETS = 6


def packet_share(link: Link) -> float:
    """Share of a transfer frame that is packets. What codes and sync markers add, the steps of rate count."""
    if link.stack is not None:
        return link.stack.layout.data_octets / link.stack.layout.octets
    return link.frame_octets / (link.frame_octets + FRAME_HEADER_OCTETS)
