"""What the layers of the link did -> plain values of a report."""

from dataclasses import asdict
from typing import Any

from payload.link.frames.stack import LayerOctets
from sim.link.frames.receiver import FrameReception
from sim.link.rate_steps import NOT_CODED


def layer_octets(layers: LayerOctets) -> dict[str, int]:
    """Each layer's octets, and their sum: the size of frames.bin, or of packets.bin where there are no frames."""
    return {f"layer_{name}": octets for name, octets in asdict(layers).items()} | {
        "octets_on_air": layers.octets_on_air
    }


def frames_read(found: FrameReception) -> dict[str, Any]:
    """What synchroniser, decoders and frame layer counted, in the order of the way back."""
    frames = {f"frames_{name}": count for name, count in asdict(found.frames).items() if "packets" not in name}
    sync = {f"sync_{name}": count for name, count in asdict(found.sync).items()}
    return (
        {"not_coded": NOT_CODED}
        | sync
        | {
            "channel_symbols_turned": found.channel_symbols_turned,
            "symbols_corrected": found.symbols_corrected,
            "most_corrected_in_a_codeword": found.most_corrected,
            "codewords_corrected": found.codewords_corrected,
            "codewords_uncorrectable": found.codewords_uncorrectable,
        }
        | frames
        | {f"frames_{cause}": n for cause, n in (asdict(found.security) if found.security else {}).items()}
        | {"packets_in_frames": found.frames.packets, "packets_cut": found.frames.packets_cut}
    )
