"""The capabilities of a Web Map Tile Service 1.0.0 (OGC 07-057r7) over the same tiles, for QGIS, GDAL and others."""

from collections.abc import Iterable, Iterator
from xml.sax.saxutils import escape, quoteattr

from sim.viewer.shelf import ShownScene
from sim.viewer.tiles import SIDE_PX, STYLES

MATRIX_SET = "GoogleMapsCompatible"
DEEPEST = 18
SCALE_0 = 559082264.0287178  # of level 0, by the standard's annex E.4
HALF_M = 20037508.3427892
NAMESPACES = (
    'xmlns="http://www.opengis.net/wmts/1.0" xmlns:ows="http://www.opengis.net/ows/1.1" '
    'xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:gml="http://www.opengis.net/gml" version="1.0.0"'
)


def names(scenes: Iterable[ShownScene]) -> Iterator[tuple[str, ShownScene, str, str]]:
    """(identifier, scene, layer, style) of every layer that is offered."""
    for scene in scenes:
        for layer in scene.layers:
            yield from ((f"{scene.key}-{layer}-{style}", scene, layer, style) for style in STYLES[layer])


def capabilities(scenes: Iterable[ShownScene], base: str) -> str:
    """`base`: the server's own address, as the client wrote it."""
    layers = "".join(_layer(*entry, base) for entry in names(scenes))
    key = f'<ows:DCP><ows:HTTP><ows:Get xlink:href={quoteattr(base + "/wmts?")}><ows:Constraint name="GetEncoding">'
    key += "<ows:AllowedValues><ows:Value>KVP</ows:Value></ows:AllowedValues></ows:Constraint></ows:Get>"
    key += "</ows:HTTP></ows:DCP>"
    operations = "".join(
        f'<ows:Operation name="{name}">{key}</ows:Operation>' for name in ("GetCapabilities", "GetTile")
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><Capabilities {NAMESPACES}><ows:ServiceIdentification>'
        "<ows:Title>Nadir</ows:Title><ows:ServiceType>OGC WMTS</ows:ServiceType>"
        "<ows:ServiceTypeVersion>1.0.0</ows:ServiceTypeVersion></ows:ServiceIdentification>"
        f"<ows:OperationsMetadata>{operations}</ows:OperationsMetadata>"
        f"<Contents>{layers}{_matrix_set()}</Contents>"
        f"<ServiceMetadataURL xlink:href={quoteattr(base + '/wmts/1.0.0/WMTSCapabilities.xml')}/></Capabilities>"
    )


def _layer(identifier: str, scene: ShownScene, layer: str, style: str, base: str) -> str:
    west, south, east, north = scene.bbox
    template = f"{base}/tiles/{scene.key}/{layer}/{style}/{{TileMatrix}}/{{TileCol}}/{{TileRow}}.png"
    return (
        f"<Layer><ows:Title>{escape(f'{scene.name}: {layer}, {style}')}</ows:Title><ows:WGS84BoundingBox>"
        f"<ows:LowerCorner>{west:.8f} {south:.8f}</ows:LowerCorner><ows:UpperCorner>{east:.8f} {north:.8f}"
        f"</ows:UpperCorner></ows:WGS84BoundingBox><ows:Identifier>{identifier}</ows:Identifier>"
        '<Style isDefault="true"><ows:Identifier>default</ows:Identifier></Style><Format>image/png</Format>'
        f"<TileMatrixSetLink><TileMatrixSet>{MATRIX_SET}</TileMatrixSet></TileMatrixSetLink>"
        f'<ResourceURL format="image/png" resourceType="tile" template={quoteattr(template)}/></Layer>'
    )


def _matrix_set() -> str:
    matrices = "".join(
        f"<TileMatrix><ows:Identifier>{z}</ows:Identifier><ScaleDenominator>{SCALE_0 / 2**z!r}</ScaleDenominator>"
        f"<TopLeftCorner>-{HALF_M} {HALF_M}</TopLeftCorner><TileWidth>{SIDE_PX}</TileWidth><TileHeight>{SIDE_PX}"
        f"</TileHeight><MatrixWidth>{2**z}</MatrixWidth><MatrixHeight>{2**z}</MatrixHeight></TileMatrix>"
        for z in range(DEEPEST + 1)
    )
    return (
        f"<TileMatrixSet><ows:Identifier>{MATRIX_SET}</ows:Identifier>"
        "<ows:SupportedCRS>urn:ogc:def:crs:EPSG::3857</ows:SupportedCRS>"
        f"<WellKnownScaleSet>urn:ogc:def:wkss:OGC:1.0:{MATRIX_SET}</WellKnownScaleSet>{matrices}</TileMatrixSet>"
    )
