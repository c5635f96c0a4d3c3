"""Keys of a report -> names, units and groups as people read them. Every page takes its names from here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.design.figures import at_most, figure, percent

#: Endings of keys that are units, longest first, and how people write them.
UNITS = {
    "_kmac_px": "kMAC/px", "_mpx_s": "Mpx/s", "_mpx": "Mpx", "_percent": "%", "_octets": "octets", "_bits": "bits",
    "_bps": "bit/s", "_mib": "MiB", "_deg": "°", "_db": "dB", "_km": "km", "_mj": "mJ", "_ms": "ms", "_px": "px",
    "_dn": "DN", "_hz": "Hz", "_s": "s", "_m": "m", "_w": "W", "_j": "J", "_c": "°C",
}  # fmt: skip
#: Keys whose words are not the best words.
NAMES = {
    # rate
    "cr16": "compression ratio against 16 bit", "cr_sensor": "compression ratio against the sensor's bits",
    "bpp": "bits per pixel, all bands", "bpppb": "bits per pixel and band", "octets": "octets downlinked",
    "bpp_of_the_whole_scene": "bits per pixel of the whole scene",
    # requirements
    "psnr_10k_db": "PSNR, peak 10 000", "psnr_65k_db": "PSNR, peak 65 535",
    "worst_tile_psnr_db": "PSNR of the worst tile", "psnr_10k_worst_db": "PSNR, worst tile",
    "rmse_reflectance": "RMSE", "error_reflectance": "largest error", "ssim_own": "SSIM, own range",
    "ndvi_mae": "NDVI, mean absolute error", "ndvi_p95": "NDVI, 95th percentile of the error",
    "sam_deg": "spectral angle", "sam_p95_deg": "spectral angle, 95th percentile",
    "vv_vh_mae_db": "VV / VH, mean absolute error", "ssim_10k": "SSIM", "lost_fraction": "share of tiles lost",
    "withheld_fraction": "share of tiles withheld",
    "false_discard_fraction": "share of audited discards that were good data",
    "incomplete_fraction": "share of tiles incomplete",
    # tiles
    "refused_without_address": "refused, address unreadable", "incomplete": "incomplete (cut short)",
    # link
    "packets_offered": "packets from the payload", "packets_sent": "packets sent", "octets_sent": "octets sent",
    "octets_received": "octets received", "packets_beyond_pass": "packets beyond the pass",
    "octets_beyond_pass": "octets beyond the pass", "packets_lost": "packets lost singly",
    "packets_lost_in_bursts": "packets lost in fades", "packets_corrupted": "packets with bit errors",
    "packets_lost_with_frames": "packets lost with a frame", "frames_sent": "transfer frames filled",
    "frames_per_packet": "frames that a packet lies in, mean",
    "expected_packets_lost": "packets lost, mean over all seeds", "chance_of_no_loss": "seeds that lose no packet",
    "bits_flipped": "bits flipped", "pass_s": "duration of the pass", "air_time_s": "time on the air",
    "utilisation": "share of the pass used",
    "ground_received": "packets received", "ground_refused": "damaged packets refused",
    "ground_foreign": "packets of other applications", "ground_late": "packets late or doubled",
    "ground_missing": "gaps in the packet count", "ground_orphaned": "segments without a beginning",
    "ground_restarts": "restarts of the packet count", "scene_header_arrived": "the scene's header arrived",
    "end_of_scene_arrived": "the end of the scene arrived", "other_scenes": "other scenes in the stream",
    # layers of the link, and frames at the ground
    "octets_on_air": "on the air in all", "layer_payload_octets": "payload: tile codes, headers, housekeeping",
    "layer_packet_octets": "headers and CRCs of packets",
    "layer_delivery_octets": "CFDP or RaptorQ: headers, repetitions, repair",
    "layer_frame_octets": "headers and CRCs of frames",
    "layer_idle_octets": "idle data", "layer_parity_octets": "Reed-Solomon parity",
    "layer_sync_marker_octets": "sync markers (ASM)", "layer_convolutional_octets": "convolutional code",
    "not_coded": "of codes that are curves",
    "frames_offered": "frames from the payload", "frames_beyond_pass": "frames beyond the pass",
    "frames_lost": "frames lost singly", "frames_lost_in_bursts": "frames lost in fades",
    "frames_corrupted": "frames with bit errors", "expected_frames_lost": "frames lost, mean over all seeds",
    "sync_frames": "frames found", "sync_locks": "locks found from nothing", "sync_slips": "found again elsewhere",
    "sync_flywheel": "taken without their marker", "sync_inverted": "turned round, bit by bit",
    "sync_skipped_octets": "octets of no frame",
    "channel_symbols_turned": "symbols turned round by the Viterbi decoder",
    "symbols_corrected": "symbols corrected", "most_corrected_in_a_codeword": "most of them in one codeword",
    "frames_other_key": "refused: under another key or none", "frames_bad_mac": "refused: changed on the way",
    "frames_replayed": "refused: taken already",
    "frames_refused": "frames refused", "frames_missing": "gaps in the frame counts",
    "packets_in_frames": "packets that came whole", "packets_cut": "packets cut by a lost frame",
    # delivery
    "mode": "delivered by", "complete": "the whole file is on the ground", "file_octets": "the payload's packets",
    "held_octets": "of them on the ground", "arrived_twice_octets": "arrived though the ground had them",
    "nak_rounds": "rounds of NAKs", "naks": "NAK PDUs", "sent_file_octets": "the file, each octet once",
    "sent_again_octets": "of the file again, on request", "sent_repair_octets": "repair symbols",
    "sent_header_octets": "headers of file data or symbols", "sent_directive_octets": "directives (Metadata, EOF, ACK)",
    "sent_packet_octets": "headers and CRCs of packets around them", "uplink_packets": "packets up",
    "uplink_packets_lost": "of them lost", "uplink_octets": "octets up", "passes_used": "passes used",
    "in_contact_s": "time in contact", "elapsed_s": "from the first packet to the end, gaps included",
    # clouds
    "cloud_percent": "cloud in the scene", "withhold_above_percent": "a tile is withheld above",
    "reduce_above_percent": "a tile is coded coarser above", "tiles_judged": "tiles judged",
    "withheld_tiles": "tiles withheld",
    "flattened_percent": "of the pixels delivered, closed cloud without its detail: in no figure of quality",
    "audited_tiles": "thumbnails of withheld tiles received",
    "audited": "withheld tiles audited", "false_discards": "false discards among them",
    "unknown": "of these without a verdict", "judged_by_persons": "of the audited, judged by a person",
    "rate": "false-discard rate", "lower": "95 % interval from",
    "upper": "95 % interval to", "upper_one_sided": "false discards, of withheld tiles",
    "destroyed_share_of_all_tiles": "good data destroyed, of all tiles", "claim": "claim to be borne out",
    "claim_held": "claim borne out", "audits_needed": "audits the claim needs",
    # time, memory, energy
    "throughput_mpx_s": "throughput", "wall_s": "time by the clock on the wall",
    "coded_tiles_mpx_s": "throughput, coded tiles alone", "withheld_tiles_mpx_s": "throughput, withheld tiles alone",
    "gate_share_percent": "the gate's share of the time", "kernel": "kernel of the payload",
    "instruction_set": "instruction sets of the processor",
    "peak_rss_before_payload_mib": "peak memory before the payload: interpreter, libraries, scene",
    "peak_rss_added_by_payload_mib": "of it added while the payload ran",
    "peak_rss_with_ground_mib": "peak memory after the ground, whole process",
    "onboard_wall_s": "payload, by the clock on the wall", "peak_rss_mib": "peak memory when the last packet was sent",
    "peak_memory_mib": "peak memory of the agent", "tile_median_ms": "a tile, median",
    "tile_p95_ms": "a tile, 95th percentile", "stages_count": "times are", "device_mpx_s": "throughput, networks alone",
    "payload_mpx_s": "throughput, the whole payload", "imager_mpx_s": "the imager's rate",
    "device_realtime_factor": "throughput over the imager's rate", "scene_s": "time of this scene",
    "scene_j": "energy of this scene", "orbit_j": "energy of an orbit", "orbit_assumption": "in the energy of an orbit",
    "pass_mpx": "a pass carries, at this rate",
    "macs": "multiply-accumulates of the networks", "reconnects": "connections mended",
    # applications
    "answers_made": "records made on board", "answers_received": "on the ground", "answers_missing": "missing there",
    "copies": "copies sent of each", "first_alert_s": "first alert on the ground",
    "last_alert_s": "last alert on the ground", "answer_packet_octets": "all copies, headers and CRCs of packets too",
    "answer_share_percent": "share of everything downlinked",
    "picture_octets": "tile codes of the same places, for comparison", "energy_j": "energy of all operations",
    # decoder
    "parameters": "parameters", "decoder_kmac_px": "multiply-accumulates a pixel", "decoder_octets": "network file",
    "decoder_mpx_s": "speed on this host",
    # inputs
    "sensed_at": "sensed at", "gsd_m": "ground sampling distance", "crs": "coordinate system",
    "nodata": "no-data value",
    "height_px": "height", "width_px": "width", "bits": "bits per sample", "id": "identifier",
    "failed_its_checks": "failed its checks", "url": "address", "cpu": "processor", "memory_mib": "memory",
}  # fmt: skip
#: Shares of 0 to 1, shown in per cent; upper bounds, shown as such.
SHARES = ("utilisation", "channel_symbols_turned", "chance_of_no_loss", "rate", "lower", "upper")
BOUNDS = ("upper_one_sided", "destroyed_share_of_all_tiles")
#: Numbers too long to read as they are: scale and unit.
SCALED = {"macs": (1e-9, "GMAC")}
ACRONYMS = (
    "psnr", "ssim", "rmse", "ndvi", "mae", "sam", "cr", "bpp", "bpppb", "crc", "gsd", "crs", "rss", "cpu", "id", "snr",
)  # fmt: skip
SPELT = {"mib": "MiB", "fer": "frame error rate", "tm": "TM", "rs": "Reed-Solomon"}


@dataclass(frozen=True)
class Group:
    """Keys that belong together and what they rest on. `counters`: those that stand at zero share one line."""

    title: str
    basis: str
    keys: tuple[str, ...]
    counters: bool = False


@dataclass(frozen=True)
class Rows:
    """A group as a page shows it. `none` names the counters that stand at zero: one line instead of many."""

    title: str
    basis: str
    rows: tuple[tuple[str, str, str], ...]  # name, text, unit
    none: tuple[str, ...] = ()


RATE = (Group("", "measured", ("octets", "cr16", "cr_sensor", "bpp", "bpppb", "bpp_of_the_whole_scene")),)
LINK = (
    Group(
        "Octets of each layer", "measured",
        ("octets_on_air", "layer_payload_octets", "layer_packet_octets", "layer_delivery_octets", "layer_frame_octets",
         "layer_idle_octets", "layer_parity_octets", "layer_sync_marker_octets", "layer_convolutional_octets"), True,
    ),
    Group(
        "Sent", "measured",
        ("packets_offered", "packets_sent", "frames_offered", "octets_sent", "packets_beyond_pass",
         "frames_beyond_pass", "octets_beyond_pass"), True,
    ),
    Group(
        "On the way", "modelled",
        ("packets_lost", "packets_lost_in_bursts", "packets_lost_with_frames", "packets_corrupted", "packets_doubled",
         "packets_reordered", "packets_truncated", "frames_lost", "frames_lost_in_bursts", "frames_corrupted",
         "frames_doubled", "frames_reordered", "frames_truncated", "bits_flipped", "bits_slipped", "inversions"),
        True,
    ),
    Group(
        "What any seed may expect", "modelled",
        ("expected_packets_lost", "expected_frames_lost", "chance_of_no_loss", "frames_sent", "frames_per_packet"),
    ),
    Group(
        "Frames at the ground", "measured",
        ("sync_frames", "sync_locks", "sync_slips", "sync_flywheel", "sync_inverted", "sync_skipped_octets",
         "channel_symbols_turned", "symbols_corrected", "most_corrected_in_a_codeword", "codewords_corrected",
         "codewords_uncorrectable", "frames_received", "frames_refused", "frames_other_key",
         "frames_bad_mac", "frames_replayed", "frames_idle", "frames_late",
         "frames_missing", "packets_in_frames", "packets_cut"), True,
    ),
    Group(
        "At the ground", "measured",
        ("ground_received", "ground_refused", "ground_foreign", "ground_late", "ground_missing", "ground_orphaned",
         "ground_restarts", "scene_header_arrived", "end_of_scene_arrived", "other_scenes"), True,
    ),
    Group("The pass", "modelled", ("pass_s", "air_time_s", "utilisation")),
)  # fmt: skip
DELIVERY = (
    Group(
        "The file", "measured",
        ("mode", "complete", "file_octets", "held_octets", "arrived_twice_octets", "nak_rounds", "naks"),
    ),
    Group(
        "Octets down, by layer", "measured",
        ("sent_file_octets", "sent_again_octets", "sent_repair_octets", "sent_header_octets", "sent_directive_octets",
         "sent_packet_octets"), True,
    ),
    Group("Up", "modelled", ("uplink_packets", "uplink_packets_lost", "uplink_octets"), True),
    Group("Time", "modelled", ("passes_used", "in_contact_s", "elapsed_s")),
)  # fmt: skip
CLOUDS = (
    Group("The gate's rule", "assumed", ("withhold_above_percent", "reduce_above_percent")),
    Group(
        "What the gate found", "measured",
        ("cloud_percent", "tiles_judged", "withheld_tiles", "flattened_percent", "audited_tiles"),
    ),
)  # fmt: skip
AUDIT = (
    Group(
        "Audit of withheld tiles", "measured",
        ("audited", "false_discards", "unknown", "judged_by_persons", "rate", "lower", "upper", "upper_one_sided",
         "destroyed_share_of_all_tiles"),
    ),
    Group("The claim", "assumed", ("claim", "claim_held", "audits_needed")),
)  # fmt: skip

AIDED = (
    Group("Tiles and dates", "measured", ("tiles_refined", "dates_over_the_scene")),
    Group("What was sent and the dates", "measured", ("overruled_percent", "followed_percent")),
)
APPS = (
    Group(
        "Answers", "measured",
        ("answers_made", "answers_received", "answers_missing", "alerts", "copies"),
    ),
    Group("After the pass began", "modelled", ("first_alert_s", "last_alert_s")),
    Group("Octets", "measured", ("answer_packet_octets", "answer_share_percent", "picture_octets")),
    Group("Energy", "modelled", ("energy_j",)),
)  # fmt: skip

#: Names of bands that are listed one by one.
MOST_BANDS = 16


def label(key: str) -> tuple[str, str]:
    """'contact_s' -> ('contact', 's'): a key's words and, from its ending, its unit."""
    if key.endswith("_range"):
        words, unit = label(key.removesuffix("_range"))
        return f"{words}, best and worst", unit
    ending = next((ending for ending in UNITS if key.endswith(ending) and key != ending), "")
    return NAMES.get(key) or _words(key.removesuffix(ending)), UNITS.get(ending, "")


def _words(key: str) -> str:
    return " ".join(word.upper() if word in ACRONYMS else SPELT.get(word, word) for word in key.split("_"))


def requirement(key: str) -> str:
    """'min_psnr_10k_db' -> 'PSNR, peak 10 000'; 'budget: power' -> 'power'."""
    bare = key.removeprefix("budget: ").removeprefix("min_").removeprefix("max_")
    return label(bare)[0] if bare != key and not key.startswith("budget: ") else bare


def bands(names: Sequence[str], between: str = " ") -> str:
    """The names of some bands; of many the first, the last, and how many there are."""
    if len(names) <= MOST_BANDS:
        return between.join(names)
    return f"{names[0]} to {names[-1]} ({len(names)} bands)"


def all_of(title: str, section: Mapping[str, Any]) -> Group:
    """All plain values of a section as one group; counters that are 0 in one line."""
    return Group(title, "measured", tuple(key for key in section if key != "basis" and _plain(section[key])), True)


def grouped(section: Mapping[str, Any], groups: Sequence[Group], skip: Iterable[str] = ()) -> list[Rows]:
    """The plain values of a section by its groups; what no group names comes last, under `Further`."""
    named = {key for group in groups for key in group.keys}
    named.add("basis")  # stands beside each group
    rest = tuple(key for key in section if key not in named and key not in set(skip) and _plain(section[key]))
    further = (Group("Further", groups[0].basis if groups else "", rest),) if rest else ()
    shown = [_rows(section, group) for group in (*groups, *further)]
    return [rows for rows in shown if rows.rows or rows.none]


def _rows(section: Mapping[str, Any], group: Group) -> Rows:
    present = [key for key in group.keys if key in section]
    zero = [key for key in present[1:] if group.counters and _counter_at_zero(section[key])]
    zero = zero if len(zero) > 1 else []
    rows = tuple(row(key, section[key]) for key in present if key not in zero)
    return Rows(group.title, group.basis, rows, tuple(label(key)[0] for key in zero))


def _counter_at_zero(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value == 0


def row(key: str, value: Any) -> tuple[str, str, str]:
    """(name, text, unit) of one value."""
    name, unit = label(key)
    if key in SCALED and value is not None:
        scale, unit = SCALED[key]
        return name, figure(value * scale), unit
    if key == "claim":
        return name, str(value).replace("<=", "at most").replace("%", " %"), ""
    if key in BOUNDS:
        return name, at_most(value), ""
    if key in SHARES:
        return name, percent(value, "none audited"), ""
    return (name, figure(value, "none"), "") if value is None else (name, figure(value), unit)


def plain_rows(section: Mapping[str, Any], skip: Iterable[str] = ()) -> list[tuple[str, str, str]]:
    """(name, text, unit) of every plain value of a section; one level of tables inside is flattened."""
    rows = []
    for key, value in section.items():
        if key in skip or key == "basis":
            continue
        if isinstance(value, Mapping):
            rows += [(f"{label(key)[0]}: {name}", text, unit) for name, text, unit in plain_rows(value)]
        elif _plain(value):
            rows.append(row(key, value))
    return rows


def _plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return False
    return not isinstance(value, list | tuple) or all(not isinstance(v, Mapping | list | tuple) for v in value)
