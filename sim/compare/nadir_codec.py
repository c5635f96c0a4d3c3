"""Bundles behind the opponents' face: a tile in, the space packets as sent out, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from payload.bundle import Bundle, load_bundle
from payload.errors import InputError
from payload.link import tile_code
from payload.link.space_packet import Reassembler, SequenceCounter, read_packets, segment
from payload.policy import PROFILES, Policy, Profile
from payload.scene import Dn
from payload.sensor import Sensor
from payload.tiles import Tile
from sim.compare.classical import geometric
from sim.ground.decoder import DECODERS, FULL

STEPS_DN = geometric(8192, 16, 21)
#: Beyond them, for tiles that are not at CR 20 yet.
FINER_STEPS_DN = geometric(11.72, 1, 9)


class TilePayload(Protocol):
    """What flies, as far as the bench needs it: payload.pipeline.Payload."""

    policy: Policy

    def encode_tile(self, tile: Tile) -> tile_code.TileCode: ...


class TileDecoder(Protocol):
    """What decodes on the ground, as far as the bench needs it: sim.ground.decoder.Decoder."""

    def decode_tile(self, code: tile_code.TileCode) -> Dn: ...


@dataclass(frozen=True, eq=False)
class NadirCodec:
    """A bundle. Its octets are the space packets as sent: packet headers, CRCs, tile header and bundle id included."""

    payload: TilePayload
    decoder: TileDecoder
    name: str = "nadir"
    settings: tuple[float, ...] = STEPS_DN
    note: str = "learned codec, whole space packets as sent; setting = finest quantiser step in DN"
    tile_px: int = 256
    decoder_size: Mapping[str, float] = field(default_factory=dict)  # parameters, kMAC a pixel, octets
    bounded: bool = False  # settings are bounds on the error of every sample, in DN
    finer: tuple[float, ...] = ()

    def encode(self, dn: Dn, setting: float) -> bytes:
        """The packets of a square picture's tiles, in row order."""
        policy = self.payload.policy = self._policy(setting)
        counter, side = SequenceCounter(policy.apid), self.tile_px
        packets: list[bytes] = []
        for row in range(dn.shape[1] // side):
            for col in range(dn.shape[2] // side):
                square = np.ascontiguousarray(dn[:, row * side :, col * side :][:, :side, :side])
                code = self.payload.encode_tile(Tile(row, col, square, np.ones((side, side), dtype=bool)))
                packets += segment(tile_code.pack(code), counter, policy.packet_octets)
        return b"".join(packets)

    def _policy(self, setting: float) -> Policy:
        if self.bounded:
            return replace(self.payload.policy, max_error_dn=int(setting))
        return replace(self.payload.policy, step_dn=setting)

    def decode(self, octets: bytes) -> Dn:
        """Tiles beside each other as they are decoded; their edges are not evened out."""
        reassembler = Reassembler(self.payload.policy.apid)
        assemblies = [a for packet in read_packets(octets) for a in reassembler.push(packet)]
        codes = [tile_code.unpack(whole.data) for whole in assemblies + reassembler.finish()]
        tiles = {(code.row, code.col): self.decoder.decode_tile(code) for code in codes}
        cols = range(1 + max(col for _, col in tiles))
        return np.concatenate(
            [np.concatenate([tiles[row, col] for col in cols], axis=2) for row in sorted({row for row, _ in tiles})],
            axis=1,
        )


def profiles(names: str) -> tuple[Profile, ...]:
    """Profiles of the entropy coder by their names with commas between. InputError where one is none."""
    asked = [name.strip() for name in names.split(",")]
    if not set(asked) <= set(PROFILES):
        raise InputError(f"--profile is {names[:40]!r}, wanted fast, dense, or fast,dense")
    return tuple(profile for profile in PROFILES if profile in asked)


def decoders(names: str) -> tuple[str, ...]:
    """Decoders by their names with commas between, as asked. InputError where one is none."""
    asked = tuple(dict.fromkeys(name.strip() for name in names.split(",")))
    if not set(asked) <= set(DECODERS):
        raise InputError(f"--decoder is {names[:40]!r}, wanted {', '.join(DECODERS)}, or several with commas between")
    return asked


def open_bundles(
    names: Sequence[str], engine: str, decoders: Sequence[str] = (FULL,), profiles: Sequence[Profile] = ("fast",)
) -> tuple[list[NadirCodec], int, Sensor]:
    """A codec for each bundle, profile and decoder, told apart by name (the first decoder is not named), the side of
    their tiles in px, and their sensor. InputError where two bundles cannot code the same tiles."""
    bundles = [load_bundle(name) for name in names]
    for bundle in bundles:
        if bundle.sensor != bundles[0].sensor or bundle.tile_px != bundles[0].tile_px:
            raise InputError(
                f"bundle {bundle.name}: {bundle.tile_px} px tiles of {_sensor(bundle)}, wanted "
                f"{bundles[0].tile_px} px tiles of {_sensor(bundles[0])} for all; "
                "compare it in a run of its own"
            )
    if len({bundle.bundle_id for bundle in bundles}) < len(bundles):
        raise InputError(f"--bundle names one bundle twice ({', '.join(names)}); leave one out")
    short = [f"nadir-{bundle.name}" for bundle in bundles]
    labels = [n if short.count(n) == 1 else f"{n}-{b.bundle_id:08x}" for n, b in zip(short, bundles, strict=True)]
    return (
        [
            open_bundle(b, engine, label + _ending(profile, "fast") + _ending(decoder, decoders[0]), decoder, profile)
            for b, label in zip(bundles, labels, strict=True)
            for profile in profiles
            for decoder in decoders
        ],
        bundles[0].tile_px,
        bundles[0].sensor,
    )


def _ending(name: str, usual: str) -> str:
    return "" if name == usual else f"-{name}"


def _sensor(bundle: Bundle) -> str:
    return f"{bundle.sensor.name} ({', '.join(bundle.bands)[:80]})"


def open_bundle(
    bundle: Bundle, engine_name: str = "openvino", name: str | None = None, decoder: str = FULL,
    profile: Profile = "fast",
) -> NadirCodec:
    """The codec of a bundle, on one thread, without its cloud gate: the bench compares coding alone."""
    from payload.engine import open_engine
    from payload.pipeline import Payload
    from sim.ground.decoder import Decoder
    from sim.ground.decoder_size import decoder_size

    engine = open_engine(engine_name, 1)
    payload = Payload(bundle, Policy(profile=profile), engine)
    payload.clouds = None
    note = f"bundle {bundle.name} ({bundle.bundle_id:08x}), {engine_name}, decoder {decoder}, {NadirCodec.note}"
    settings, finer = (STEPS_DN, FINER_STEPS_DN) if payload.codec.follows_quality else ((payload.policy.step_dn,), ())
    size = decoder_size(bundle, decoder)
    return NadirCodec(
        payload, Decoder(bundle, engine, decoder), name or f"nadir-{bundle.name}", settings, note, bundle.tile_px, size,
        finer=finer,
    )  # fmt: skip
