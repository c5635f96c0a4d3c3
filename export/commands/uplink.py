"""`sign` and `delta`: what goes up to the satellite."""

import argparse
from pathlib import Path

from export.commands.shared import HELD, Commands, add_command, print_bundle
from payload.bundle import load_bundle
from payload.errors import InputError


def add_to(commands: Commands) -> None:
    sign = add_command(commands, "sign", _sign, "sign a bundle with Ed25519")
    sign.add_argument("bundle", nargs="?")
    sign.add_argument("--key", type=Path)
    sign.add_argument("--new-key", type=Path)
    sign.add_argument("--serial", type=int, help="number of this issue: a device refuses a lower one than it has run")

    delta = add_command(commands, "delta", _delta, "what must be uplinked to get from one bundle to another")
    delta.add_argument("old", help="the bundle on board")
    delta.add_argument("new", help="the new bundle; with --apply, the folder to build it in")
    delta.add_argument("--out", type=Path, help="write the delta here")
    delta.add_argument("--with-ir", action="store_true", help="networks also as OpenVINO IR: their weights twice")
    delta.add_argument("--apply", type=Path, help="apply this delta instead of making one")


def _sign(arguments: argparse.Namespace) -> int:
    from export.bundle.sign import new_key, public_path, sign_bundle
    from payload.signature import key_id

    if arguments.new_key:
        public = new_key(arguments.new_key)
        where = f"{arguments.new_key} (keep it secret), {public_path(arguments.new_key)} (trust it)"
        print(f"key {key_id(public)}: {where}")
    if arguments.bundle:
        if not arguments.key:
            raise InputError("no key given; --key KEY.pem signs, --new-key KEY.pem makes one")
        bundle = load_bundle(arguments.bundle)
        signature = sign_bundle(bundle.directory, arguments.key, arguments.serial)
        print(f"bundle {bundle.name} signed by key {signature.key_id}")
    return HELD


def _delta(arguments: argparse.Namespace) -> int:
    from export.bundle.delta import apply_delta, as_text, make_delta

    if arguments.apply:
        try:
            octets = arguments.apply.read_bytes()
        except OSError as error:
            raise InputError(f"{arguments.apply}: {error.strerror}; give a delta file") from None
        print_bundle(apply_delta(load_bundle(arguments.old, flight_only=True).directory, octets, Path(arguments.new)))
        return HELD
    delta, files = make_delta(
        load_bundle(arguments.old).directory, load_bundle(arguments.new).directory, arguments.with_ir
    )
    print(as_text(files, delta))
    if arguments.out:
        arguments.out.write_bytes(delta)
        print(f"written: {arguments.out}")
    return HELD
