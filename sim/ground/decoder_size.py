"""What a bundle's decoder network weighs: counted from the network when the bundle was built."""

from payload.bundle import Bundle
from payload.codec.registry import open_codec
from sim.ground.averaged_network import TURNS
from sim.ground.decoder import BEST, FULL, network_of


def decoder_size(bundle: Bundle, kind: str = FULL) -> dict[str, float]:
    """`parameters`, `decoder_kmac_px` (1000 multiply-accumulates a pixel, of all bands and turns) and
    `decoder_octets` of its file.

    Empty where the codec decodes without a network, or the bundle's manifest does not describe it.
    """
    file = network_of(bundle, open_codec(bundle), kind)
    network = bundle.manifest.get("networks", {}).get(file) if file else None
    if network is None:
        return {}
    return {
        "parameters": network["parameters"],
        "decoder_kmac_px": network["macs_per_px"] / 1000 * (len(TURNS) if kind == BEST else 1),
        "decoder_octets": network["octets"],
    }
