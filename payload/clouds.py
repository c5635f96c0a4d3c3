"""Tile -> cloud mask -> what to do with the tile. An INT8 network judges, integers and fixed tables do the rest.

    tile --input_planes--> u8 [2B, T, T] --network--> logits --softmax by table--> CloudMask --decide--> Decision

The planes are the bands twice: once on a fixed scale (square root of DN), so that brightness keeps its meaning, and
once stretched between the tile's own percentiles, so that the network carries to sensors with another calibration, as
OmniCloudMask does (Wright et al. 2025). Both are integer look-ups: nothing before or after the network can round
differently on another machine.

A tile that shows one single value per band (no data, saturated, constant) is not judged: probability 0, so it is sent.
It costs a few octets, and the gate throws away only what it has judged.
"""

from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.bundle import Bundle
from payload.engine import Engine, Network
from payload.errors import BundleError, InputError
from payload.policy import Gate, Region
from payload.scene import Dn, Mask
from payload.tiles import Tile

CLASSES = ("clear", "thick", "thin", "shadow")
CLEAR, THICK, THIN, SHADOW = range(4)
NETWORK_FILE = "flight/clouds.onnx"

#: The codec's transform block.
BLOCK_PX = 8
#: The tile's percentiles are read from every 4th pixel of every 4th row.
SAMPLE_EVERY_PX = 4


@dataclass(frozen=True)
class CloudSettings:
    """The network's parameters, from manifest["clouds"].

    `cell_px`: pixels along one cell of the mask. `logit_step`: value of one integer step of the logits, divided by the
    calibration temperature. `cloudy_above`: probability from which a pixel counts as cloud. `low_permille`,
    `high_permille`: percentiles of the stretch; `least_span`: the least width of the stretch, in companded steps, so
    that noise of an even tile is not blown up.
    """

    cell_px: int = 2
    stride_px: int = 16
    logit_step: float = 0.125
    temperature: float = 1.0
    cloudy_above: float = 0.5
    low_permille: int = 20
    high_permille: int = 980
    least_span: int = 24

    def __post_init__(self) -> None:
        if self.cell_px not in (1, 2, 4, 8) or self.stride_px % self.cell_px:
            raise InputError(f"clouds.cell_px is {self.cell_px}, wanted 1, 2, 4 or 8 and a divisor of {self.stride_px}")
        if not 0.0 < self.cloudy_above < 1.0:
            raise InputError(f"clouds.cloudy_above is {self.cloudy_above}, wanted between 0 and 1")
        if not 0 <= self.low_permille < self.high_permille <= 1000:
            found = f"{self.low_permille} to {self.high_permille}"
            raise InputError(f"clouds: percentiles of {found} permille, wanted 0 <= low < high <= 1000")
        if self.logit_step <= 0.0 or self.temperature <= 0.0 or self.least_span < 1:
            raise InputError("clouds: logit_step, temperature and least_span must be positive")


@dataclass(frozen=True, eq=False)
class CloudMask:
    """What the network says about a tile. `cells`: probabilities of CLASSES per cell; their sum is 1, or 0 unjudged."""

    cells: NDArray[np.float32]  # [4, T / cell_px, T / cell_px]
    valid: Mask  # [T, T]
    cloudy_above: float = 0.5

    @property
    def cell_px(self) -> int:
        return self.valid.shape[0] // self.cells.shape[1]

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """Cloud probability (thick + thin) of every pixel, 0 where there is no data. [T, T]"""
        return self._pixels(self.cells[THICK] + self.cells[THIN]) * self.valid

    @cached_property
    def cloudy(self) -> Mask:
        """Pixels taken for cloud, thick or thin. [T, T]"""
        return self._pixels(self._cloudy_cells) & self.valid

    @property
    def cloud_fraction(self) -> float:
        """Share of the valid pixels that are cloud, thick or thin."""
        return self._share(self._cloudy_cells)

    @property
    def thin_fraction(self) -> float:
        """Share of the valid pixels that are thin cloud."""
        return self._share(self._cloudy_cells & (self.cells[THIN] > self.cells[THICK]))

    @property
    def shadow_fraction(self) -> float:
        """Share of the valid pixels that lie in a cloud's shadow."""
        return self._share(~self._cloudy_cells & (self.cells[SHADOW] > self.cells[CLEAR]))

    @cached_property
    def _cloudy_cells(self) -> Mask:
        return self.cells[THICK] + self.cells[THIN] > self.cloudy_above

    @cached_property
    def _valid_px(self) -> NDArray[np.int64] | None:
        """Valid pixels of each cell; None where all are."""
        if self.valid.all():
            return None
        n, c = self.cells.shape[1], self.cell_px
        return self.valid.reshape(n, c, n, c).sum(axis=(1, 3))

    def _share(self, chosen: Mask) -> float:
        if self._valid_px is None:
            return float(chosen.mean())
        total = int(self._valid_px.sum())
        return float(self._valid_px[chosen].sum() / total) if total else 0.0

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
    """The bundle's cloud network, refused unless every convolution runs in INT8. BundleError if it holds none."""
    settings = bundle.manifest.get("clouds")
    if not isinstance(settings, dict):
        raise BundleError(f"bundle {bundle.name}: no cloud network in its manifest; rebuild it or use another bundle")
    return CloudNet(engine.load(bundle.file(NETWORK_FILE), require_int8=True), read_settings(settings))


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
    if planes is None:
        cells = size // settings.cell_px
        return CloudMask(np.zeros((len(CLASSES), cells, cells), np.float32), tile.valid, settings.cloudy_above)
    logits = net.network.run(planes[None])[0][0]  # [4 s s, T / 4, T / 4], s sub-cells a side
    return CloudMask(probabilities(logits, net, size), tile.valid, settings.cloudy_above)


def input_planes(dn: Dn, valid: Mask, settings: CloudSettings) -> NDArray[np.uint8] | None:
    """The network's input, u8 [2B, T, T]: companded bands, then the same stretched. None: nothing to judge."""
    bands = dn.shape[0]
    planes = np.empty((2 * bands, *dn.shape[1:]), np.uint8)
    compand(dn, planes[:bands])
    full = bool(valid.all())
    if _one_value(planes[:bands], valid, full):
        return None
    if not full:
        planes[:bands] *= valid
    every = slice(None, None, SAMPLE_EVERY_PX)
    sample = planes[:bands, every, every][:, valid[every, every]]
    if sample.shape[1] == 0:  # a sliver of data between the samples
        sample = planes[:bands, valid]
    for band in range(bands):
        # bytes.translate is a look-up without numpy's detour over 64-bit indices: 20 times quicker.
        stretched = planes[band].tobytes().translate(stretch_table(sample[band], settings).tobytes())
        planes[bands + band] = np.frombuffer(stretched, np.uint8).reshape(planes.shape[1:])
    if not full:
        planes[bands:] *= valid
    return planes


def compand(dn: Dn, out: NDArray[np.uint8]) -> None:
    """DN -> u8: floor(2 sqrt(DN)), full scale at DN 16 256; steps of 1 DN in the dark, 128 DN over bright cloud.

    Exact in f32 on every machine: a correctly rounded root of 4 DN < 2^18 never reaches the next integer.
    """
    root = dn.astype(np.float32)
    np.minimum(root, 16_384.0, out=root)
    root *= 4.0
    np.sqrt(root, out=root)
    np.minimum(root, 255.0, out=root)
    out[:] = root  # truncates


def _one_value(planes: NDArray[np.uint8], valid: Mask, full: bool) -> bool:
    """Whether every band shows one value where there is data; also where there is none."""
    for plane in planes:
        lowest = (plane if full else plane | ~valid * np.uint8(255)).min()  # 255 where there is no data
        highest = (plane if full else plane * valid).max()
        if lowest < highest:
            return False
    return True


def stretch_table(sample: NDArray[np.uint8], settings: CloudSettings) -> NDArray[np.uint8]:
    """u8 -> u8 between the sample's percentiles (32 and 224), integers throughout. [256]"""
    counts = np.cumsum(np.bincount(sample, minlength=256))
    low = int(np.searchsorted(counts * 1000, settings.low_permille * sample.size, side="right"))
    high = int(np.searchsorted(counts * 1000, settings.high_permille * sample.size))
    middle2, span = low + high, max(high - low, settings.least_span)
    values = 128 + (2 * np.arange(256) - middle2) * 96 // span
    return np.clip(values, 0, 255).astype(np.uint8)


def probabilities(logits: NDArray[np.int8], net: CloudNet, size: int) -> NDArray[np.float32]:
    """Softmax over classes by table. Logits [4 s s, h, w], class-major -> cells [4, h s, w s]; sums are exact."""
    classes, h = len(CLASSES), logits.shape[1]
    s = size // net.settings.cell_px // h
    if logits.shape[0] != classes * s * s or logits.dtype != np.int8:
        found = f"{logits.dtype} {logits.shape}"
        raise BundleError(f"the cloud network gives {found}, wanted int8 [{classes * s * s}, h, w]; rebuild the bundle")
    steps = logits.reshape(classes, -1)
    below = steps.max(axis=0).view(np.uint8) - steps.view(np.uint8)  # 0..255: the wrap-around undoes itself
    weight = np.take(net.exponentials, below)  # [4, s s h w]
    weight /= weight[CLEAR] + weight[THICK] + weight[THIN] + weight[SHADOW]
    cells = weight.reshape(classes, s, s, h, h).transpose(0, 3, 1, 4, 2)
    return np.ascontiguousarray(cells).reshape(classes, h * s, h * s)


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
    """Send, reduce or withhold. `tile` is needed where the gate has regions; they must be in pixels by then."""
    cloud, thin = 100.0 * mask.cloud_fraction, 100.0 * mask.thin_fraction
    counted = cloud - (1.0 - gate.thin_counts) * thin
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
