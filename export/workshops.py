"""What each kind of codec offers the workshop: how its recipe is trained, and what a bundle of it holds.

The counterpart of payload/codec/registry.py. A kind is a module with the functions of `Workshop`; nobody else asks a
recipe or a bundle for its kind.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from payload.errors import InputError

TorchModel = Callable[..., list[NDArray[Any]]]
#: Codec kind, as recipes and manifests write it -> the module that knows how it is made.
KINDS = {"fsq": "export.lapped.workshop", "vq": "export.vq.workshop"}


@dataclass(frozen=True)
class Parts:
    """What a bundle is assembled from: files by manifest name, the manifest's "codec" table, how ranges were set."""

    files: Mapping[str, Path | bytes]
    codec: Mapping[str, Any]
    calibration: str


class Workshop(Protocol):
    """The functions of a kind's module."""

    #: Checkpoints that decide the networks; their digest stands in the manifest.
    CHECKPOINTS: tuple[str, ...]
    #: Every file of the checkpoint folder that a bundle is built from.
    NEEDED: tuple[str, ...]
    #: Stages that can be trained alone, in order.
    STAGES: tuple[str, ...]

    def train(self, recipe: dict[str, Any], stage: str, out: Path, pool: Path | None, fresh: bool) -> None:
        """One stage, or "all", from nothing (`fresh`) or from the newest checkpoints; they and logs go into `out`."""
        ...

    def parts(self, recipe: dict[str, Any], folder: Path, scratch: Path) -> Parts:
        """Trained networks exported into `scratch`."""
        ...

    def torch_encoder(self, recipe: dict[str, Any], folder: Path) -> TorchModel:
        """The trained flight network, as a function of the arrays that fly."""
        ...


def workshop_for(recipe: Mapping[str, Any]) -> Workshop:
    """By the "kind" of a recipe. InputError if nobody here makes it."""
    kind = recipe.get("kind")
    if kind not in KINDS:
        raise InputError(f"codec kind {kind!r} is not made here; this workshop knows {', '.join(KINDS)}")
    return cast(Workshop, import_module(KINDS[kind]))
