"""Scene to packets: what becomes of every kind of tile, and that nothing else decides an octet. Networks are toys."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toys import ArrayScene

from payload.bundle import load_bundle
from payload.codec.interface import Quality
from payload.codec.lapped.many import side as side_information
from payload.codec.registry import open_codec
from payload.codec.rotation import Rotation
from payload.engine import open_engine
from payload.errors import BundleError, InputError, StreamError
from payload.link.housekeeping import is_housekeeping
from payload.link.scene_header import is_header
from payload.link.space_packet import Reassembler
from payload.link.streams import apids_of
from payload.link.tile_code import UNKNOWN_CLOUD, Kind, unpack
from payload.pipeline import Payload
from payload.policy import Gate, Policy, Region
from payload.scene import SceneInfo
from payload.sensor import RGBN
from payload.stopwatch import Stopwatch
from payload.tiles import Tile, split

T = 64


def scene_of(rows: int, cols: int, seed: int = 0, bright: tuple[tuple[int, int], ...] = ()) -> ArrayScene:
    """Smooth random ground of rows x cols tiles; tiles in `bright` are what the toy gate takes for cloud, of each more
    than 70 % beyond doubt: ground of strong colours shows through."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(200, 2500, (4, rows * 8 + 1, cols * 8 + 1)).repeat(8, axis=1).repeat(8, axis=2)
    dn = coarse[:, : rows * T, : cols * T] + rng.integers(0, 60, (4, rows * T, cols * T))
    for row, col in bright:
        dn[:, row * T : (row + 1) * T, col * T : (col + 1) * T] += 12_000
    info = SceneInfo("made up", rows * T, cols * T, RGBN, 10.0)
    return ArrayScene(info, dn.astype(np.uint16), np.ones((rows * T, cols * T), bool))


@pytest.fixture
def payload_of(toy_bundle, toy_bundle_with_gate, toy_engine):
    def build(policy: Policy | None = None, gate: bool = False) -> Payload:
        return Payload(load_bundle(toy_bundle_with_gate if gate else toy_bundle), policy or Policy(), toy_engine)

    return build


def codes_in(packets) -> list:
    """The tile codes of a stream of packets, layers first."""
    packets, found = list(packets), []
    for apid in apids_of(Policy().apid):
        reassembler = Reassembler(apid)
        found += [a for packet in packets for a in reassembler.push(packet)] + reassembler.finish()
    return [unpack(a.data) for a in found if not is_header(a.data) and not is_housekeeping(a.data)]


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize(
    ("shape", "dtype", "valid"),
    [
        ((4, 2 * T, 2 * T), np.uint16, (2 * T, 2 * T)),  # wrote past the kernel's buffers
        ((4, T // 2, T // 2), np.uint16, (T // 2, T // 2)),
        ((4, T, T), np.int16, (T, T)),
        ((4, T, T), np.float32, (T, T)),
        ((3, T, T), np.uint16, (T, T)),
        ((5, T, T), np.uint16, (T, T)),
        ((4, T, 2 * T), np.uint16, (T, 2 * T)),
        ((4, T, T), np.uint16, (2 * T, 2 * T)),
    ],
)
def test_a_tile_that_is_not_the_bundles_is_refused_in_one_line(payload_of, gate, shape, dtype, valid) -> None:
    payload = payload_of(gate=gate)
    tile = Tile(0, 0, np.full(shape, 700, dtype), np.ones(valid, bool))
    said = "this bundle takes .*; cut the scene by the bundle's tile size and bands"
    for encode in (payload.encode_tile, lambda t: payload.codec.encode(t, Quality(), Stopwatch())):
        with pytest.raises(InputError, match=said):
            encode(tile)


def test_packets_carry_the_tile_codes_in_row_order(payload_of) -> None:
    scene = scene_of(2, 3)
    codes = list(payload_of().tile_codes(scene))
    assert codes_in(payload_of().transmit(scene)) == codes
    assert [(code.row, code.col) for code in codes] == [(r, c) for r in range(2) for c in range(3)]
    assert {(code.kind, len(code.layers), code.cloud_percent) for code in codes} == {(Kind.CODED, 3, UNKNOWN_CLOUD)}


def test_what_is_sent_of_a_tile_depends_on_its_pixels_alone(payload_of) -> None:
    """A scene moved by whole tiles gives the same codes at other addresses; so does one tile on its own."""
    scene = scene_of(3, 3)
    moved = ArrayScene(replace(scene.info, height_px=2 * T, width_px=2 * T), scene.dn[:, T:, T:], scene.valid[T:, T:])
    codes = {(code.row, code.col): code for code in payload_of().tile_codes(scene)}
    for code in payload_of().tile_codes(moved):
        assert codes[code.row + 1, code.col + 1] == replace(code, row=code.row + 1, col=code.col + 1)
    payload = payload_of()
    assert [replace(payload.encode_tile(tile), scene_id=0) for tile in split(scene, T)] == list(codes.values())


def test_a_tile_without_data_is_empty_and_the_networks_never_see_it(payload_of) -> None:
    scene = scene_of(1, 3)
    scene.valid[:, T : 2 * T] = False
    payload = payload_of(gate=True)
    seen = []
    codes = list(payload.tile_codes(scene, observe=lambda tile, mask: seen.append(tile.col)))
    assert [code.kind for code in codes] == [Kind.CODED, Kind.EMPTY, Kind.CODED]
    assert codes[1].side == b"" and codes[1].layers == () and seen == [0, 2]


def test_pixels_without_data_change_no_octet(payload_of) -> None:
    scene = scene_of(1, 1)
    scene.valid[:, 40:] = False
    other = ArrayScene(scene.info, np.where(scene.valid, scene.dn, 54321).astype(np.uint16), scene.valid)
    assert list(payload_of().transmit(scene)) == list(payload_of().transmit(other))


def test_cloudy_tiles_are_declared_and_not_sent(payload_of) -> None:
    scene = scene_of(2, 2, bright=((0, 1), (1, 0)))
    codes = list(payload_of(Policy(gate=Gate(withhold_above_percent=70.0, audit_count=0)), gate=True).tile_codes(scene))
    assert [(c.kind, c.cloud_percent, len(c.layers)) for c in codes] == [
        (Kind.CODED, 0, 3), (Kind.WITHHELD, 100, 0), (Kind.WITHHELD, 100, 0), (Kind.CODED, 0, 3),
    ]  # fmt: skip


def test_a_region_is_sent_whole_through_any_cloud(payload_of) -> None:
    scene = scene_of(1, 2, bright=((0, 0), (0, 1)))
    gate = Gate(withhold_above_percent=70.0, audit_count=0, regions=(Region(0, T + 1, 1, T + 2),))
    codes = list(payload_of(Policy(gate=gate), gate=True).tile_codes(scene))
    assert [(c.kind, len(c.layers)) for c in codes] == [(Kind.WITHHELD, 0), (Kind.CODED, 3)]


def test_reduced_tiles_have_the_first_layers_of_whole_ones(payload_of) -> None:
    scene = scene_of(1, 1, bright=((0, 0),))
    gate = Gate(withhold_above_percent=100.0, reduce_above_percent=50.0, reduced_layers=2, flatten_clouds=False)
    (reduced,) = payload_of(Policy(gate=gate), gate=True).tile_codes(scene)
    (whole,) = payload_of(Policy(gate=replace(gate, reduce_above_percent=None)), gate=True).tile_codes(scene)
    assert reduced.layers == whole.layers[:2] and len(whole.layers) == 3


@pytest.mark.parametrize("wanted", [0, 2, 50])
def test_the_audit_sends_the_coarsest_layer_of_withheld_tiles(payload_of, wanted) -> None:
    cloudy = tuple((row, col) for row in range(3) for col in range(3) if (row + col) % 2)
    scene = scene_of(3, 3, bright=cloudy)
    policy = Policy(gate=Gate(withhold_above_percent=70.0, audit_count=wanted))
    codes = list(payload_of(policy, gate=True).tile_codes(scene))
    audits = codes[9:]
    assert len(audits) == min(wanted, len(cloudy)) == len({(a.row, a.col) for a in audits})
    for audit in audits:
        assert audit.kind is Kind.AUDIT and (audit.row, audit.col) in cloudy and len(audit.layers) == 1
        assert codes[3 * audit.row + audit.col].kind is Kind.WITHHELD
    assert list(payload_of(policy, gate=True).tile_codes(scene)) == codes  # the draw is seeded


def test_every_withheld_tile_is_drawn_equally_often(payload_of) -> None:
    """Four tiles, one drawn, 80 seeds: 20 times each; three standard deviations are 12."""
    cloudy = tuple((0, col) for col in range(4))
    scene = scene_of(1, 4, bright=cloudy)
    payload = payload_of(gate=True)
    hits = np.zeros(4)
    for seed in range(80):
        payload.policy = Policy(gate=Gate(withhold_above_percent=70.0, audit_count=1, audit_seed=seed))
        hits[[code.col for code in payload.tile_codes(scene) if code.kind is Kind.AUDIT]] += 1
    assert hits.sum() == 80 and np.abs(hits - 20).max() < 12


def test_a_budget_is_kept_audit_included(payload_of) -> None:
    scene, gate = scene_of(4, 4, bright=((0, 0), (2, 1))), Gate(withhold_above_percent=70.0)
    everything = sum(map(len, payload_of(Policy(gate=gate), gate=True).transmit(scene)))
    before = 0.0
    for share in (0.3, 0.5, 0.7, 0.9, 1.0):
        policy = Policy(budget_octets=int(share * everything), gate=gate)
        packets = list(payload_of(policy, gate=True).transmit(scene))
        used = sum(map(len, packets))
        assert before < used <= policy.budget_octets
        assert sum(code.kind is Kind.AUDIT for code in codes_in(packets)) == 2
        before = used
    whole = list(payload_of(Policy(gate=gate), gate=True).transmit(scene))
    assert packets == whole  # all of it fits: the budget changes nothing


def test_tiles_stream(payload_of) -> None:
    """Without a budget the first packet leaves when the first tile is coded."""
    scene = scene_of(1, 4)
    read = []

    class Watched(ArrayScene):
        def read(self, *window: int):
            read.append(window)
            return super().read(*window)

    packets = payload_of().transmit(Watched(replace(scene.info, height_px=T), scene.dn, scene.valid))
    next(packets)  # housekeeping, which waits for nothing
    assert read == []
    next(packets)
    assert len(read) == 1


def test_the_stopwatch_names_every_stage(payload_of) -> None:
    payload = payload_of(gate=True)
    list(payload.transmit(scene_of(1, 2)))
    assert set(payload.watch.seconds) == {"clouds", "rotate", "encode", "quantise", "entropy", "packets"}
    payload.encode_tile(next(split(scene_of(1, 1), T)))
    assert set(payload.last_stages) == set(payload.watch.seconds) and payload.last_stages["packets"] == 0.0
    assert all(seconds > 0 for name, seconds in payload.last_stages.items() if name != "packets")


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32), high=st.sampled_from([1, 300, 4095, 65535]), step=st.sampled_from([1.0, 37.0, 8192.0])
)
def test_any_tile_comes_back_as_the_indices_that_were_sent(toy_bundle, toy_engine, seed, high, step) -> None:
    """Noise, saturated pixels over darkness, no data: whatever the imager gives, the ground can read."""
    rng = np.random.default_rng(seed)
    dn = rng.integers(0, high, (4, T, T), endpoint=True).astype(np.uint16)
    if seed % 3 == 0:
        dn[:] = np.where(rng.random((T, T)) < 0.001, 65535, 0)
    valid = rng.random((T, T)) < (0.5 if seed % 2 else 2.0)
    opened = open_codec(load_bundle(toy_bundle), toy_engine)
    coded = opened.encode(Tile(0, 0, dn, valid), Quality(step), Stopwatch())
    (rotation, _), indices = opened.decode(coded.side, coded.layers)
    again = opened.encode(Tile(0, 0, dn, valid), Quality(step), Stopwatch())
    assert (coded.side, coded.layers) == (again.side, again.layers)
    assert len(rotation.means) == 4 and indices.missing == 0
    for count in range(1, opened.layers):
        _, coarser = opened.decode(coded.side, coded.layers[:count])
        assert np.array_equal(coarser.magnitude, indices.magnitude >> (opened.layers - count))


@settings(max_examples=60, deadline=None)
@given(side=st.binary(max_size=24), layers=st.lists(st.binary(max_size=40), max_size=4))
def test_hostile_side_information_and_layers_are_refused(toy_bundle, side, layers) -> None:
    opened = open_codec(load_bundle(toy_bundle))
    for octets in (side, side.ljust(17, b"\x5a")[:17] + b"\x10\x01"):
        try:
            opened.decode(octets, tuple(layers))
        except StreamError:
            continue
        assert len(octets) == 19 and 1 <= len(layers) <= 3


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 65535), min_size=4, max_size=4),
    st.lists(st.integers(0, 4095), min_size=6, max_size=6),
    st.integers(0, 127),
    st.integers(0, 4),
)
def test_side_information_by_hand(toy_bundle, means, angles, index, shift) -> None:
    """docs/format.md: four means of 16 bits, six angles of 12 bits, step index 8, shift 8: 19 octets."""
    bits = "".join(f"{m:016b}" for m in means) + "".join(f"{a:012b}" for a in angles) + f"{index:08b}{shift:08b}"
    side = int(bits, 2).to_bytes(19, "big")
    layer = b"\x00\x00" + bytes(4)  # nothing is active
    (rotation, found), _ = open_codec(load_bundle(toy_bundle)).decode(side, (layer,))
    assert (list(rotation.means), list(rotation.angles), found, rotation.shift) == (means, angles, index, shift)


@settings(deadline=None)
@given(st.integers(1, 8).flatmap(lambda bands: st.tuples(
    st.lists(st.integers(0, 65535), min_size=bands, max_size=bands),
    st.lists(st.integers(0, 4095), min_size=bands * (bands - 1) // 2, max_size=bands * (bands - 1) // 2),
)), st.integers(0, 127), st.integers(0, 4))  # fmt: skip
def test_side_information_of_any_number_of_bands_comes_back(fields, index, shift) -> None:
    means, angles = fields
    rotation = Rotation(tuple(means), tuple(angles), shift)
    side = side_information.pack_side(rotation, index)
    assert len(side) == 2 * len(means) + -(-12 * len(angles) // 8) + 2
    assert side_information.unpack_side(side, len(means)) == (rotation, index)


def test_angles_that_fill_no_octet_are_padded_with_zero_bits_at_their_end() -> None:
    # two bands: means 0001 0002; one angle abc = 1010 1011 1100 and four zero bits; step 05; shift 01
    assert side_information.pack_side(Rotation((1, 2), (0xABC,), 1), 5).hex() == "00010002" + "abc0" + "05" + "01"


@pytest.fixture
def vq_codec(tmp_path, make_bundle):
    """Two codebooks at strides 16 and 32; its network gives averages of the first bands."""

    class Averages:
        def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
            (x,) = inputs
            return [
                x[:, :depth].reshape(1, depth, T // s, s, T // s, s).mean(axis=(3, 5)).astype(np.int8)
                for s, depth in ((32, 3), (16, 2))
            ]

    class Engine:
        name, version = "toy", "0"

        def load(self, path: Path, require_int8: bool = False, shape: tuple[int, ...] | None = None) -> Averages:
            return Averages()

    rng = np.random.default_rng(3)
    np.savez(
        tmp_path / "t.npz", strides=[32, 16], book0=rng.integers(-90, 90, (8, 3)), book1=rng.integers(-90, 90, (32, 2)),
        mean_dn=np.full(4, 1500.0), scale_dn=np.full(4, 15.0),
    )  # fmt: skip
    files = {"flight/encoder.onnx": b"toy", "flight/tables.npz": (tmp_path / "t.npz").read_bytes()}
    bundle = load_bundle(make_bundle(tmp_path / "vq", files, codec={"kind": "vq"}))
    return open_codec(bundle, Engine())


def test_codebook_indices_come_back_layer_by_layer_and_cost_what_they_must(vq_codec) -> None:
    coded = vq_codec.encode(next(split(scene_of(1, 1), T)), Quality(), Stopwatch())
    assert coded.side == b"" and [len(layer) for layer in coded.layers] == [2, 10]  # 4 x 3 bits, 16 x 5 bits
    indices = vq_codec.decode(b"", coded.layers)
    assert [i.shape for i in indices] == [(2, 2), (4, 4)] and len(np.unique(indices[1])) > 1
    assert np.array_equal(vq_codec.decode(b"", coded.layers[:1])[0], indices[0])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(side=st.sampled_from([b"", b"\x00"]), layers=st.lists(st.binary(max_size=11), max_size=3))
def test_hostile_codebook_indices_are_refused(vq_codec, side, layers) -> None:
    try:
        indices = vq_codec.decode(side, tuple(layers))
    except StreamError:
        return
    assert side == b"" and [len(layer) for layer in layers] == [2, 10][: len(layers)] and len(indices) == len(layers)


@pytest.mark.parametrize(("index", "shift"), [(128, 0), (255, 0), (0, 5), (0, 255)])
def test_side_information_out_of_range_is_refused(toy_bundle, index, shift) -> None:
    with pytest.raises(StreamError, match="19 octets of side information do not fit 4 bands"):
        open_codec(load_bundle(toy_bundle)).decode(bytes(17) + bytes([index, shift]), (bytes(6),))


def test_what_the_encoder_sends_as_side_information_is_what_it_used(toy_bundle, toy_engine) -> None:
    opened = open_codec(load_bundle(toy_bundle), toy_engine)
    tile = next(split(scene_of(1, 1), T))
    side = opened.encode(tile, Quality(64.0), Stopwatch()).side
    means = np.rint(tile.dn.reshape(4, -1).mean(axis=1))
    assert [int.from_bytes(side[2 * b : 2 * b + 2], "big") for b in range(4)] == means.tolist()
    assert side[-2:] == bytes([48, 0])  # 64 DN = 2^(48 / 8), nothing halved


def test_a_codec_without_an_engine_only_decodes(toy_bundle) -> None:
    with pytest.raises(BundleError, match="opened for decoding only"):
        open_codec(load_bundle(toy_bundle)).encode(next(split(scene_of(1, 1), T)), Quality(100.0), Stopwatch())


def test_bundle_and_networks_that_do_not_fit_together_are_refused(tmp_path, make_bundle, make_tables) -> None:
    """The shipped encoder, made for tiles of 256 px, under a manifest that says 128."""
    shipped = load_bundle()
    files = {
        "flight/encoder.onnx": shipped.file("flight/encoder.onnx").read_bytes(),
        "flight/tables.npz": make_tables(tmp_path / "t.npz").read_bytes(),
    }
    bundle = load_bundle(make_bundle(tmp_path / "bundle", files, tile_px=128), flight_only=True)
    with pytest.raises(BundleError, match="do not fit together"):
        Payload(bundle, Policy(), open_engine("openvino"))


ONE_TILE = """
import hashlib, sys
import numpy as np
from payload.link.tile_code import pack
from payload.bundle import load_bundle
from payload.engine import open_engine
from payload.pipeline import Payload
from payload.policy import Policy
from payload.tiles import Tile
rng = np.random.default_rng(1)
ground = rng.integers(300, 3000, (4, 32, 32)).repeat(8, 1).repeat(8, 2)
dn = (ground + rng.integers(0, 90, (4, 256, 256))).astype(np.uint16)
payload = Payload(load_bundle(flight_only=True), Policy(step_dn=30.0), open_engine(sys.argv[1], int(sys.argv[2])))
print(hashlib.sha256(pack(payload.encode_tile(Tile(0, 0, dn, np.ones((256, 256), bool))))).hexdigest())
"""


def digest_of(engine: str, threads: int, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ONE_TILE, engine, str(threads)],
        cwd=Path(__file__).resolve().parents[2], env=os.environ | environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_the_shipped_bundle_gives_the_same_octets_on_other_threads_and_instruction_sets() -> None:
    reference = digest_of("openvino", 1)
    assert len(reference) == 64
    assert digest_of("openvino", 2) == reference
    assert digest_of("openvino", 1, ONEDNN_MAX_CPU_ISA="AVX2") == reference


@pytest.mark.slow
def test_the_shipped_bundle_gives_the_same_octets_in_onnx_runtime() -> None:
    pytest.importorskip("onnxruntime")
    assert digest_of("onnxruntime", 1) == digest_of("openvino", 1)


def test_flattened_clouds_cost_fewer_octets_only_where_asked(toy_bundle_with_gate: Path, toy_engine) -> None:
    """The gate's word is taken before the cloud is smoothed; the smoothed tile is what is coded."""
    noise = np.random.default_rng(5).integers(9000, 11000, (4, 64, 64)).astype(np.uint16)
    tile = Tile(0, 0, noise, np.ones((64, 64), bool))
    octets = {}
    for flat in (False, True):
        gate = Gate(withhold_above_percent=100.0, flatten_clouds=flat)
        payload = Payload(load_bundle(toy_bundle_with_gate), Policy(step_dn=64.0, gate=gate), toy_engine)
        code = payload.encode_tile(tile)
        assert code.kind is Kind.CODED and code.cloud_percent == 100
        octets[flat] = sum(len(layer) for layer in code.layers)
    assert octets[True] < octets[False]
