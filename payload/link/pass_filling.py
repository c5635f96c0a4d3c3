"""What a pass takes of the scenes that wait: of every tile as many layers as are worth their octets, to the last octet.

    tiles of all scenes -> points at which each can be cut -> value per octet of every layer -> tile codes of the pass

A pass is filled as the byte budget of one scene is (payload/link/rate_control.py), over the tiles of all scenes. The
octets planned are the octets sent: packets, heads of tile codes and scene headers with their repeats.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from payload.link.rate_control import Candidate, Shorten, choose_layers, octets_of
from payload.link.scene_header import SceneHeader, headers_on_air
from payload.link.tile_code import UNKNOWN_CLOUD, Kind, TileCode
from payload.link.valid_mask import unpack_mask
from payload.policy import Policy

#: In which order layers go. The coarsest of every tile before a finer one of any; every tile whole, those first that
#: bring most clear area per octet; or, layer by layer, what removes most squared error per octet.
PassOrder = Literal["coarse-first", "whole-tiles", "least-error"]


@dataclass(frozen=True)
class CutPoint:
    """A tile code after so many `layers`: all its `octets` on the link, and what of its worth is still lacking then:
    the squared `error` that is left, or clear pixels that have not all their layers (`worth_when_whole`)."""

    layers: int
    octets: float
    error: float


@dataclass(frozen=True, eq=False)
class Waiting:
    """A scene that waits. `worth`: of a squared error in it against one in another scene, above 0."""

    header: SceneHeader
    tiles: Sequence[Candidate]
    worth: float = 1.0


@dataclass(frozen=True, eq=False)
class Filled:
    """What a pass takes: tile codes of each scene of which anything goes, and all octets on the link."""

    scenes: tuple[tuple[SceneHeader, tuple[TileCode, ...]], ...]
    octets: int


def cut_points(tile: Candidate, packet_octets: int) -> tuple[CutPoint, ...]:
    """Where a tile code can be cut: after 0, 1, ... layers, exact to the octet; after 0 it is declared omitted. The
    estimate of the error is the codec's own, made on board; without one every layer counts alike."""
    places = range(len(tile.code.layers) + 1)
    return tuple(CutPoint(n, octets_of(tile.code, n, packet_octets), tile.error(n)) for n in places)


def worth_when_whole(tile: Candidate, clear_px: float) -> Candidate:
    """The tile as a mission sees it to which a picture short of its quality is worth nothing: all of its clear pixels
    are lacking until the last layer is there."""
    return replace(tile, errors=(*[clear_px] * len(tile.code.layers), 0.0))


def clear_px(code: TileCode, tile_px: int) -> float:
    """Valid pixels of a tile that its gate did not take for cloud; all of them where there was no gate."""
    cloudy = 0 if code.cloud_percent == UNKNOWN_CLOUD else code.cloud_percent
    return float(unpack_mask(code.mask, tile_px).sum()) * (1 - cloudy / 100)


def values_per_octet(points: Sequence[CutPoint]) -> tuple[float, ...]:
    """Of what is lacking, how much each layer removes per octet. A layer that is worth more than the one before it is
    taken together with it: values never rise along a tile."""
    values: list[float] = []
    at = 0
    while at < len(points) - 1:
        here = points[at]
        slopes = [(here.error - p.error) / (p.octets - here.octets) for p in points[at + 1 :]]
        steepest = max(slopes)
        upto = at + len(slopes) - slopes[::-1].index(steepest)
        values += [steepest] * (upto - at)
        at = upto
    return tuple(values)


def fill_pass(waiting: Sequence[Waiting], capacity_octets: int, policy: Policy, shorten: Shorten) -> Filled:
    """The tile codes of a pass of so many octets. A tile of which nothing fits waits for the next pass: nothing of it
    is sent, nor of a scene without tiles.

    Tiles that get nothing give back the octets of their heads, and the pass is filled anew, until all get something.
    """
    chosen = [(k, tile) for k, scene in enumerate(waiting) for tile in scene.tiles if tile.code.layers]
    while chosen:
        headers = _headers(waiting, [k for k, _ in chosen], policy)
        offered = [_weighed(tile, waiting[k].worth) for k, tile in chosen]
        budget = replace(policy, budget_octets=max(1, capacity_octets))
        codes = list(choose_layers(offered, budget, shorten, (), headers))
        kept = [entry for entry, code in zip(chosen, codes, strict=True) if code.kind is not Kind.OMITTED]
        if len(kept) == len(chosen):
            return _filled(waiting, [k for k, _ in chosen], codes, headers, policy)
        chosen = kept or _fewer(waiting, chosen, policy.packet_octets)
    return Filled((), 0)


def _fewer(
    waiting: Sequence[Waiting], chosen: Sequence[tuple[int, Candidate]], packet_octets: int
) -> list[tuple[int, Candidate]]:
    """Where the heads of all tiles leave no room for a layer: the half of them that is worth most per octet."""
    values = [waiting[k].worth * values_per_octet(cut_points(tile, packet_octets))[0] for k, tile in chosen]
    best = sorted(range(len(chosen)), key=lambda at: -values[at])[: len(chosen) // 2]
    return [chosen[at] for at in sorted(best)]


def _weighed(tile: Candidate, worth: float) -> Candidate:
    return replace(tile, errors=tuple(worth * error for error in tile.errors))


def _headers(waiting: Sequence[Waiting], scenes: Sequence[int], policy: Policy) -> int:
    """Octets of the headers of all scenes of which tiles go."""
    return sum(headers_on_air(waiting[k].header, scenes.count(k), policy.packet_octets) for k in set(scenes))


def _filled(
    waiting: Sequence[Waiting], scenes: Sequence[int], codes: Sequence[TileCode], headers: int, policy: Policy
) -> Filled:
    octets = headers + sum(octets_of(code, len(code.layers), policy.packet_octets) for code in codes)
    of = {k: tuple(c for at, c in zip(scenes, codes, strict=True) if at == k) for k in sorted(set(scenes))}
    return Filled(tuple((waiting[k].header, found) for k, found in of.items()), octets)
