"""A scene -> the tile codes of its archive file, at a ratio or at a PSNR, each with the PSNR it was decoded to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from payload.errors import InputError
from payload.link import tile_code
from payload.link.scene_header import SceneHeader
from payload.link.tile_code import Kind, TileCode
from payload.pipeline import Payload
from payload.policy import SENDS_EVERYTHING, Policy, Profile
from payload.scene import Scene
from payload.tiles import Tile, split
from sim.archive.proof import Proof
from sim.onboard.device import of_scene

#: Nothing is withheld: an archive keeps clouds as well. Packets as long as can be, since none are sent.
POLICY = Policy(packet_octets=65542, gate=SENDS_EVERYTHING)
#: Tiles that the step for a ratio is looked for on, and how often.
SAMPLED_TILES, BISECTIONS = 16, 10
#: The step is chosen for so many times the octets there are: rate control then cuts the scene to them.
OFFERED = 1.08
FINEST_DN, COARSEST_DN = 1.0, 8192.0
MOST_DB = 80.0  # that a payload can be asked for
#: A tile that falls short of the PSNR asked for is coded anew so many times, each time by what it lacked and half of
#: the 0.75 dB between two quantiser steps.
TRIES, EXTRA_DB = 5, 0.375


@dataclass(frozen=True)
class Quality:
    """What is asked of a scene: a compression ratio of the whole file against 16 bit a measured sample, every tile's
    PSNR, or the largest error of any sample. `profile` of the entropy coder."""

    cr: float | None = None
    psnr_db: float | None = None
    max_error_dn: int | None = None
    profile: Profile = "fast"

    def __post_init__(self) -> None:
        if sum(asked is not None for asked in (self.cr, self.psnr_db, self.max_error_dn)) != 1:
            raise InputError("give one of --cr, --psnr and --max-error: how small the file, or how good it shall be")
        if self.cr is not None and not 1.0 <= self.cr <= 10_000:
            raise InputError(f"--cr is {self.cr:g}, wanted 1 to 10000")
        if self.psnr_db is not None and not 10.0 <= self.psnr_db <= MOST_DB:
            raise InputError(f"--psnr is {self.psnr_db:g} dB, wanted 10 to 80")


@dataclass(frozen=True, eq=False)
class ProvenTile:
    """A tile code and the PSNR (peak 10 000) that it was decoded to, up to each of its layers."""

    code: TileCode
    psnr_db: tuple[float, ...]


def code_scene(
    scene: Scene, header: SceneHeader, payload: Payload, proof: Proof, quality: Quality, head_octets: int
) -> Iterator[ProvenTile]:
    """Every tile of a scene in row order, coded and proved. `head_octets` of the file besides its tile codes."""
    if quality.max_error_dn is not None:
        payload.policy = replace(payload.policy, max_error_dn=quality.max_error_dn)
        for tile in split(scene, header.tile_px):
            yield _within(tile, header, payload, proof, quality.max_error_dn)
        return
    if quality.cr is None:
        for tile in split(scene, header.tile_px):
            yield _at_psnr(tile, header, payload, proof, quality.psnr_db or 0.0)
        return
    info = scene.info
    budget = int(2 * proof.samples_per_px * info.height_px * info.width_px / quality.cr) - head_octets
    if budget < 1:
        raise InputError(f"--cr {quality.cr:g}: {info.name} would have no octet left for its tiles; give a smaller one")
    payload.policy = replace(payload.policy, step_dn=step_for(scene, header, payload, budget), budget_octets=budget)
    codes = payload.tile_codes(scene, header)
    for code, tile in zip(codes, split(scene, header.tile_px), strict=True):
        kept = _coarsest(tile, header, payload) if code.kind is Kind.OMITTED else code
        yield ProvenTile(kept, proof.of(kept, tile))


def _coarsest(tile: Tile, header: SceneHeader, payload: Payload) -> TileCode:
    """The coarsest layer of a tile that a ratio left nothing for: an archive loses no tile. Such tiles are few and hold
    few pixels; their octets are those that a file without packets saves against the budget."""
    coded = payload.thumbnail(tile)
    code = TileCode(
        payload.codec.code_kind, tile.row, tile.col, header.bundle_id, side=coded.side, layers=coded.layers[:1]
    )
    return of_scene(tile, code, header)


def _within(tile: Tile, header: SceneHeader, payload: Payload, proof: Proof, bound_dn: int) -> ProvenTile:
    """One tile, of which the decoder was seen to put no sample off by more than the bound."""
    code = of_scene(tile, payload.encode_tile(tile), header)
    off_dn = proof.largest_error_dn(code, tile)
    if off_dn > bound_dn:
        raise InputError(f"tile ({code.row}, {code.col}) decodes {off_dn} DN off, wanted {bound_dn}; keep the original")
    return ProvenTile(code, proof.of(code, tile))


def _at_psnr(tile: Tile, header: SceneHeader, payload: Payload, proof: Proof, wanted_db: float) -> ProvenTile:
    """One tile at the PSNR that the decoder was seen to reach, or as near as TRIES come to it."""
    asked, tries = wanted_db, TRIES
    while True:
        payload.policy = replace(payload.policy, psnr_db=min(asked, MOST_DB))
        code = of_scene(tile, payload.encode_tile(tile), header)
        found, tries = ProvenTile(code, proof.of(code, tile)), tries - 1
        if not tries or not found.psnr_db or found.psnr_db[-1] >= wanted_db:
            return found
        asked += wanted_db - found.psnr_db[-1] + EXTRA_DB


def step_for(scene: Scene, header: SceneHeader, payload: Payload, budget: int) -> float:
    """The quantiser step (DN) at which all tiles together take about OFFERED times the octets there are, by samples."""
    tiles = sampled(scene, header.tile_px)
    seen = sum(int(np.count_nonzero(tile.valid)) for tile in tiles)
    wanted = OFFERED * budget * max(seen, 1) / (scene.info.height_px * scene.info.width_px)
    low, high = FINEST_DN, COARSEST_DN
    for _ in range(BISECTIONS):
        middle = (low * high) ** 0.5
        payload.policy = replace(payload.policy, step_dn=middle)
        too_many = sum(len(tile_code.pack(payload.encode_tile(tile))) for tile in tiles) > wanted
        low, high = (middle, high) if too_many else (low, middle)
    return low


def sampled(scene: Scene, tile_px: int) -> Sequence[Tile]:
    """Some whole tiles, evenly over the scene; of a scene without any, its first tile."""
    rows, cols = scene.info.height_px // tile_px, scene.info.width_px // tile_px
    if not rows or not cols:
        return [next(split(scene, tile_px))]
    chosen = np.unique(np.linspace(0, rows * cols - 1, SAMPLED_TILES).astype(int))
    return [_tile(scene, *divmod(int(at), cols), tile_px) for at in chosen]


def _tile(scene: Scene, row: int, col: int, tile_px: int) -> Tile:
    return Tile(row, col, *scene.read(row * tile_px, col * tile_px, tile_px, tile_px))
