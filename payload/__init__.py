"""The payload: what flies."""

from payload.version import __version__ as __version__
