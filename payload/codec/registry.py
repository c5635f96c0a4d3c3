"""The codecs there are, by the name that a bundle carries as `codec.kind`.

A codec is registered as an entry point of group `nadir.codecs`, the shipped ones as well as yours: a callable
`(bundle, engine or None) -> Codec`, which a class is. Where no package is installed (a board that runs from one zip
file) the shipped ones are found by the same names.
"""

from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from payload.bundle import BARE, Bundle
from payload.codec.interface import Bounding, Codec
from payload.engine import Engine
from payload.errors import BundleError
from payload.link.tile_code import Kind
from payload.policy import Profile

GROUP = "nadir.codecs"
#: As registered in pyproject.toml (a test holds the two together).
SHIPPED = {
    "fsq": "payload.codec.lapped.codec:FsqCodec",
    "fsq-groups": "payload.codec.lapped.many.groups:GroupsCodec",
    "vq": "payload.codec.vq.codec:VqCodec",
    BARE: "payload.codec.jpeg2000:FallbackCodec",
}
MakeCodec = Callable[[Bundle, Engine | None], Codec]


def open_codec(
    bundle: Bundle, engine: Engine | None = None, within_bounds: bool = False, profile: Profile = "fast"
) -> Codec:
    """The codec a bundle's manifest names; without an engine it decodes only. BundleError where there is none, or where
    it shall keep bounds or code in a profile and cannot. A fallback flies all the same: its tiles say what they are."""
    codec = _maker(str(bundle.codec.get("kind"))[:60], bundle.name)(bundle, engine)
    if codec.code_kind is not Kind.CODED:
        return codec
    if within_bounds and not isinstance(codec, Bounding):
        raise BundleError(
            f"bundle {bundle.name}: its codec has no residual layer for max_error_dn; fly edge, or leave it out"
        )
    if profile != "fast" and not codec.follows_quality:
        raise BundleError(
            f"bundle {bundle.name}: its indices have one length, so it has no profile {profile!r}; fly edge, or leave "
            "profile out"
        )
    return codec


def open_fallback(bundle: Bundle) -> Codec:
    """The codec that needs nothing of a bundle but its bands and the size of its tiles."""
    return _maker(BARE, bundle.name)(bundle, None)


@cache
def _registered(find: Callable[..., Any]) -> tuple[EntryPoint, ...]:
    """Looked for once in a process: it means reading a file of every package that is installed."""
    return tuple(find(group=GROUP))


def _maker(kind: str, bundle_name: str) -> MakeCodec:
    registered = _registered(entry_points)
    found = {point.value: point for point in registered if point.name == kind}
    if not found and kind in SHIPPED:
        found = {SHIPPED[kind]: EntryPoint(kind, SHIPPED[kind], GROUP)}
    if not found:
        names = ", ".join(sorted({*SHIPPED, *(point.name for point in registered)}))
        raise BundleError(
            f"bundle {bundle_name}: codec kind {kind!r} is unknown, wanted one of {names}; "
            "install the package that registers it, update Nadir, or rebuild the bundle"
        )
    if len(found) > 1:
        raise BundleError(
            f"bundle {bundle_name}: codec kind {kind!r} is registered {len(found)} times "
            f"({' and '.join(sorted(found))}); uninstall all packages but one"
        )
    (point,) = found.values()
    try:
        maker: MakeCodec = point.load()
    except (ImportError, AttributeError) as error:
        raise BundleError(
            f"bundle {bundle_name}: codec kind {kind!r} is registered as {point.value}, which does not load ({error}); "
            "install its package again"
        ) from None
    return maker
