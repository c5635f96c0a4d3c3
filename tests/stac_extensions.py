"""Local schemas of the STAC extensions that items use, written from the tables of their specifications: tests need no
network. Each holds the fields that Nadir writes; a field of the extension's prefix that is not listed is an error."""

from typing import Any

NUMBER, TEXT, WHOLE = {"type": "number"}, {"type": "string"}, {"type": "integer", "minimum": 0}
CLASSES = {
    "type": "array", "minItems": 1, "items": {
        "type": "object", "required": ["value"], "properties": {
            "value": {"type": "integer"}, "name": {"type": "string", "pattern": "^[0-9A-Za-z-_]+$"},
            "description": TEXT, "color_hint": {"type": "string", "pattern": "^[0-9A-F]{6}$"},
        },
    },
}  # fmt: skip
FIELDS: dict[str, dict[str, Any]] = {
    "projection/v2.0.0": {
        "proj:code": {"type": ["string", "null"], "pattern": "^[A-Za-z0-9]+:[A-Za-z0-9_.-]+$"},
        "proj:wkt2": {"type": ["string", "null"]},
        "proj:shape": {"type": "array", "minItems": 2, "maxItems": 2, "items": WHOLE},
        "proj:transform": {"type": "array", "minItems": 6, "maxItems": 9, "items": NUMBER},
    },
    "eo/v2.0.0": {
        "eo:cloud_cover": {"type": "number", "minimum": 0, "maximum": 100},
        "eo:common_name": {"enum": ["pan", "coastal", "blue", "green", "green05", "yellow", "red", "rededge",
                                    "rededge071", "rededge075", "rededge078", "nir", "nir08", "nir09", "cirrus",
                                    "swir16", "swir22", "lwir", "lwir11", "lwir12"]},
        "eo:center_wavelength": {"type": "number", "exclusiveMinimum": 0, "maximum": 100},
        "eo:full_width_half_max": {"type": "number", "exclusiveMinimum": 0},
    },
    "raster/v2.0.0": {
        "raster:scale": NUMBER, "raster:offset": NUMBER, "raster:bits_per_sample": WHOLE,
        "raster:spatial_resolution": NUMBER,
    },
    "file/v2.1.0": {
        "file:checksum": {"type": "string", "pattern": "^1220[0-9a-f]{64}$"},  # multihash of SHA-256
        "file:size": WHOLE,
    },
    "processing/v1.2.0": {
        "processing:software": {"type": "object", "minProperties": 1, "additionalProperties": TEXT},
        "processing:lineage": TEXT, "processing:facility": TEXT,
    },
    "classification/v2.0.0": {"classification:classes": CLASSES},
    "sat/v1.1.0": {"sat:platform_international_designator": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{3}[A-Z]"}},
}  # fmt: skip


def schemas() -> dict[str, dict[str, Any]]:
    """Schema of each extension by its URI."""
    return {uri: _schema(uri, fields) for name, fields in FIELDS.items() for uri in [_uri(name)]}


def _uri(name: str) -> str:
    return f"https://stac-extensions.github.io/{name}/schema.json"


def _schema(uri: str, fields: dict[str, Any]) -> dict[str, Any]:
    prefix = next(iter(fields)).split(":")[0]
    table = {"type": "object", "properties": fields, "patternProperties": {
        f"^(?!({'|'.join(fields)})$){prefix}:": False,
    }}  # fmt: skip
    bands = {"type": "object", "properties": {"bands": {"type": "array", "items": table}}}
    assets = {"type": "object", "minProperties": 1, "additionalProperties": {"allOf": [table, bands]}}
    listed = {"type": "array", "contains": {"const": uri}}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#", "$id": uri, "type": "object",
        "required": ["stac_extensions", "properties", "assets"],
        "properties": {"stac_extensions": listed, "properties": table, "assets": assets},
    }  # fmt: skip
