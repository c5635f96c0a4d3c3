"""Where a product comes from: what every file that leaves the ground says of its scene, mission, bundle and software.

All of it is known to the ground alone: it came down in the scene header, or is the mission's and the ground's own.
"""

from dataclasses import dataclass

from payload.scene import SceneInfo
from payload.version import described

AIDED = "archive-aided: refined by other dates inside what was sent; reconstruction.tif is the product without them"
GENERATED = "Generated scene: no satellite took it"
SENTINEL_ATTRIBUTION = "Contains modified Copernicus Sentinel data"


@dataclass(frozen=True)
class Origin:
    """Mission, bundle and scene of one product. `designator`: COSPAR's of the satellite, where the mission has one.
    `aided_by`: archive scenes without which the product would be another."""

    mission: str
    title: str
    bundle: str  # its id, eight hexadecimal digits, or "unknown"
    scene_id: int | None = None
    designator: str | None = None
    aided_by: tuple[str, ...] = ()

    @property
    def scene(self) -> str:
        return "none" if self.scene_id is None else f"{self.scene_id:08x}"

    def tags(self, info: SceneInfo) -> dict[str, str]:
        """Tags of a raster, TIFF's own where there is one."""
        tags = {
            "TIFFTAG_IMAGEDESCRIPTION": info.name, "TIFFTAG_SOFTWARE": f"nadir-payload {described()}",
            "TIFFTAG_COPYRIGHT": attribution(info), "NADIR_MISSION": self.mission, "NADIR_BUNDLE": self.bundle,
            "NADIR_SCENE": self.scene,
        }  # fmt: skip
        if info.sensed_at is not None:
            tags["ACQUISITIONDATETIME"] = info.sensed_at
        if self.aided_by:
            tags |= {"NADIR_PRODUCT": AIDED, "NADIR_AIDED_BY": "; ".join(self.aided_by)}
        return tags


#: A raster that says nothing of where it comes from.
UNKNOWN = Origin("unknown", "unknown", "unknown")


def attribution(info: SceneInfo) -> str:
    """Whose data a scene is."""
    return GENERATED if info.name.startswith("demo") else f"{SENTINEL_ATTRIBUTION}, where the scene is Sentinel-2"


def designator_of(tle_1: str | None) -> str | None:
    """COSPAR's designator in the first line of an element set ("15028A"): "2015-028A"."""
    text = tle_1[9:17].strip() if tle_1 else ""
    if len(text) < 6 or not text[:5].isdigit():
        return None
    return f"{'19' if text[:2] >= '57' else '20'}{text[:2]}-{text[2:]}"
