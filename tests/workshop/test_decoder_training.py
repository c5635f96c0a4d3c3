"""The decoder's training: what reaches the ground is what it learns from; its network in a bundle that flies on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from export.bundle.new_decoder import with_decoder
from export.lapped.model import LappedModel, augment
from export.lapped.sent import Sender
from export.lapped.train import CHECKPOINTS
from export.training import Average, Schedule, Shares, fit
from payload.bundle import load_bundle
from payload.codec.interface import DECODER_FILE, TABLES_FILE, Quality
from payload.codec.lapped.quantiser import dequantise
from payload.codec.registry import open_codec
from payload.engine import open_engine
from payload.errors import InputError
from payload.stopwatch import Stopwatch
from payload.tiles import split
from sim.ground.averaged_network import TURNS, turned, turned_levels
from sim.scenes.demo import demo_scene

STEPS_DN = (12.0, 320.0)


@pytest.fixture(scope="module")
def model() -> LappedModel:
    return LappedModel(load_file(CHECKPOINTS / "edge" / "transform.safetensors"), 32, 1)


def sender(cells: int) -> Sender:
    return Sender(load_bundle("edge").file(TABLES_FILE), cells, STEPS_DN)


@pytest.mark.parametrize(("step_dn", "kept"), [(40.0, 4), (40.0, 2), (600.0, 3)])
def test_the_decoder_learns_from_the_levels_that_a_payload_sends(model, step_dn: float, kept: int) -> None:
    codec, (tile,) = open_codec(load_bundle("edge"), open_engine()), split(demo_scene(256, 256, 3), 256)
    coded = codec.encode(tile, Quality(step_dn), Stopwatch())
    (_, _), found = codec.decode(coded.side, coded.layers[:kept])
    _, _, rotated = codec._rotate(tile, Quality(step_dn))
    coefficients = model.coefficients(torch.tensor(rotated[None].astype(np.float32)))
    ours = sender(32)
    index, unsent = ours.within(step_dn)
    levels, step, missing = ours.send(coefficients, [(index, unsent, len(coded.layers) - kept)])
    assert missing.tolist() == [found.missing] and step.tolist() == pytest.approx([2 ** (index / 8)], rel=1e-3)
    off = np.abs(levels[0].numpy() - dequantise(found).reshape(4, 64, 32, 32))
    assert (off[:, 1:] == 0).mean() > 0.9999  # but for one on an edge of its cell, by floats here, by integers there
    assert off[:, 0].max() < 4  # a second level of 386 000 DN, too, to the bits of its matrix
    plain = model.rebuild(model.with_averages(levels))[0].numpy()
    assert np.sqrt(np.mean((plain - codec._plain(found, float(step) * 2.0**found.missing)) ** 2)) < 0.1


def test_what_is_drawn_are_steps_as_asked_and_layers_lost(model) -> None:
    settings = np.array(sender(8).draw(4000, np.random.default_rng(0)))
    index, unsent, lost = settings.T
    assert index.min() == 29 and index.max() == 67  # 12 and 332 DN
    assert 0.15 < (lost > 0).mean() < 0.3 and set(unsent) == {0, 1, 2, 3} and (unsent + lost).max() == 3
    assert (index[unsent > 0] > 67 - 8).all()  # no layer stays on board at steps that were asked for as they are


def test_tiles_are_turned_shifted_and_negated_and_keep_their_samples() -> None:
    tiles = torch.arange(2 * 4 * 64 * 64, dtype=torch.float32).reshape(2, 4, 64, 64) + 1
    found = [augment(tiles, np.random.default_rng(seed)) for seed in range(12)]
    assert all(batch.shape == tiles.shape for batch in found)
    for batch in found:
        for n in range(2):
            known = set(tiles[n].abs().flatten().tolist())
            assert set(batch[n].abs().flatten().tolist()) <= known
    assert len({float(batch[0, 0, 32, 32].abs()) for batch in found}) > 6
    signs = torch.stack([batch[:, :, 32, 32].sign() for batch in found])
    assert (signs > 0).any(0).all() and (signs < 0).any(0).all()


@pytest.mark.parametrize("count", [1, 3])
def test_shares_of_a_step_are_its_mean(count: int) -> None:
    weights = []
    for shared in (True, False):
        torch.manual_seed(0)
        network, x = torch.nn.Linear(3, 1), torch.randn(12, 3)

        def of(part: torch.Tensor, network: torch.nn.Module = network) -> torch.Tensor:
            return ((network(part) - part.sum(1, keepdim=True)) ** 2).mean()

        loss = Shares(lambda _, k: of(x.chunk(count)[k]), count) if shared else lambda _: of(x)  # noqa: B023
        fit(network, torch.optim.SGD(network.parameters()), Schedule(50, 0.1, 1), loss, average=Average(network))
        weights.append(network.weight.detach().numpy().copy())
    assert np.allclose(*weights, atol=1e-6) and weights[0].min() > 0.4


def test_a_new_decoder_leaves_what_flies_and_the_id_alone(tmp_path: Path) -> None:
    before, pool = load_bundle("edge"), tmp_path / "pool.npz"
    pool.write_bytes(b"any")
    made = with_decoder(before, "edge", CHECKPOINTS / "edge", pool, tmp_path / "made")
    assert made.bundle_id == before.bundle_id
    assert made.file(DECODER_FILE).read_bytes() == before.file(DECODER_FILE).read_bytes()  # the checkpoint that ships
    assert not (made.directory / "signature.json").exists()
    flown = [name for name in before.manifest["files"] if name.startswith("flight/")]
    assert len(flown) > 5
    assert all(made.file(name).read_bytes() == before.file(name).read_bytes() for name in flown)
    told = made.manifest["built"]["decoder"]
    assert {"recipe", "data_sha256", "checkpoint_sha256", "versions"} >= set(told) > {"data_sha256"}


def test_a_bundle_without_a_decoder_has_none_to_replace(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no ground/decoder"):
        with_decoder(load_bundle("edge-pan"), "edge", CHECKPOINTS / "edge", None, tmp_path / "made")


def test_the_first_checksums_stay_when_a_decoder_is_replaced_twice(tmp_path: Path) -> None:
    bundle, pool = load_bundle("edge"), tmp_path / "pool.npz"
    pool.write_bytes(b"any")
    where = Path(shutil.copytree(bundle.directory, tmp_path / "copy"))
    manifest = json.loads((where / "manifest.json").read_text(encoding="utf-8"))
    first = manifest["first_ground"][DECODER_FILE]
    once = with_decoder(load_bundle(where), "edge", CHECKPOINTS / "edge", pool, tmp_path / "once")
    assert once.manifest["first_ground"] == {DECODER_FILE: first}
    assert first != once.manifest["files"][DECODER_FILE]


@pytest.mark.parametrize("turn", TURNS)
def test_levels_of_a_turned_picture_are_the_turned_levels(model, turn) -> None:
    picture = np.random.default_rng(5).normal(0, 200, (1, 4, 64, 64)).astype(np.float32)
    levels, of_turned = (
        model.analysis(torch.from_numpy(x)).flatten(1, 2).numpy() for x in (picture, turned(picture, turn))
    )
    off = np.abs(of_turned - turned_levels(levels, turn)).max((0, 2, 3))
    assert (off / np.abs(levels).max((0, 2, 3))).max() < (0.03 if turn[2] else 1e-4)  # rounded rows, other columns
