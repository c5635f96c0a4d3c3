"""What several commands share: exit codes, options, and how a bundle is told of."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from export.builds import flight_networks
from payload.bundle import Bundle
from payload.errors import InputError

HELD, NOT_HELD, BAD_INPUT = 0, 1, 2
#: Finest steps (DN) at which indices are compared: fine, usual, coarse.
STEPS_DN = (12.0, 40.0, 160.0)
#: What `add_subparsers` gives: argparse has no public name for it.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=run)
    return parser


def takes_bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", help="a bundle's folder, or the name of one that is shipped")


def takes_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--network", help="only this network, e.g. flight/encoder.onnx")


def takes_clouds(parser: argparse.ArgumentParser) -> None:
    kept = Path(__file__).parents[1] / "checkpoints" / "clouds" / "shipped"
    parser.add_argument("--clouds", type=Path, default=kept, help="folder of the cloud network; default the one kept")


def kept_ground_clouds() -> Path:
    """Where the ground's cloud network of the shipped rotation lies."""
    return Path(__file__).parents[1] / "checkpoints" / "ground_clouds" / "shipped"


def takes_pool(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pool", type=Path, help="real tiles, .npz; default train/tiles128.npz of the data folder")


def takes_tiles(parser: argparse.ArgumentParser, tiles: int) -> None:
    parser.add_argument("--tiles", type=positive, default=tiles, help=f"how many tiles; default {tiles}")
    takes_pool(parser)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def networks_of(bundle: Bundle, only: str | None) -> list[str]:
    """Manifest names of the networks that fly, or the one asked for. InputError if the bundle has none of that name."""
    names = flight_networks(bundle)
    if only is not None and only not in names:
        raise InputError(f"bundle {bundle.name}: no network {only}; it has {', '.join(names)}")
    return [only] if only else names


def say(line: str) -> None:
    """Progress, beside the results."""
    print(line, file=sys.stderr)


def print_bundle(bundle: Bundle) -> None:
    print(f"bundle {bundle.name}, id {bundle.bundle_id:08x}, in {bundle.directory}")
    for name, n in bundle.manifest.get("networks", {}).items():
        print(
            f"  {name}: {n['octets']} octets, {n['parameters']} parameters, {n['macs_per_px']} MAC/px, "
            f"peak activations {n['peak_activation_octets']} octets"
        )
