"""The payload: what flies."""

from payload.version import VERSION

__version__ = VERSION
