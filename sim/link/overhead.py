"""What framing takes: octets of packets in each octet of transfer frame."""

from sim.link.channel import Link

#: Header of a TM transfer frame (CCSDS 132.0-B 4.1.2).
FRAME_HEADER_OCTETS = 6


def packet_share(link: Link) -> float:
    """Share of a transfer frame that is packets. What codes and sync markers add, the steps of rate count."""
    return link.frame_octets / (link.frame_octets + FRAME_HEADER_OCTETS)
