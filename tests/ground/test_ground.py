"""Packets to picture: whatever the link does, every tile is decoded, refused with its cause, or missing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn, idctn
from toys import ArrayScene

from payload.bundle import load_bundle
from payload.codec.lapped.transform import first_level, second_level
from payload.errors import StreamError
from payload.link import housekeeping, scene_header, tile_code
from payload.link.scene_header import SceneHeader
from payload.link.space_packet import SequenceCounter, segment
from payload.link.tile_code import Kind, TileCode
from payload.pipeline import Payload
from payload.policy import Policy
from payload.scene import SceneInfo
from payload.sensor import RGBN
from sim.ground.decoder import Decoder
from sim.ground.mosaic import FADE_PX, reconstruct
from sim.ground.reception import SceneReception, by_id, receive

T = 64
ROWS, COLS = 2, 3
STEP_DN = 30.0


def scene_of(seed: int = 0) -> ArrayScene:
    """Ground of rolling brightness with some noise; the bands alike, as bands are."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: ROWS * T, : COLS * T]
    relief = 1500 + 500 * np.sin(x / 17) * np.cos(y / 23) + 200 * np.sin((x + 2 * y) / 5)
    dn = relief * np.array([0.5, 0.7, 0.8, 1.9])[:, None, None] + rng.normal(0, 15, (4, ROWS * T, COLS * T))
    return ArrayScene(
        SceneInfo("made up", ROWS * T, COLS * T, RGBN, 10.0), dn.astype(np.uint16), np.ones((ROWS * T, COLS * T), bool)
    )


@pytest.fixture(scope="module")
def bundle(toy_bundle):
    return load_bundle(toy_bundle)


@pytest.fixture(scope="module")
def decoder(bundle, toy_engine) -> Decoder:
    return Decoder(bundle, toy_engine)


@pytest.fixture(scope="module")
def packets(bundle, toy_engine) -> list[bytes]:
    policy = Policy(step_dn=STEP_DN, packet_octets=512)
    return list(Payload(bundle, policy, toy_engine).transmit(scene_of()))


@pytest.fixture(scope="module")
def sent(bundle, packets) -> dict[tuple[int, int], TileCode]:
    return scene_in(packets, bundle).codes


def scene_in(packets, bundle) -> SceneReception:
    """The scene of id 0, which is all that these streams hold."""
    reception = receive(packets, by_id([bundle]), Policy().apid)
    assert set(reception.scenes) <= {0}
    return reception.scene(0)


ADDRESSES = {(row, col) for row in range(ROWS) for col in range(COLS)}


def carries_a_header(packet: bytes) -> bool:
    """Whether a packet, whole on its own (flags 11), is a scene header, or housekeeping: no tile is in it."""
    whole = packet[2] >> 6 == 3
    return whole and (scene_header.is_header(packet[6:]) or housekeeping.is_housekeeping(packet[6:]))


def in_packets(bundle, *codes: TileCode) -> list[bytes]:
    """The header of the scene, then the codes, as tiles of it."""
    counter = SequenceCounter(Policy().apid)
    header = SceneHeader(0, bundle.bundle_id, T, scene_of().info)
    records = [scene_header.pack(header), *(tile_code.pack(replace(code, scene_id=0)) for code in codes)]
    return [packet for record in records for packet in segment(record, counter, 1024)]


def picture_of(scene, decoder, blend=True) -> tuple[np.ndarray, np.ndarray]:
    strips = list(reconstruct(scene, decoder, blend))
    assert [strip.row for strip in strips] == list(range(ROWS))
    return np.concatenate([s.dn for s in strips], axis=1), np.concatenate([s.known for s in strips])


def test_a_clean_link_loses_nothing(packets, sent, bundle) -> None:
    whole = receive(packets, by_id([bundle]), Policy().apid)
    reception, counts = whole.scene(0), whole.counts
    assert set(sent) == ADDRESSES and all(len(code.layers) == 3 and code.cause is None for code in sent.values())
    assert not (reception.missing or reception.refused or whole.unaddressed or reception.audits)
    assert reception.header == SceneHeader(0, bundle.bundle_id, T, scene_of().info)
    assert reception.fates == dict.fromkeys(scene_header.FATES, 0) | {Kind.CODED: ROWS * COLS}
    assert (counts.received, counts.refused, counts.late, counts.missing) == (len(packets), 0, 0, 0)


def test_one_lost_packet_touches_one_tile_or_a_header_that_comes_again(packets, sent, bundle) -> None:
    """Nothing decoded changes but that tile, which keeps the layers that came before the gap."""
    for at in range(len(packets)):
        if carries_a_header(packets[at]):
            assert scene_in(packets[:at] + packets[at + 1 :], bundle).codes == sent
            continue
        reception = scene_in(packets[:at] + packets[at + 1 :], bundle)
        hurt = ADDRESSES - {a for a in ADDRESSES if reception.codes.get(a) == sent[a]}
        assert len(hurt) == 1
        (address,) = hurt
        code = reception.codes.get(address)
        if code is None:
            assert (address in reception.refused) != (address in reception.missing)
        else:
            assert 0 < len(code.layers) < 3 and code.layers == sent[address].layers[: len(code.layers)]


damage = st.lists(
    st.tuples(
        st.sampled_from(["drop", "flip", "twice", "swap", "cut"]), st.integers(0, 10_000), st.integers(0, 10_000)
    ),
    max_size=12,
)


def damaged(packets: list[bytes], operations) -> list[bytes]:
    stream = list(packets)
    for kind, where, what in operations:
        at = where % len(stream)
        if kind == "drop":
            del stream[at]
        elif kind == "twice":
            stream.insert(what % len(stream), stream[at])
        elif kind == "swap":
            other = (at + what % 5) % len(stream)
            stream[at], stream[other] = stream[other], stream[at]
        elif kind == "cut":
            stream[at] = stream[at][: what % (len(stream[at]) + 1)]
        elif stream[at]:
            octets = bytearray(stream[at])
            octets[what % len(octets)] ^= 1 << where % 8
            stream[at] = bytes(octets)
        stream = stream or [b""]
    return stream


@settings(max_examples=60, deadline=None)
@given(operations=damage)
def test_whatever_happens_every_tile_is_known_refused_or_missing(packets, sent, bundle, operations) -> None:
    reception = scene_in(damaged(packets, operations), bundle)
    known, refused, missing = set(reception.codes), set(reception.refused), set(reception.missing)
    assert known | refused | missing == ADDRESSES
    assert len(known) + len(refused) + len(missing) == len(ADDRESSES)
    for address, code in reception.codes.items():  # never a symbol that was not sent
        assert code.side == sent[address].side and code.layers == sent[address].layers[: len(code.layers)]
    assert all(cause for cause in reception.refused.values())


def test_a_scene_sent_twice_is_as_good_as_the_better_copy(packets, sent, bundle) -> None:
    with_holes = [packet for k, packet in enumerate(packets) if k % 4 != 1]
    counter = SequenceCounter(Policy().apid, start=len(packets) % 16384)
    copies = [list(segment(tile_code.pack(sent[a]), counter, 512)) for a in sorted(sent)]
    again, shorter = ([p for copy in copies for p in copy[:end]] for end in (None, -1))
    for stream in (with_holes + again, packets + shorter):
        reception = scene_in(stream, bundle)
        assert {a: c.layers for a, c in reception.codes.items()} == {a: c.layers for a, c in sent.items()}
        assert not reception.refused


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_hostile_tile_codes_never_raise(data, bundle, decoder) -> None:
    """Right packets, right CRCs, right bundle; everything else is anybody's."""
    octets = st.binary(max_size=40)
    side = st.just(bytes.fromhex("0400040004000400" + "000000000000000000" + "2000")) | octets
    codes = st.builds(
        TileCode, st.sampled_from(Kind), st.integers(0, ROWS), st.integers(0, COLS),
        st.just(bundle.bundle_id) | st.integers(0, 2**32 - 1), st.integers(0, 100), side,
        st.lists(octets | st.just(bytes(6)), max_size=4).map(tuple),
    )  # fmt: skip
    stream = in_packets(bundle, *data.draw(st.lists(codes, max_size=6))) + data.draw(st.lists(octets, max_size=2))
    reception = scene_in(stream, bundle)
    picture, known = picture_of(reception, decoder)
    assert picture.shape == (4, ROWS * T, COLS * T) and not picture[:, ~known].any()
    for row, col in ADDRESSES:
        shown = known[row * T, col * T]
        code = reception.codes.get((row, col))
        assert shown == (code is not None and code.kind is Kind.CODED)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"bundle_id": 0x01020304}, "coded with bundle 01020304, this ground holds {:08x}"),
        ({"layers": (), "declared": 0, "mask": b""}, "no layer arrived whole"),
    ],
)
def test_what_gives_no_tile_is_refused_with_its_cause(sent, bundle, change, cause) -> None:
    reception = scene_in(in_packets(bundle, replace(sent[1, 2], **change)), bundle)
    assert reception.refused == {(1, 2): cause.format(bundle.bundle_id)}
    assert len(reception.missing) == len(ADDRESSES) - 1


def test_octets_that_do_not_decode_refuse_their_tile_and_no_other(sent, bundle, decoder) -> None:
    broken = replace(sent[0, 1], layers=(b"\xff" * 50,))
    reception = scene_in(in_packets(bundle, sent[0, 0], broken, sent[0, 2]), bundle)
    assert (0, 1) in reception.codes  # its CRC is right: only decoding can tell
    _, known = picture_of(reception, decoder)
    assert known[0].tolist() == [True] * T + [False] * T + [True] * T
    assert "active channels" in reception.refused[0, 1] and (0, 1) not in reception.codes


def test_tiles_outside_the_scene_are_listed(sent, bundle) -> None:
    reception = scene_in(in_packets(bundle, replace(sent[0, 0], row=ROWS)), bundle)
    assert reception.outside == [(ROWS, 0)] and not reception.codes
    assert len(reception.missing) == len(ADDRESSES)


def test_thumbnails_of_the_audit_are_no_part_of_the_picture(sent, bundle, decoder) -> None:
    withheld = TileCode(Kind.WITHHELD, 0, 0, bundle.bundle_id, 90, scene_id=0)
    audit = replace(sent[0, 0], kind=Kind.AUDIT, layers=sent[0, 0].layers[:1], declared=1)
    reception = scene_in(in_packets(bundle, withheld, audit), bundle)
    assert reception.codes == {(0, 0): withheld} and reception.audits == {(0, 0): audit}
    assert decoder.decode_tile(audit).shape == (4, T, T)
    assert not picture_of(reception, decoder)[1].any()


def test_a_tile_comes_back_within_what_its_step_allows(sent, decoder) -> None:
    """Uniform in a cell of one step: 0.29 steps rms; the dead zone of 1.6 and the toy's 8-bit basis add a little."""
    dn = scene_of().dn[:, :T, :T].astype(np.float64)
    errors = []
    for layers in (1, 2, 3):
        code = replace(sent[0, 0], layers=sent[0, 0].layers[:layers], declared=layers)
        step = decoder.step_of(code)
        assert step == pytest.approx(STEP_DN * 2 ** (3 - layers), rel=2 ** (1 / 16) - 1)
        errors.append(float(np.sqrt(((decoder.decode_tile(code) - dn) ** 2).mean())))
        assert errors[-1] < 0.5 * step
    assert errors[0] > errors[1] > errors[2]


def test_without_blending_the_picture_is_its_tiles(packets, sent, bundle, decoder) -> None:
    picture, known = picture_of(scene_in(packets, bundle), decoder, blend=False)
    assert known.all()
    for row, col in ADDRESSES:
        tile = decoder.decode_tile(sent[row, col])
        assert np.array_equal(picture[:, row * T : (row + 1) * T, col * T : (col + 1) * T], tile)


def test_blending_touches_only_the_edges_between_known_tiles(packets, bundle, decoder) -> None:
    reception = scene_in(packets, bundle)
    reception.refuse((0, 0), "for the test")
    plain, known = picture_of(reception, decoder, blend=False)
    blended, also_known = picture_of(reception, decoder)
    assert np.array_equal(known, also_known) and not known[:T, :T].any()
    near = np.zeros((ROWS * T, COLS * T), bool)
    near[T:, T - FADE_PX : T + FADE_PX] = True  # (1,0) | (1,1)
    near[:, 2 * T - FADE_PX : 2 * T + FADE_PX] = True  # middle | right, in both rows
    near[T - FADE_PX : T + FADE_PX, T:] = True  # upper / lower, but not under the hole
    changed = (plain != blended).any(axis=0)
    assert changed.any() and not changed[~near].any()
    assert not blended[:, ~known].any()


def test_strips_come_one_behind(packets, bundle, decoder) -> None:
    """A strip is finished when the one below it is decoded: its lower edge needs it."""
    decoded = []

    class Watched:
        tile_px, bands = decoder.tile_px, decoder.bands

        def decode_tile(self, code):
            decoded.append((code.row, code.col))
            return decoder.decode_tile(code)

        def step_of(self, code):
            return decoder.step_of(code)

    strips = reconstruct(scene_in(packets, bundle), Watched())
    assert next(strips).row == 0 and len(decoded) == 2 * COLS


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 24))
def test_the_second_level_is_the_dct(seed, bits) -> None:
    """SciPy's orthonormal DCT-II, 8 x 8 at a time. The basis of 12 fractional bits is off by 2^-13 an entry: 64 entries
    of up to half a unit, twice; then half a unit of rounding."""
    averages = np.random.default_rng(seed).integers(-(2**bits), 2**bits, (2, 16, 24)).astype(np.int32)
    blocks = averages.reshape(2, 2, 8, 3, 8).astype(np.float64)
    wanted = dctn(blocks, type=2, axes=(2, 4), norm="ortho")
    allowed = 0.5 + 2**bits * 2 * 8 * 8 * 0.5 * 2.0**-13
    assert np.abs(second_level(averages).reshape(blocks.shape) - wanted).max() <= allowed
    back = idctn(wanted, type=2, axes=(2, 4), norm="ortho")
    found = first_level(wanted.reshape(2, 16, 24))
    assert np.abs(found.reshape(back.shape) - back).max() <= allowed * 4


def test_a_stream_of_nothing_is_all_missing(bundle, decoder) -> None:
    assert receive([], by_id([bundle]), Policy().apid).scenes == {}
    reception = scene_in(in_packets(bundle), bundle)
    assert set(reception.missing) == ADDRESSES
    assert not picture_of(reception, decoder)[1].any()


def test_damage_of_one_tile_is_not_an_exception_of_decode(sent, decoder) -> None:
    with pytest.raises(StreamError):
        decoder.decode_tile(replace(sent[0, 0], side=b""))
    with pytest.raises(StreamError):
        decoder.decode_tile(replace(sent[0, 0], layers=sent[0, 0].layers * 2))


def test_tiles_of_another_scene_go_to_their_own(packets, sent, bundle, toy_engine) -> None:
    """Spliced and replayed from a scene with the same bundle and grid: never into this picture."""
    policy = Policy(step_dn=STEP_DN, packet_octets=512)
    other = Payload(bundle, policy, toy_engine)
    theirs = list(other.transmit(scene_of(1), SceneHeader(9, bundle.bundle_id, T, scene_of(1).info)))
    for stream in (packets + theirs, theirs + packets, packets[:5] + theirs[:7] + packets[5:] + theirs[7:]):
        reception = receive(stream, by_id([bundle]), policy.apid)
        for address, code in reception.scene(0).codes.items():
            assert code.layers == sent[address].layers[: len(code.layers)]
        for code in reception.scene(9).codes.values():
            assert code.scene_id == 9
    assert reception.scene(0).codes.keys() | reception.scene(9).codes.keys() == ADDRESSES


def test_a_lost_header_costs_the_place_not_the_pixels(packets, sent, bundle, decoder) -> None:
    headless = [packet for packet in packets if not carries_a_header(packet)]
    scene = scene_in(headless, bundle)
    assert scene.header is None and scene.codes == sent and scene.grid == (ROWS, COLS)
    assert np.array_equal(picture_of(scene, decoder)[0], picture_of(scene_in(packets, bundle), decoder)[0])


def test_what_is_no_data_on_board_is_no_data_on_the_ground(bundle, toy_engine, decoder) -> None:
    """The valid mask comes down with the tile: the ground has no other place to know it from."""
    scene = scene_of()
    y, x = np.mgrid[: ROWS * T, : COLS * T]
    scene.valid[:] = x + y // 2 > 40
    stream = list(Payload(bundle, Policy(step_dn=STEP_DN), toy_engine).transmit(scene))
    _, known = picture_of(scene_in(stream, bundle), decoder)
    assert np.array_equal(known, scene.valid)


def test_a_second_header_that_contradicts_the_first_is_refused(packets, bundle) -> None:
    other = scene_header.pack(SceneHeader(0, bundle.bundle_id, T, replace(scene_of().info, name="another")))
    counter = SequenceCounter(Policy().apid, start=len(packets))
    reception = receive([*packets, *segment(other, counter, 1024)], by_id([bundle]), Policy().apid)
    assert reception.scene(0).header.info.name == "made up"
    assert reception.unaddressed == ["a second header of scene 00000000 contradicts its first"]


def test_the_decoder_tells_how_fast_it_was(bundle, toy_engine, sent):
    decoder = Decoder(bundle, toy_engine)
    assert decoder.speed_mpx_s is None
    decoder.decode_tile(next(code for code in sent.values() if code.kind is Kind.CODED))
    assert 0 < decoder.speed_mpx_s < 1000
