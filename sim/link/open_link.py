"""One pass over a mission's link: the channel, for packets or for frames, and who reads the frames at its end."""

from dataclasses import dataclass

from sim.link.channel import Channel
from sim.link.frames.channel import FrameChannel
from sim.link.frames.receiver import FrameReceiver
from sim.link.link import Link


@dataclass(frozen=True, eq=False)
class OpenLink:
    """`receiver` is None where packets are sent without frames."""

    channel: Channel | FrameChannel
    receiver: FrameReceiver | None = None


def open_link(link: Link, seed: int) -> OpenLink:
    """The link of a mission before its first octet."""
    if link.stack is None:
        return OpenLink(Channel(link, seed))
    return OpenLink(FrameChannel(link, seed), FrameReceiver(link.stack))
