"""Tile -> cloud mask -> what to do with the tile. An INT8 network judges, integers and fixed tables do the rest.

    tile --input_planes--> u8 [2B, T/2, T/2] --network--> logits --softmax by table--> CloudMask --decide--> Decision

The planes are averages of 2 x 2 pixels, twice: once on a fixed scale (square root of DN), so that brightness keeps its
meaning, and once stretched between the tile's own percentiles, so that the network carries to sensors with another
calibration, as OmniCloudMask does (Wright et al. 2025). Integers throughout: nothing before or after the network can
round differently on another machine.

A tile that shows one single value per band (no data, saturated, constant) is not judged: probability 0, so it is sent.
It costs a few octets, and the gate throws away only what it has judged.

Two thresholds, because two questions are asked: `cloudy_above` says which pixels are cloud, as well as may be;
`sure_above` says which of them count towards throwing the tile away. There a mistake is for ever, so a second witness
is heard that has learnt nothing: a published rule on colour (`hazy_and_white`) must find cloud there, too. What the
network mistakes on ground it never saw, the rule mostly does not, and the other way round.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.bundle import Bundle
from payload.engine import Engine, Network
from payload.errors import BundleError, InputError
from payload.native import library
from payload.policy import Gate, Region
from payload.scene import Dn, Mask
from payload.tiles import Tile

CLASSES = ("clear", "thick", "thin", "shadow")
CLEAR, THICK, THIN, SHADOW = range(4)
NETWORK_FILE = "flight/clouds.onnx"

Parts = NDArray[np.float32]  # probabilities of CLASSES, [4, s, s, h, w]

#: The codec's transform block.
BLOCK_PX = 8
#: The network sees averages of 2 x 2 pixels.
BIN_PX = 2
#: Places of the visible bands among payload.scene.RGBN.
BLUE, GREEN, RED = range(3)
#: The tile's percentiles are read from every 2nd of these averages in every 2nd row.
SAMPLE_EVERY = 2


@dataclass(frozen=True)
class CloudSettings:
    """The network's parameters, from manifest["clouds"].

    `cell_px`: pixels along one cell of the mask. `logit_step`: value of one integer step of the logits, divided by the
    calibration temperature. `cloudy_above`: probability from which a pixel is cloud; `sure_above`: from which it
    counts when the tile may be withheld. `low_permille`, `high_permille`: percentiles of the stretch; `least_span`:
    the least width of the stretch, in companded steps, so that noise of an even tile is not blown up.
    """

    cell_px: int = 2
    stride_px: int = 32
    logit_step: float = 0.125
    temperature: float = 1.0
    cloudy_above: float = 0.5
    sure_above: float = 0.5
    low_permille: int = 20
    high_permille: int = 980
    least_span: int = 24

    def __post_init__(self) -> None:
        if self.cell_px not in (1, 2, 4, 8) or self.stride_px % self.cell_px:
            raise InputError(f"clouds.cell_px is {self.cell_px}, wanted 1, 2, 4 or 8 and a divisor of {self.stride_px}")
        for key in ("cloudy_above", "sure_above"):
            if not 0.0 < getattr(self, key) < 1.0:
                raise InputError(f"clouds.{key} is {getattr(self, key)}, wanted between 0 and 1")
        if not 0 <= self.low_permille < self.high_permille <= 1000:
            found = f"{self.low_permille} to {self.high_permille}"
            raise InputError(f"clouds: percentiles of {found} permille, wanted 0 <= low < high <= 1000")
        if self.logit_step <= 0.0 or self.temperature <= 0.0 or self.least_span < 1:
            raise InputError("clouds: logit_step, temperature and least_span must be positive")


@dataclass(frozen=True, eq=False)
class CloudMask:
    """What the network says about a tile: probabilities of CLASSES per cell; their sum is 1, or 0 unjudged.

    `parts` lies as the network gives it, s x s sub-cells of h x w positions: counting needs no other order, and most
    tiles are only counted. `cells` is the same as a picture. Where the kernel has counted, not even `parts` is needed.
    """

    told: Parts | Callable[[], Parts]  # the probabilities, or how they are got
    valid: Mask  # [T, T]
    cloudy_above: float = 0.5
    sure_above: float = 0.5
    dn: Dn | None = None  # [B, T, T], what the second witness looks at; None: it is not asked
    counted: tuple[int, int, int, int] | None = None  # cells: all, cloud, thin cloud, cloud beyond doubt

    @cached_property
    def parts(self) -> Parts:
        """Probabilities in the network's order. [4, s, s, h, w]"""
        return self.told() if callable(self.told) else self.told

    @cached_property
    def cells(self) -> NDArray[np.float32]:
        """Probabilities as a picture. [4, T / cell_px, T / cell_px]"""
        classes, s, _, h, w = self.parts.shape
        return np.ascontiguousarray(self.parts.transpose(0, 3, 1, 4, 2)).reshape(classes, h * s, w * s)

    @property
    def cell_px(self) -> int:
        return self.valid.shape[0] // (self.parts.shape[1] * self.parts.shape[3])

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """Cloud probability (thick + thin) of every pixel, 0 where there is no data. [T, T]"""
        return self._pixels(self.cells[THICK] + self.cells[THIN]) * self.valid

    @cached_property
    def cloudy(self) -> Mask:
        """Pixels taken for cloud, thick or thin. [T, T]"""
        return self._pixels(self.cells[THICK] + self.cells[THIN] > self.cloudy_above) & self.valid

    @property
    def cloud_fraction(self) -> float:
        """Share of the valid pixels that are cloud, thick or thin."""
        return self._share(self._cloud > self.cloudy_above) if self.counted is None else self._of_all(1)

    @property
    def thin_fraction(self) -> float:
        """Share of the valid pixels that are thin cloud."""
        if self.counted is not None:
            return self._of_all(2)
        return self._share((self._cloud > self.cloudy_above) & self._thinner)

    @property
    def accused_fraction(self) -> float:
        """Share of the valid pixels that are cloud beyond doubt to the network alone: never below `sure_fraction`."""
        return self._share(self._cloud > self.sure_above) if self.counted is None else self._of_all(3)

    @property
    def sure_fraction(self) -> float:
        """Share of the valid pixels that are cloud to network and second witness: what may cost the tile."""
        return self._share(self._sure)

    @property
    def sure_thin_fraction(self) -> float:
        """The part of `sure_fraction` that is thin cloud."""
        return self._share(self._sure & self._thinner)

    @property
    def shadow_fraction(self) -> float:
        """Share of the valid pixels that lie in a cloud's shadow."""
        return self._share((self._cloud <= self.cloudy_above) & (self.parts[SHADOW] > self.parts[CLEAR]))

    @cached_property
    def _cloud(self) -> NDArray[np.float32]:
        return np.asarray(self.parts[THICK] + self.parts[THIN])  # [s, s, h, w]

    @cached_property
    def _sure(self) -> NDArray[np.bool_]:
        accused = self._cloud > self.sure_above
        if self.dn is None:
            return accused
        _, s, _, h, w = self.parts.shape
        sums, _ = averaged(self.dn, self.valid)
        witnessed = hazy_and_white(sums).reshape(h, s, w, s).transpose(1, 3, 0, 2)  # in the order of `parts`
        return accused & witnessed

    @cached_property
    def _thinner(self) -> NDArray[np.bool_]:
        return np.asarray(self.parts[THIN] > self.parts[THICK])

    @cached_property
    def _valid_px(self) -> NDArray[np.int64] | None:
        """Valid pixels of each cell in the order of `parts`; None where all are."""
        if self.valid.all():
            return None
        _, s, _, h, w = self.parts.shape
        c = self.cell_px
        return self.valid.reshape(h, s, c, w, s, c).sum(axis=(2, 5)).transpose(1, 3, 0, 2)

    def _share(self, chosen: NDArray[np.bool_]) -> float:
        if self._valid_px is None:
            return np.count_nonzero(chosen) / chosen.size
        total = int(self._valid_px.sum())
        return float(self._valid_px[chosen].sum() / total) if total else 0.0

    def _of_all(self, kind: int) -> float:
        return self.counted[kind] / self.counted[0] if self.counted is not None else 0.0

    def _pixels(self, cells: NDArray[Any]) -> NDArray[Any]:
        return cells.repeat(self.cell_px, axis=0).repeat(self.cell_px, axis=1)


@dataclass(frozen=True, eq=False)
class CloudNet:
    """The loaded network with its settings."""

    network: Network
    settings: CloudSettings = field(default_factory=CloudSettings)

    @cached_property
    def exponentials(self) -> NDArray[np.float32]:
        """exp(-d logit_step / temperature) for d = 0..255 steps below the largest logit, as integers of 2^-20."""
        steps = -np.arange(256) * (self.settings.logit_step / self.settings.temperature)
        return np.round(np.exp(steps) * 2.0**20).astype(np.float32)


def load_cloud_net(bundle: Bundle, engine: Engine) -> CloudNet:
    """The bundle's cloud network for tiles of its size, refused unless every convolution runs in INT8. BundleError if
    the bundle holds none."""
    settings = bundle.manifest.get("clouds")
    if not isinstance(settings, dict):
        raise BundleError(f"bundle {bundle.name}: no cloud network in its manifest; rebuild it or use another bundle")
    side = bundle.tile_px // BIN_PX
    network = engine.load(bundle.file(NETWORK_FILE), require_int8=True, shape=(1, 2 * len(bundle.bands), side, side))
    return CloudNet(network, read_settings(settings))


def read_settings(table: dict[str, Any]) -> CloudSettings:
    """manifest["clouds"] -> settings; keys that describe the network's origin are left alone."""
    try:
        return CloudSettings(**{key: table[key] for key in CloudSettings.__dataclass_fields__ if key in table})
    except TypeError as error:
        raise BundleError(f"manifest key clouds: {error}; rebuild the bundle") from None


def detect_clouds(tile: Tile, net: CloudNet) -> CloudMask:
    """Judges one tile. T must be a multiple of `stride_px`; a tile of one single value per band comes back unjudged."""
    settings = net.settings
    size = tile.valid.shape[0]
    if size % settings.stride_px or tile.valid.shape != (size, size):
        raise InputError(f"tile of {tile.valid.shape} pixels, wanted a square of a multiple of {settings.stride_px}")
    planes = input_planes(tile.dn, tile.valid, settings)
    thresholds = settings.cloudy_above, settings.sure_above
    if planes is None:
        cells = size // settings.cell_px
        return CloudMask(np.zeros((len(CLASSES), 1, 1, cells, cells), np.float32), tile.valid, *thresholds, tile.dn)
    logits = net.network.run(planes[None])[0][0]  # [4 s s, h, w], s sub-cells a side
    shape = _parts_shape(logits, net, size)
    counted = None
    if library.available and tile.valid.all():
        counted = library.cloud_counts(logits.reshape(shape[0], -1), net.exponentials, *thresholds)
    return CloudMask(partial(probabilities, logits, net, size), tile.valid, *thresholds, tile.dn, counted)


def input_planes(dn: Dn, valid: Mask, settings: CloudSettings) -> NDArray[np.uint8] | None:
    """The network's input, u8 [2B, T/2, T/2]: companded averages, then the same stretched. None: nothing to judge."""
    if library.available and valid.all():
        return library.cloud_planes(dn, settings.low_permille, settings.high_permille, settings.least_span)
    return planes_of(*averaged(dn, valid), settings)


def averaged(dn: Dn, valid: Mask) -> tuple[NDArray[np.uint32], Mask | None]:
    """Four times the average of the valid pixels of 2 x 2, [B, T/2, T/2], and where there are any; None: everywhere."""
    if valid.all():
        return bin_sums(dn), None
    count = bin_sums(valid[None].astype(np.uint16))[0]  # valid pixels of 4
    sums = bin_sums(dn * valid)
    sums[:, count > 0] = sums[:, count > 0] * 4 // count[count > 0]
    return sums, count > 0


def bin_sums(dn: Dn) -> NDArray[np.uint32]:
    """Sums over 2 x 2 pixels: four times the average. [B, T/2, T/2]"""
    pairs = np.ascontiguousarray(dn).view(np.uint32)  # two neighbours in one word: [B, T, T/2]
    sums = pairs >> np.uint32(16)
    pairs = pairs & np.uint32(0xFFFF)
    pairs += sums
    return pairs[:, 0::2] + pairs[:, 1::2]


def planes_of(sums: NDArray[np.uint32], seen: Mask | None, settings: CloudSettings) -> NDArray[np.uint8] | None:
    """Sums of 2 x 2 pixels [B, n, n] -> planes u8 [2B, n, n]. `seen` [n, n]: where data is; None: everywhere."""
    bands = sums.shape[0]
    planes = np.empty((2 * bands, *sums.shape[1:]), np.uint8)
    compand(sums, planes[:bands])
    if seen is not None:
        planes[:bands] *= seen
    if _one_value(planes[:bands], seen):
        return None
    every = slice(None, None, SAMPLE_EVERY)
    sample = planes[:bands, every, every]
    sample = sample.reshape(bands, -1) if seen is None else sample[:, seen[every, every]]
    if sample.shape[1] == 0:  # a sliver of data between the samples
        sample = planes[:bands, seen]
    for band, table in enumerate(stretch_tables(sample, settings)):
        # bytes.translate is a look-up without numpy's detour over 64-bit indices.
        stretched = planes[band].tobytes().translate(table.tobytes())
        planes[bands + band] = np.frombuffer(stretched, np.uint8).reshape(planes.shape[1:])
    if seen is not None:
        planes[bands:] *= seen
    return planes


def compand(sums: NDArray[np.uint32], out: NDArray[np.uint8]) -> None:
    """Sum of four pixels -> u8: its integer root, 2 sqrt(DN), full scale at DN 16 256.

    Steps of 1 DN in the dark, 128 DN over bright cloud. Exact in f32 on every machine: a correctly rounded root of an
    integer below 2^18 never reaches the next integer.
    """
    root = sums.astype(np.float32)
    np.sqrt(root, out=root)
    np.minimum(root, np.float32(255.0), out=root)
    out[:] = root  # truncates


def _one_value(planes: NDArray[np.uint8], seen: Mask | None) -> bool:
    """Whether every band shows one value where there is data; also where there is none."""
    for plane in planes:
        shown = plane if seen is None else plane[seen]
        if shown.size and shown.min() < shown.max():
            return False
    return True


def stretch_tables(sample: NDArray[np.uint8], settings: CloudSettings) -> NDArray[np.uint8]:
    """Look-ups u8 -> u8 between each band's percentiles (32 and 224), integers throughout. [B, m] -> [B, 256]"""
    bands, size = sample.shape
    places = sample + 256 * np.arange(bands, dtype=np.uint16)[:, None]
    counts = np.cumsum(np.bincount(places.ravel(), minlength=256 * bands).reshape(bands, 256), axis=1) * 1000
    low = (counts <= settings.low_permille * size).sum(axis=1, keepdims=True)
    high = (counts < settings.high_permille * size).sum(axis=1, keepdims=True)
    span = np.maximum(high - low, settings.least_span)
    values = 128 + (2 * np.arange(256) - (low + high)) * 96 // span
    return np.clip(values, 0, 255).astype(np.uint8)


def probabilities(logits: NDArray[np.int8], net: CloudNet, size: int) -> Parts:
    """Softmax over classes by table. Logits [4 s s, h, w], class-major -> [4, s, s, h, w]; sums are exact."""
    shape = _parts_shape(logits, net, size)
    steps = logits.reshape(len(CLASSES), -1)
    below = steps.max(axis=0).view(np.uint8) - steps.view(np.uint8)  # 0..255: the wrap-around undoes itself
    weight = np.take(net.exponentials, below)  # [4, s s h w]
    weight /= weight[CLEAR] + weight[THICK] + weight[THIN] + weight[SHADOW]
    return weight.reshape(shape)


def _parts_shape(logits: NDArray[np.int8], net: CloudNet, size: int) -> tuple[int, ...]:
    """[4, s, s, h, w] of the logits [4 s s, h, w] of a tile of size x size pixels; BundleError if they are no such."""
    classes, (h, w) = len(CLASSES), logits.shape[1:]
    s = size // net.settings.cell_px // h
    if logits.shape[0] != classes * s * s or logits.dtype != np.int8:
        found = f"{logits.dtype} {logits.shape}"
        raise BundleError(f"the cloud network gives {found}, wanted int8 [{classes * s * s}, h, w]; rebuild the bundle")
    return classes, s, s, h, w


def hazy_and_white(sums: NDArray[np.uint32]) -> Mask:
    """The second witness: Fmask's visible tests on averages of 2 x 2 pixels [B, n, n], as integers. [n, n]

    Zhu and Woodcock 2012 (Remote Sensing of Environment 118, 83-94), equations 2 and 3, thresholds as published:
    blue - red / 2 - .08 > 0, and sum |band - mean| / mean < .7 over the visible bands. It takes snow for cloud and
    haze-free pale ground for clear: the reverse of what the network is in doubt about.
    """
    blue, green, red = sums[[BLUE, GREEN, RED]].astype(np.int32)  # 4 DN, so .08 is 3 200
    total = blue + green + red
    spread = np.abs(3 * blue - total) + np.abs(3 * green - total) + np.abs(3 * red - total)
    return (2 * blue - red > 6400) & (10 * spread < 7 * total)


def flatten_clouds(tile: Tile, mask: CloudMask) -> Tile:
    """The tile with closed cloud smoothed to its 8 px averages, so that it costs few octets; everything else untouched.

    Only blocks whose eight neighbours are cloud too: the codec's transform overlaps by half a block, so no pixel that
    shows ground is touched by a changed one. Cloud past the tile's edge is unknown, so blocks there are left alone.
    """
    size = tile.valid.shape[0]
    n = size // BLOCK_PX
    closed = mask.cloudy.reshape(n, BLOCK_PX, n, BLOCK_PX).all(axis=(1, 3))
    inner = np.pad(closed, 1)
    inner = inner[:-2] & inner[1:-1] & inner[2:]
    inner = inner[:, :-2] & inner[:, 1:-1] & inner[:, 2:]
    if not inner.any():
        return tile
    chosen = inner.repeat(BLOCK_PX, axis=0).repeat(BLOCK_PX, axis=1)
    smooth = _smoothed(tile.dn)
    return Tile(tile.row, tile.col, np.where(chosen, smooth, tile.dn), tile.valid)


def _smoothed(dn: Dn) -> Dn:
    """Averages of 8 x 8 px, interpolated linearly between block centres. [B, T, T]"""
    bands, size, _ = dn.shape
    n = size // BLOCK_PX
    averages = dn.reshape(bands, n, BLOCK_PX, n, BLOCK_PX).mean(axis=(2, 4), dtype=np.float32)
    place = np.clip((np.arange(size) + 0.5) / BLOCK_PX - 0.5, 0.0, n - 1.0).astype(np.float32)
    low = np.minimum(place.astype(np.int64), n - 2)
    share = place - low
    rows = averages[:, low] * (1 - share)[:, None] + averages[:, low + 1] * share[:, None]
    wide = rows[:, :, low] * (1 - share) + rows[:, :, low + 1] * share
    return np.round(wide).astype(np.uint16)


class Action(Enum):
    """What becomes of a tile."""

    SEND = "send"
    REDUCE = "reduce"
    WITHHOLD = "withhold"


@dataclass(frozen=True)
class Decision:
    """The gate's word on one tile. `layers`: at most so many layers, None for all. Percentages of the valid pixels."""

    action: Action
    cloud_percent: float  # thick + thin
    thin_percent: float
    layers: int | None = None
    protected: bool = False  # would have been reduced or withheld, but touches a region of interest


def decide(mask: CloudMask, gate: Gate, tile: Tile | None = None) -> Decision:
    """Send, reduce or withhold by what is cloud beyond doubt; the percentages told are of all that is taken for cloud.

    `tile` is needed where the gate has regions; they must be in pixels by then.
    """
    cloud, thin = 100.0 * mask.cloud_fraction, 100.0 * mask.thin_fraction
    limits = (gate.withhold_above_percent, gate.reduce_above_percent)
    if 100.0 * mask.accused_fraction <= min(limit for limit in limits if limit is not None):
        return Decision(Action.SEND, cloud, thin)  # the second witness can only acquit, so it need not be heard
    counted = 100.0 * (mask.sure_fraction - (1.0 - gate.thin_counts) * mask.sure_thin_fraction)
    action = Action.SEND
    if counted > gate.withhold_above_percent:
        action = Action.WITHHOLD
    elif gate.reduce_above_percent is not None and counted > gate.reduce_above_percent:
        action = Action.REDUCE
    if action is Action.SEND:
        return Decision(action, cloud, thin)
    if gate.regions and touches_region(tile, gate):
        return Decision(Action.SEND, cloud, thin, protected=True)
    return Decision(action, cloud, thin, gate.reduced_layers if action is Action.REDUCE else None)


def touches_region(tile: Tile | None, gate: Gate) -> bool:
    """Whether a pixel of the tile lies in one of the gate's regions."""
    if tile is None:
        raise InputError("the gate has regions of interest, so decide() needs the tile and its place")
    size = tile.valid.shape[0]
    top, left = tile.row * size, tile.col * size
    for region in gate.regions:
        if not isinstance(region, Region):
            raise InputError(f"gate.regions: {region} is still in degrees; call regions_in_pixels with the scene first")
        rows_meet = region.top_px < top + size and region.bottom_px > top
        if rows_meet and region.left_px < left + size and region.right_px > left:
            return True
    return False
