"""What a profile holds besides times and energy: layers, accuracy, a sustained run, the meter."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class LayerTime:
    """One layer of a network as the runtime runs it. Octets: what goes in and out, the least that must move."""

    network: str
    name: str
    kind: str
    precision: str
    macs: float
    octets: float
    seconds: float

    @property
    def gmac_s(self) -> float:
        return self.macs / self.seconds / 1e9

    @property
    def macs_per_octet(self) -> float:
        return self.macs / self.octets if self.octets else 0.0


@dataclass(frozen=True)
class CloudAgreement:
    """Pixels by what the device takes for cloud and what is known to be. `basis`: who knows it."""

    basis: str
    both_px: int
    found_only_px: int
    true_only_px: int
    neither_px: int

    @property
    def iou(self) -> float | None:
        """None where neither side has a cloud."""
        union = self.both_px + self.found_only_px + self.true_only_px
        return self.both_px / union if union else None

    @property
    def precision(self) -> float | None:
        found = self.both_px + self.found_only_px
        return self.both_px / found if found else None

    @property
    def recall(self) -> float | None:
        true = self.both_px + self.true_only_px
        return self.both_px / true if true else None


@dataclass(frozen=True)
class Accuracy:
    """On the tiles that were timed, from the device's own tile codes and masks.

    `bpp`: bits a pixel, all bands together, over all tiles; `coded_bpp` over the coded ones. `distortion`: figures of
    the ground's own names (psnr_10k_pooled_db: peak 10 000, pooled over the coded tiles).
    """

    tiles: int
    decoded: int
    octets: int
    bpp: float
    coded_bpp: float | None = None
    distortion: dict[str, float] = field(default_factory=dict)
    clouds: CloudAgreement | None = None


@dataclass(frozen=True)
class SoakPoint:
    """A stretch of a sustained run. None: the device does not tell."""

    t_s: float  # its middle, from the start
    tiles: int
    tile_s: float  # mean
    clock_mhz: float | None = None
    hottest_c: float | None = None


@dataclass(frozen=True)
class Soak:
    """Work without a pause. First and last: means over the first and the last tenth of the time."""

    seconds: float
    tiles: int
    first_tile_s: float
    last_tile_s: float
    slowest_tile_s: float
    points: tuple[SoakPoint, ...]
    governors: tuple[str, ...] = ()
    throttling: dict[str, float] = field(default_factory=dict)  # counter or state -> by how much it rose at most
    missing: tuple[str, ...] = ()  # what the device does not tell

    @property
    def slowdown(self) -> float:
        """By which factor a tile takes longer at the end."""
        return self.last_tile_s / self.first_tile_s


@dataclass(frozen=True)
class MeterNote:
    """What measured the power, and how far it is to be trusted."""

    about: str  # kind of instrument and how it is read
    samples_per_s: float | None = None
    calibration: str = ""  # as stated by who measured; "" where nobody said
    sync_uncertainty_s: float | None = None  # between the meter's clock and the device's
    sync_error_j: float | None = None  # what that can shift into or out of the window of work
