"""Scene -> packets: what flies, on one page.

    scene -> tiles -> cloud mask -> latents -> indices -> tile codes -> packets
                          `-> applications -> records, which go first

Tiles stream. In memory is one strip of tiles; with a byte budget or applications the scene's tile codes, too.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from payload.apps.first import Applications
from payload.apps.settings import AppPlan
from payload.bundle import Bundle, load_bundle
from payload.clouds.audit import AuditDraw
from payload.clouds.gate import Action, Decision, judge
from payload.clouds.mask import CloudMask
from payload.clouds.network import load_cloud_net
from payload.codec.interface import CodedTile, Quality
from payload.codec.registry import open_codec, open_fallback
from payload.codec.shorter import shorter
from payload.engine import Engine
from payload.guard.guard import Guard, Step, unguarded
from payload.guard.probes import HeardEngine
from payload.guard.telemetry import Mode, Telemetry
from payload.link import tile_code
from payload.link.rate_control import Candidate, choose_layers
from payload.link.scene_header import SceneHeader, headers_on_air, records
from payload.link.streams import Sender
from payload.link.tile_code import Kind, TileCode
from payload.link.valid_mask import pack_mask
from payload.memory import forget
from payload.policy import Policy, Protection
from payload.scene import Scene
from payload.stopwatch import Stopwatch
from payload.tiles import Tile, cut, require_tile, split

MaskObserver = Callable[[Tile, CloudMask], None]


class Payload:
    """The payload of one bundle under one policy. `watch.seconds` sums the time spent per stage."""

    def __init__(
        self, bundle: Bundle, policy: Policy, engine: Engine, protection: Protection | None = None,
        plan: AppPlan | None = None,
    ) -> None:  # fmt: skip
        self.bundle, self.policy, self._engine = bundle, policy, HeardEngine(engine) if protection else engine
        self.apps = Applications(plan, bundle, engine)
        self._open()
        self.telemetry, self.watch = Telemetry(), Stopwatch()
        self.guard = Guard(self, protection, bundle, self.telemetry) if protection is not None else None
        self.work: Counter[str] = Counter()  # tiles judged, withheld, coded (thumbnails too), and valid pixels
        self.last_stages: dict[str, float] = {}
        self.sender = Sender(policy, None, self.telemetry.status)  # of the last scene

    def _open(self) -> None:
        self.codec = open_codec(self.bundle, self._engine, self.policy.max_error_dn is not None, self.policy.profile)
        compares = self.policy.compares and self.codec.code_kind is Kind.CODED
        self._other = open_fallback(self.bundle) if compares else None
        self.clouds = load_cloud_net(self.bundle, self._engine) if "clouds" in self.bundle.manifest else None

    def reopen(self) -> None:
        """Codec and gate anew from the bundle's files, which are checked again."""
        load_bundle(self.bundle.directory, flight_only=True)
        forget(self.codec)
        self._open()
        self.apps.open()

    def fall_back(self) -> None:
        """Goes on with fallback tiles, without a gate and without applications."""
        self.codec, self._other, self.clouds = open_fallback(self.bundle), None, None
        self.apps.stop()

    def transmit(
        self, scene: Scene, header: SceneHeader | None = None, observe: MaskObserver | None = None
    ) -> Iterator[bytes]:
        """Space packets of a scene in sending order: answers of applications, then the scene between housekeeping.
        `observe` is shown every cloud mask. Without `header` the scene has the id 0 and is described by its `info`."""
        header = header or self.header_of(scene)
        sender = self.sender = Sender(self.policy, scene.info.sensed_at, self.telemetry.status)
        answers, rest = self.apps.first(records(header, self.tile_codes(scene, header, observe)))
        yield from (packet for answer in answers for packet in sender.packets(answer))
        yield from sender.begin_scene()
        for record in rest:
            with self.watch.stage("packets"):
                packets = sender.packets(record)
            yield from packets
        yield from sender.housekeeping()

    def header_of(self, scene: Scene, scene_id: int = 0) -> SceneHeader:
        """What goes down of a scene besides its tiles."""
        return SceneHeader(scene_id, self.bundle.bundle_id, self.bundle.tile_px, scene.info)

    def tile_codes(
        self, scene: Scene, header: SceneHeader | None = None, observe: MaskObserver | None = None
    ) -> Iterator[TileCode]:
        """A code for every tile in row order, then the thumbnails of the audit."""
        audit = AuditDraw(self.policy, (header := header or self.header_of(scene)).scene_id)
        tiles, (code, again) = split(scene, self.bundle.tile_px), self._ways(scene, header, audit, observe)
        coded = map(code, tiles) if self.guard is None else self.guard.verified(tiles, code, again, audit)
        yield from self.chosen(coded, header, audit)

    def chosen(self, candidates: Iterable[Candidate], header: SceneHeader, audit: AuditDraw) -> Iterator[TileCode]:
        """The candidates as they are sent: cut to the byte budget where there is one, the thumbnails behind them."""
        if self.policy.budget_octets is None:
            yield from (candidate.code for candidate in candidates)
        else:
            offered = list(candidates)
            packet, codes = self.policy.packet_octets, len(offered) + len(audit.thumbnails)
            headers = headers_on_air(header, codes, packet) + self.sender.housekeeping_octets + self.apps.on_air(packet)
            yield from choose_layers(offered, self.policy, self._shorten, audit.thumbnails, headers)
        yield from audit.thumbnails

    def steps(
        self, scene: Scene, header: SceneHeader, audit: AuditDraw, skip: Collection[tuple[int, int]] = ()
    ) -> Iterator[Step[Candidate]]:
        """Every tile but those to `skip` as it is coded, and again where the guard has it recoded."""
        tiles = (tile for tile in split(scene, self.bundle.tile_px) if (tile.row, tile.col) not in skip)
        code, again = self._ways(scene, header, audit, None)
        return unguarded(tiles, code) if self.guard is None else self.guard.steps(tiles, code, again, audit)

    def _ways(
        self, scene: Scene, header: SceneHeader, audit: AuditDraw, observe: MaskObserver | None
    ) -> tuple[Callable[[Tile], Candidate], Callable[[tuple[int, int]], Candidate]]:
        """How a tile is coded, and how one is coded again that was read before."""
        self.telemetry.scene_id = header.scene_id
        self.apps.begin(header)

        def again(address: tuple[int, int]) -> Candidate:
            return self._of_scene(cut(scene, *address, self.bundle.tile_px), header, audit, None)

        return lambda tile: self._of_scene(tile, header, audit, observe), again

    def encode_tile(self, tile: Tile) -> TileCode:
        """One tile on its own: gate, codec, every layer."""
        return self.weigh_tile(tile).code

    def weigh_tile(self, tile: Tile) -> Candidate:
        """The same with the squared error that each layer leaves, where the policy has a byte budget."""
        before = dict(self.watch.seconds)
        found = self._one(tile, None, None)
        self.last_stages = {k: v - before.get(k, 0.0) for k, v in self.watch.seconds.items()}
        return found

    def _of_scene(self, tile: Tile, header: SceneHeader, audit: AuditDraw, observe: MaskObserver | None) -> Candidate:
        found = self._one(tile, audit, observe)
        mask = pack_mask(tile.valid) if found.code.layers else b""
        return replace(found, code=replace(found.code, scene_id=header.scene_id, mask=mask, sent_octets=-1))

    def _one(self, tile: Tile, audit: AuditDraw | None, observe: MaskObserver | None) -> Candidate:
        require_tile(tile, len(self.bundle.bands), self.bundle.tile_px)
        address = (tile.row, tile.col, self.bundle.bundle_id)
        if tile.empty or self.telemetry.mode is Mode.SAFE:
            return Candidate(TileCode(Kind.EMPTY if tile.empty else Kind.OMITTED, *address), ())
        self.work["valid_px"] += int(np.count_nonzero(tile.valid))
        decision, mask, flat = self._gate(tile, observe)
        percent = tile_code.UNKNOWN_CLOUD if decision is None else round(decision.cloud_percent)
        if decision is not None and decision.action is Action.WITHHOLD:
            self.work["withheld"] += 1
            self.apps.look(self.watch, tile, mask)
            if audit is not None:
                audit.offer(flat, percent, self)
            return Candidate(TileCode(Kind.WITHHELD, *address, percent), ())
        kind, coded = self._code(flat, decision.layers if decision is not None else None)
        self.apps.look(self.watch, tile, mask, lambda: self.codec.decode(coded.side, coded.base_layers))
        return Candidate(TileCode(kind, *address, percent, coded.side, coded.layers, bound=coded.bound), coded.errors)

    def _code(self, tile: Tile, keep: int | None) -> tuple[Kind, CodedTile]:
        with_errors = self.policy.budget_octets is not None or self._other is not None
        coded = self._encoded(tile, Quality.of(self.policy, keep, with_errors))
        return shorter(tile, coded, self.codec, self._other, self.watch)

    def _shorten(self, layers: tuple[bytes, ...], octets: int) -> tuple[bytes, ...]:
        with self.watch.stage("entropy"):
            return self.codec.shorten(layers, octets)

    def _gate(self, tile: Tile, observe: MaskObserver | None) -> tuple[Decision | None, CloudMask | None, Tile]:
        """As `judge`, where the bundle has a gate."""
        if self.clouds is None:
            return None, None, tile
        self.work["judged"] += 1
        with self.watch.stage("clouds"):
            decision, mask, flat = judge(tile, self.clouds, self.policy.gate_in_use)
        if observe is not None:
            observe(tile, mask)
        return decision, mask, flat

    def thumbnail(self, tile: Tile) -> CodedTile:
        """The coarsest layer of a tile, for the audit."""
        return self._encoded(tile, replace(Quality.of(self.policy, 1), max_error_dn=None))

    def _encoded(self, tile: Tile, quality: Quality) -> CodedTile:
        self.work["coded"] += 1
        encode = partial(self.codec.encode, tile, quality, self.watch)
        return encode() if self.guard is None else self.guard.read_back(encode(), encode)
