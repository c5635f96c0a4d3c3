"""`sim downlink`, `sim receive`, `sim command`: a scene through the whole system, a stream of packets on its own, and
telecommands for the payload."""

from pathlib import Path
from typing import Annotated

import typer

from payload.bundle import DEFAULT
from payload.errors import InputError
from payload.link.telecommand import Command, Opcode, pack
from sim.commands import options
from sim.commands.console import progress
from sim.commands.live import live_page
from sim.commands.options import MAX_PIXELS_DEFAULT

#: What may be said, and what it is in octets.
WORDS = {
    "nominal": (Opcode.SET_MODE, b"\x00"), "safe": (Opcode.SET_MODE, b"\x02"), "self-test": (Opcode.SELF_TEST, b""),
    "scrub": (Opcode.SCRUB, b""), "dump-events": (Opcode.DUMP_EVENTS, b""),
    "slot-a": (Opcode.SELECT_SLOT, b"\x00"), "slot-b": (Opcode.SELECT_SLOT, b"\x01"),
}  # fmt: skip


def downlink(
    scene: Annotated[str, typer.Option(help="GeoTIFF or COG, Sentinel-2 .SAFE folder or .zip, or: demo.")],
    mission: options.Mission = "phisat2",
    bundle: options.Bundle = DEFAULT,
    trust: options.Trust = None,
    allow_unsigned: options.AllowUnsigned = False,
    engine: options.AnyEngine = "auto",
    decoder: options.AnyDecoder = "auto",
    cloud_mask: options.CloudMask = "bundle",
    jobs: options.Jobs = None,
    psnr: Annotated[float | None, typer.Option(help="Constant quality: PSNR (peak 10 000) of every tile, dB.")] = None,
    max_error: options.MaxError = None,
    profile: options.Profile = None,
    seed: Annotated[int, typer.Option(help="Of the channel, and of the demo scene.")] = 0,
    bands: options.Bands = None,
    scale: options.Scale = None,
    offset: options.Offset = None,
    max_pixels: options.MaxPixels = MAX_PIXELS_DEFAULT,
    out: Annotated[Path, typer.Option(help="Folder for report, pictures, rasters and packets.")] = Path("out/downlink"),
    keep_original: Annotated[bool, typer.Option("--keep-original", help="Keep original.tif for sim serve.")] = False,
    overwrite: options.Overwrite = False,
    device: Annotated[str | None, typer.Option(help="A device codes the tiles: a URL as docs/hil.md has it.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Every octet of the device with this host's own.")] = False,
    upload: Annotated[str | None, typer.Option(help="A second bundle, on trial in the free slot.")] = None,
    commands: Annotated[Path | None, typer.Option(help="Telecommands of sim command.")] = None,
    memory: Annotated[Path | None, typer.Option(help="Folder of the payload's slots and counters.")] = None,
    band_shift: Annotated[int | None, typer.Option(help="Bands lie so many px apart; else the mission's.")] = None,
    one_grid: options.OneGrid = False,
    archive: options.ArchiveFolder = None,
    live: Annotated[bool, typer.Option("--live", help="Show it as it comes on a page on this machine.")] = False,
    speed: options.Speed = None,
    port: options.Port = None,
    as_json: options.AsJson = False,
) -> None:
    """Send a scene through payload, link and ground, verify it, write the report. Exit 1 if a requirement failed."""
    from sim.archive.aided import archive_of
    from sim.downlink import Request
    from sim.downlink import downlink as run
    from sim.mission.change import Change
    from sim.mission.trust import Trust
    from sim.onboard.aboard import Uplink
    from sim.onboard.sending import Device
    from sim.report.files import all_held, arrange, canonical_json
    from sim.report.terminal import as_text
    from sim.spread import cores

    if compare and device is None:
        raise InputError("--compare holds a device's octets against this host's; give --device, too")
    under_test = Device(device, compare) if device else None
    reading = options.reading(bands, scale, offset, max_pixels)
    trusted = Trust(tuple(trust or ()), allow_unsigned)
    with live_page(live, speed, port) as watch:
        with progress("downlink") as advance:
            request = Request(
                scene, out, mission, bundle, engine, seed, reading, overwrite, under_test, psnr, trusted, decoder,
                cloud_mask, jobs or cores(), keep_original, Change(max_error_dn=max_error, profile=profile),
                Uplink(upload, commands, memory), watch, band_shift, one_grid, archive_of(archive),
            )  # fmt: skip
            report = run(request, advance)
        print(canonical_json(arrange(report)) if as_json else as_text(report, out), end="", flush=True)
    if not all_held(report):
        raise typer.Exit(1)


def receive(
    stream: Annotated[Path, typer.Option(help="A file of space packets or of frames: packets.bin, frames.bin.")],
    mission: Annotated[str, typer.Option(help="Shipped mission or a TOML file: whose packets these are.")] = "phisat2",
    bundle: Annotated[list[str] | None, typer.Option(help="Shipped bundle or a directory; repeat it.")] = None,
    trust: options.Trust = None,
    allow_unsigned: options.AllowUnsigned = False,
    engine: Annotated[str, typer.Option(help="openvino or onnxruntime.")] = "openvino",
    decoder: options.AnyDecoder = "auto",
    cloud_mask: options.CloudMask = "bundle",
    jobs: options.Jobs = None,
    out: Annotated[Path, typer.Option(help="Folder for rasters and report.")] = Path("out/received"),
    one_grid: options.OneGrid = False,
    archive: options.ArchiveFolder = None,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Decode a stream with nothing else at hand: every scene in it becomes a raster with its place and a report."""
    from sim.archive.aided import archive_of
    from sim.mission.trust import Trust
    from sim.receive import ReceiveRequest
    from sim.receive import receive as run
    from sim.report.files import canonical_json
    from sim.report.received import as_text
    from sim.spread import cores

    with progress("receive") as advance:
        trusted = Trust(tuple(trust or ()), allow_unsigned)
        bundles = tuple(bundle or [DEFAULT])
        request = ReceiveRequest(
            stream, out, mission, bundles, engine, overwrite, trusted, decoder, jobs or cores(), cloud_mask, one_grid,
            archive_of(archive),
        )  # fmt: skip
        report = run(request, advance)
    print(canonical_json(report) if as_json else as_text(report, out), end="")


def command(
    what: Annotated[str, typer.Argument(help=f"One of {', '.join(WORDS)}.")],
    key: Annotated[Path, typer.Option(help="Private key (PEM) whose public half the mission trusts.")],
    counter: Annotated[int, typer.Option(min=1, help="Higher than that of every command before.")],
    out: Annotated[Path, typer.Option(help="File of commands; this one goes to its end.")] = Path("commands.bin"),
    mission: Annotated[str, typer.Option(help="Shipped mission or a TOML file: whose payload it is.")] = "phisat2",
) -> None:
    """Write one signed telecommand to the end of a file, for sim downlink --commands."""
    from sim.mission.spec import load_mission
    from sim.mission.trust import load_private

    if what not in WORDS:
        raise InputError(f"{what!r} is no command; wanted one of {', '.join(WORDS)}")
    opcode, arguments = WORDS[what]
    packet = pack(Command(opcode, counter, arguments), load_mission(mission).policy.apid, load_private(key).sign)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("ab") as stream:
        stream.write(packet)
    print(f"{out}: {what}, counter {counter}, {len(packet)} octets")
