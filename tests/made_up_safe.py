"""A made-up Sentinel-2 product: structure and names as in real ones, real JPEG 2000 images."""

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from payload.sensor import SENTINEL2

TILE = "T32TNS_20260418T103021"


def write_jp2(path: Path, plane: NDArray[np.uint16], block_px: int = 1024, gsd_m: float = 10.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", height=plane.shape[0], width=plane.shape[1], count=1, dtype="uint16",
        crs="EPSG:32632", transform=from_origin(499_980, 5_100_000, gsd_m, gsd_m),
        QUALITY="100", REVERSIBLE="YES", BLOCKXSIZE=str(block_px), BLOCKYSIZE=str(block_px),
    ) as file:  # fmt: skip
        file.write(plane, 1)


def metadata(level: str, offset: int | None, images: list[str], quantification: str = "10000") -> str:
    """MTD_MSIL1C.xml or MTD_MSIL2A.xml, shortened; element names, nesting and namespaces as in real products."""
    spaces = {"L1C": "Level-1C", "L2A": "Level-2A"}[level]
    if level == "L1C":
        scale = f'<QUANTIFICATION_VALUE unit="none">{quantification}</QUANTIFICATION_VALUE>'
        listed = "Radiometric_Offset_List", "RADIO_ADD_OFFSET"
    else:
        scale = (
            '<QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit="none">'
            f"{quantification}</BOA_QUANTIFICATION_VALUE>"
            '<AOT_QUANTIFICATION_VALUE unit="none">1000.0</AOT_QUANTIFICATION_VALUE></QUANTIFICATION_VALUES_LIST>'
        )
        listed = "BOA_ADD_OFFSET_VALUES_LIST", "BOA_ADD_OFFSET"
    # Each band's offset differs a little, so that a mix-up of band ids shows.
    offsets = "".join(f'<{listed[1]} band_id="{k}">{(offset or 0) - k}</{listed[1]}>' for k in range(13))
    files = "".join(f"<IMAGE_FILE>{name}</IMAGE_FILE>" for name in images)
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:{spaces}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_{spaces}.xsd">
 <n1:General_Info>
  <Product_Info>
   <PRODUCT_START_TIME>2026-04-18T10:30:21.024Z</PRODUCT_START_TIME>
   <PRODUCT_STOP_TIME>2026-04-18T10:30:21.024Z</PRODUCT_STOP_TIME>
   <PRODUCT_URI>S2B_MSI{level}_20260418T103021_N0511_R108_T32TNS_20260418T125900.SAFE</PRODUCT_URI>
   <PROCESSING_LEVEL>{spaces}</PROCESSING_LEVEL>
   <PROCESSING_BASELINE>{"05.11" if offset else "02.08"}</PROCESSING_BASELINE>
   <Product_Organisation><Granule_List>
    <Granule datastripIdentifier="S2B_DS" granuleIdentifier="S2B_TL" imageFormat="JPEG2000">{files}</Granule>
   </Granule_List></Product_Organisation>
  </Product_Info>
  <Product_Image_Characteristics>
   <Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>
   <Special_Values><SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>65535</SPECIAL_VALUE_INDEX></Special_Values>
   {scale}
   {"" if offset is None else f"<{listed[0]}>{offsets}</{listed[0]}>"}
  </Product_Image_Characteristics>
 </n1:General_Info>
</n1:{spaces}_User_Product>
"""


def all_bands(
    root: Path, level: str, side_m: int = 960, smooth: bool = False
) -> tuple[Path, dict[str, NDArray[np.uint16]]]:
    """A product of every band of a level, each on its native grid; and its raw numbers: noise, or waves."""
    product = root / f"S2B_MSI{level}_20260418T103021_N0511_R108_T32TNS_20260418T125900.SAFE"
    planes, listed = {}, []
    for number, (band, said) in enumerate(SENTINEL2.items()):
        if band == "B10" and level == "L2A":
            continue
        side, rng = int(side_m / said.gsd_m), np.random.default_rng(number)
        planes[band] = rng.integers(2000, 6000, (side, side)).astype(np.uint16)
        if smooth:
            at_m = np.arange(side) * said.gsd_m
            waves = 4000 + 1500 * np.add.outer(np.sin(at_m / (300 + 20 * number)), np.cos(at_m / 410))
            planes[band] = (waves + rng.normal(0, 20, (side, side))).clip(1100, 9000).astype(np.uint16)
        native = f"R{said.gsd_m:g}m/{TILE}_{band}_{said.gsd_m:g}m" if level == "L2A" else f"{TILE}_{band}"
        listed.append(f"GRANULE/A/IMG_DATA/{native}")
        write_jp2(product / f"{listed[-1]}.jp2", planes[band], gsd_m=said.gsd_m)
    coarser = [name.replace("10m", "60m") for name in listed if "R10m" in name]  # listed beside the native ones
    text = metadata(level, -1000, [*listed, *coarser])
    (product / f"MTD_MSI{level}.xml").write_text(text, encoding="utf-8")
    return product, planes
