"""Scene -> packets: what flies, on one page.

    scene -> tiles -> cloud mask -> latents -> indices -> bitstream -> packets

Tiles stream; what is in memory is a strip of tiles and, when a byte budget has to be met, the codes of the scene.
"""

from collections.abc import Callable, Iterator

import numpy as np

from payload.bundle import Bundle
from payload.clouds.gate import Action, Decision, decide, detect_clouds, flatten_clouds
from payload.clouds.mask import CloudMask
from payload.clouds.network import load_cloud_net
from payload.codec.interface import PEAK_DN, CodedTile, Quality
from payload.codec.registry import open_codec, open_fallback
from payload.engine import Engine
from payload.link import tile_code
from payload.link.rate_control import Candidate, choose_layers
from payload.link.tile_code import Kind, TileCode
from payload.policy import Policy
from payload.scene import Scene
from payload.stopwatch import Stopwatch
from payload.tiles import Tile, require_tile, split

MaskObserver = Callable[[Tile, CloudMask], None]


class Payload:
    """The payload of one bundle under one policy. `watch.seconds` sums the time spent per stage."""

    def __init__(self, bundle: Bundle, policy: Policy, engine: Engine) -> None:
        self.bundle, self.policy = bundle, policy
        self.codec = open_codec(bundle, engine)
        compares = policy.fallback == "compare" and self.codec.code_kind is Kind.CODED
        self._other = open_fallback(bundle) if compares else None
        self.clouds = load_cloud_net(bundle, engine) if "clouds" in bundle.manifest else None
        self.watch = Stopwatch()
        self.last_stages: dict[str, float] = {}

    def transmit(self, scene: Scene, observe: MaskObserver | None = None) -> Iterator[bytes]:
        """Space packets of a scene in sending order; `observe` is shown every cloud mask."""
        from payload.link.space_packet import (  # a device under test encodes tiles without spacepackets
            SequenceCounter,
            segment,
        )

        counter = SequenceCounter(self.policy.apid)
        for code in self.tile_codes(scene, observe):
            with self.watch.stage("packets"):
                packets = list(segment(tile_code.pack(code), counter, self.policy.packet_octets))
            yield from packets

    def tile_codes(self, scene: Scene, observe: MaskObserver | None = None) -> Iterator[TileCode]:
        """A code for every tile in row order, then the thumbnails of the audit."""
        audit = _AuditDraw(self.policy)
        candidates = (Candidate(*self._one(tile, audit, observe)) for tile in split(scene, self.bundle.tile_px))
        if self.policy.budget_octets is None:
            yield from (candidate.code for candidate in candidates)
        else:
            yield from choose_layers(list(candidates), self.policy, self._shorten, audit.thumbnails)
        yield from audit.thumbnails

    def encode_tile(self, tile: Tile) -> TileCode:
        """One tile on its own: gate, codec, no byte budget."""
        before = dict(self.watch.seconds)
        code, _ = self._one(tile, None, None)
        self.last_stages = {k: v - before.get(k, 0.0) for k, v in self.watch.seconds.items()}
        return code

    def _one(
        self, tile: Tile, audit: "_AuditDraw | None", observe: MaskObserver | None
    ) -> tuple[TileCode, tuple[float, ...]]:
        require_tile(tile, len(self.bundle.bands), self.bundle.tile_px)
        address = (tile.row, tile.col, self.bundle.bundle_id)
        if tile.empty:
            return TileCode(Kind.EMPTY, *address), ()
        decision, tile = self._gate(tile, observe)
        percent = tile_code.UNKNOWN_CLOUD if decision is None else round(decision.cloud_percent)
        if decision is not None and decision.action is Action.WITHHOLD:
            if audit is not None:
                audit.offer(tile, percent, self)
            return TileCode(Kind.WITHHELD, *address, percent), ()
        kind, coded = self._code(tile, decision.layers if decision is not None else None)
        return TileCode(kind, *address, percent, coded.side, coded.layers), coded.errors

    def _code(self, tile: Tile, keep: int | None) -> tuple[Kind, CodedTile]:
        """The tile by the bundle's codec, or by the fallback where that says the same in fewer octets."""
        with_errors = self.policy.budget_octets is not None or self._other is not None
        coded = self.codec.encode(tile, self._quality(keep, with_errors), self.watch)
        if self._other is None or not coded.errors:
            return self.codec.code_kind, coded
        mse = max(coded.errors[-1] / (len(tile.dn) * np.count_nonzero(tile.valid)), 1e-3)
        wanted = Quality(psnr_db=10 * np.log10(PEAK_DN**2 / mse))
        other = self._other.encode(tile, wanted, self.watch)
        chosen, code = (self._other, other) if other.octets < coded.octets else (self.codec, coded)
        return chosen.code_kind, code

    def _quality(self, keep: int | None = None, with_errors: bool = False) -> Quality:
        return Quality(self.policy.step_dn, self.policy.psnr_db, keep, with_errors)

    def _shorten(self, layers: tuple[bytes, ...], octets: int) -> tuple[bytes, ...]:
        with self.watch.stage("entropy"):
            return self.codec.shorten(layers, octets)

    def _gate(self, tile: Tile, observe: MaskObserver | None) -> tuple[Decision | None, Tile]:
        """The gate's word, and the tile as it is to be coded."""
        if self.clouds is None:
            return None, tile
        with self.watch.stage("clouds"):
            mask = detect_clouds(tile, self.clouds)
            decision = decide(mask, self.policy.gate, tile)
            flat = flatten_clouds(tile, mask) if self.policy.gate.flatten_clouds else tile
        if observe is not None:
            observe(tile, mask)
        return decision, flat

    def thumbnail(self, tile: Tile) -> CodedTile:
        """The coarsest layer of a tile, for the audit."""
        return self.codec.encode(tile, self._quality(keep=1), self.watch)


class _AuditDraw:
    """A uniform draw of `audit_count` withheld tiles without knowing how many there will be (Vitter's algorithm R)."""

    def __init__(self, policy: Policy) -> None:
        self._wanted = policy.gate.audit_count
        self._random = np.random.default_rng(policy.gate.audit_seed)
        self._seen = 0
        self.thumbnails: list[TileCode] = []

    def offer(self, tile: Tile, cloud_percent: int, payload: Payload) -> None:
        self._seen += 1
        place = len(self.thumbnails) if len(self.thumbnails) < self._wanted else int(self._random.integers(self._seen))
        if place >= self._wanted:
            return
        coded = payload.thumbnail(tile)
        code = TileCode(
            Kind.AUDIT, tile.row, tile.col, payload.bundle.bundle_id, cloud_percent, coded.side, coded.layers
        )
        self.thumbnails[place : place + 1] = [code]
