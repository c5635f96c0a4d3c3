"""Whose encoder codes a scene on this host: a runtime's, or the compiled kernel's where the scene is large."""

from payload.bundle import Bundle
from payload.codec.registry import open_codec
from payload.engine import NATIVE, Engine, open_engine
from payload.errors import BundleError
from payload.native import library
from payload.scene import SceneInfo

#: Not an engine: `openvino`, and `native` for a scene of more pixels than LARGE_PX, where kernel and bundle have it.
ANY_ENGINE, USUAL = "auto", "openvino"
LARGE_PX = 1 << 25


def engine_for(asked: str | Engine, info: SceneInfo, bundle: Bundle) -> tuple[Engine, tuple[str, ...]]:
    """The engine that is meant for a scene, and what is to be said of it where ANY_ENGINE chose the kernel. One that is
    open already is taken as it is."""
    if not isinstance(asked, str):
        return asked, ()
    pixels = info.height_px * info.width_px
    if asked != ANY_ENGINE:
        return open_engine(asked), ()
    if pixels <= LARGE_PX or not library.available:
        return open_engine(USUAL), ()
    native = open_engine(NATIVE)
    try:
        open_codec(bundle, native)
    except BundleError:  # no kernels among its tables
        return open_engine(USUAL), ()
    why = f"coded by engine native: {pixels / 1e6:.0f} Mpx are more than {LARGE_PX / 1e6:.0f}"
    return native, (f"{why}; --engine {USUAL} gives the same octets in about twice the time",)
