"""The field's reference system: its rate by construction, INT8 exactness, the codebooks, training, the bundle."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from export.bundle.assemble import Origin, assemble
from export.bundle.from_recipe import build_recipe, torch_models
from export.data import VALIDATION_SITES, Pool
from export.graphs.qat_layers import calibrate
from export.graphs.to_openvino import execution
from export.recipe import load_recipe
from export.training import mixed_precision, save_weights
from export.vq import train
from export.vq.files import export_encoder
from export.vq.model import QUANTISED, Codebook, Corsa, in_int8, nearest, normalisation
from export.vq.networks import build
from export.vq.train import train_vq
from payload.bundle import Bundle
from payload.codec.registry import open_codec
from payload.codec.vq import codebooks
from payload.engine import open_engine
from payload.errors import InputError
from payload.pipeline import Payload
from payload.policy import Policy
from payload.tiles import Tile

#: CR of the published table (RGB-NIR at 16 bit, index octets alone).
PUBLISHED_CR = {256: 24.4, 512: 21.7, 1024: 19.5}


def small_recipe(**changes: Any) -> dict[str, Any]:
    """The recipe's shape with widths that train in a moment."""
    recipe = load_recipe("corsa-fpn3-512") | {
        "encoder": [8, 8, 8],
        "decoder": [8, 8, 8],
        "bricks": [1, 1, 1],
        "depth": 4,
    }
    recipe["training"] = recipe["training"] | {"crop_px": 32, "batch": 4, "float_steps": 6, "quantised_steps": 2}
    return recipe | {"codebook": 16} | changes


def calibrated(recipe: dict[str, Any], seed: int = 1) -> Corsa:
    """An untrained system in INT8 with random codebooks and activation scales from random planes."""
    torch.manual_seed(seed)
    model = Corsa(recipe, quantised=False)
    for book in model.codebooks:
        book.vectors.copy_(torch.randint(-40, 40, book.vectors.shape).float())
    model.mean_dn, model.scale_dn = torch.full((4,), 7000.0), torch.full((4,), 55.0)
    flight = in_int8(model, recipe)
    calibrate(flight.encoder, [torch.randint(-128, 0, (2, 4, 32, 32)).float() for _ in range(3)])
    return flight.eval()


def fake_pool(count: int = 12) -> Pool:
    """Blocky random tiles, two of them of a held-out site, the last as bright as cloud."""
    rng = np.random.default_rng(7)
    coarse = rng.uniform(200, 2500, (count, 1, 16, 16)) * np.array([0.6, 0.8, 1.0, 1.4])[:, None, None]
    coarse[-1] += 11_000
    dn = np.kron(coarse, np.ones((8, 8))).astype(np.uint16) + rng.integers(0, 60, (count, 4, 128, 128), dtype=np.uint16)
    site = np.array([VALIDATION_SITES[0]] * 2 + ["elsewhere"] * (count - 2))
    return Pool(dn, np.zeros((count, 1), np.int32), site, np.full(count, 10, np.uint16), "00" * 32)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    """The whole recipe, untrained, through `python -m export build`'s own function; and its checkpoints."""
    folder = tmp_path_factory.mktemp("corsa")
    (folder / "data" / "train").mkdir(parents=True)
    (folder / "data" / "train" / "tiles128.npz").write_bytes(b"only its digest is read")
    save_weights(folder / QUANTISED, calibrated(load_recipe("corsa-fpn3-512")).state_dict(), 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NADIR_DATA", str(folder / "data"))
        bundle = build_recipe("corsa-fpn3-512", folder, (folder / "no-clouds",) * 2, "int8-po2w7", folder / "bundle")
    return bundle, folder


def with_codebooks(bundle: Bundle, size: int, folder: Path) -> Bundle:
    """The same networks with codebooks of `size` random vectors."""
    with np.load(bundle.file("flight/tables.npz")) as data:
        arrays = dict(data)
    rng = np.random.default_rng(size)
    books: dict[str, Any] = {f"book{k}": rng.integers(-60, 60, (size, 16)).astype(np.int8) for k in range(3)}
    np.savez(folder / "tables.npz", **(arrays | books))
    files: dict[str, Path | bytes] = {
        "flight/encoder.onnx": bundle.file("flight/encoder.onnx"),
        "flight/tables.npz": folder / "tables.npz",
        "ground/decoder.onnx": bundle.file("ground/decoder.onnx"),
    }
    codec, origin = {"kind": "vq", "layers": 3, "codebook": size}, Origin({"name": "untrained"}, "00" * 32)
    return assemble(folder / "out", "untrained", bundle.bands, 256, codec, files, origin, with_ir=False)


def some_tile(seed: int = 0) -> Tile:
    dn = np.random.default_rng(seed).integers(0, 12_000, (4, 256, 256)).astype(np.uint16)
    return Tile(0, 0, dn, np.ones((256, 256), bool))


@pytest.mark.slow
@pytest.mark.parametrize("size", [256, 512, 1024])
def test_compression_ratio_of_real_tile_codes_is_the_published_one(built, size, tmp_path):
    bundle = with_codebooks(built[0], size, tmp_path)
    layers = Payload(bundle, Policy(), open_engine()).encode_tile(some_tile()).layers
    bits = int(math.log2(size))
    assert [len(layer) for layer in layers] == [bits * (256 // s) ** 2 // 8 for s in (8, 4, 2)]
    ratio = 2 * 4 * 256 * 256 / sum(len(layer) for layer in layers)
    assert ratio == 64 / (bits * (1 / 4 + 1 / 16 + 1 / 64))
    assert round(ratio, 1) == PUBLISHED_CR[size]


@pytest.mark.slow
def test_tile_codes_carry_the_nearest_vectors_on_both_engines(built):
    bundle, tile = built[0], some_tile(3)
    books = codebooks.load_codebooks(bundle.file("flight/tables.npz"))
    codes = [Payload(bundle, Policy(), open_engine(name)).encode_tile(tile) for name in ("openvino", "onnxruntime")]
    assert codes[0].layers == codes[1].layers
    indices = open_codec(bundle).decode(b"", codes[0].layers)
    network = open_engine("onnxruntime").load(bundle.file("flight/encoder.onnx"))
    latents = network.run(codebooks.normalise(tile.dn, books))
    for found, z, book in zip(indices, latents, books.books, strict=True):
        rows = z[0].reshape(len(z[0]), -1).T.astype(np.int64)
        distances = ((rows[::37, None] - book.vectors.astype(np.int64)[None]) ** 2).sum(2)
        assert np.array_equal(found.ravel()[::37], distances.argmin(axis=1))


@pytest.mark.slow
def test_bundle_describes_itself_and_its_torch_model_is_the_flight_network(built):
    bundle, folder = built
    assert bundle.codec == {"kind": "vq", "layers": 3, "codebook": 512}
    assert bundle.manifest["built"]["recipe"]["name"] == "corsa-fpn3-512"
    shapes = bundle.manifest["networks"]["flight/encoder.onnx"]["outputs"]
    assert shapes == {f"latents{s}": [1, 16, 256 // s, 256 // s] for s in (8, 4, 2)}
    planes = np.random.default_rng(0).integers(-128, 128, (1, 4, 256, 256)).astype(np.float32)
    wanted = torch_models(bundle, folder, folder)["flight/encoder.onnx"](planes)
    found = open_engine().load(bundle.file("flight/encoder.onnx"), require_int8=True).run(planes)
    assert all(np.array_equal(a, b) for a, b in zip(wanted, found, strict=True))


def test_encoder_runs_in_int8_and_gives_int8_values(tmp_path):
    recipe = small_recipe(tile_px=64)
    export_encoder(calibrated(recipe).encoder, recipe, tmp_path / "encoder.onnx")
    assert execution(tmp_path / "encoder.onnx").all_int8
    planes = np.random.default_rng(0).integers(-128, 128, (1, 4, 64, 64)).astype(np.float32)
    maps = open_engine().load(tmp_path / "encoder.onnx").run(planes)
    assert [m.shape for m in maps] == [(1, 4, 8, 8), (1, 4, 16, 16), (1, 4, 32, 32)]
    assert all(np.array_equal(m, np.rint(m)) and np.abs(m).max() <= 128 and m.any() for m in maps)


def test_int8_network_follows_the_float_network():
    recipe, planes = small_recipe(), torch.randint(-128, 0, (2, 4, 32, 32)).float()
    torch.manual_seed(2)
    model = Corsa(recipe, quantised=False).eval()
    flight = in_int8(model, recipe)
    calibrate(flight.encoder, [planes] * 3)
    with torch.no_grad():
        for a, b in zip(model.encoder(planes), flight.eval().encoder(planes), strict=True):
            assert (a - b).pow(2).mean() < 0.2 * a.var()


def test_nearest_is_the_payloads_and_takes_the_lowest_index_on_ties():
    rng = np.random.default_rng(0)
    vectors = rng.integers(-20, 20, (32, 4)).astype(np.float32)
    vectors[[5, 9]] = vectors[17]
    latents = rng.integers(-30, 30, (1, 4, 12, 12)).astype(np.float32)
    latents[0, :, 0, 0] = vectors[17]
    rows = torch.tensor(latents[0].reshape(4, -1).T)
    found = nearest(rows, torch.tensor(vectors)).reshape(12, 12).numpy()
    assert np.array_equal(found, codebooks.nearest(latents, codebooks.Codebook(vectors)))
    assert found[0, 0] == 5


def test_codebook_entry_moves_to_the_running_mean_of_its_latents():
    book = Codebook(2, 1, decay=0.5)
    book.vectors.copy_(torch.tensor([[0.0], [10.0]]))
    book.uses.fill_(2.0)
    book.sums.copy_(book.vectors * 2)
    straight, index = book(torch.tensor([1.0, 3.0, 12.0, 12.0]).reshape(1, 1, 2, 2), whole=False)
    assert index.tolist() == [0, 0, 1, 1]
    # sums: half of the old (0, 20) and half of the new (4, 24); uses stay 2 and 2
    assert book.vectors.ravel().tolist() == [1.0, 11.0]
    assert straight.ravel().tolist() == [1.0, 1.0, 11.0, 11.0]


def test_dead_entry_starts_again_from_a_latent():
    book = Codebook(2, 1, decay=0.0)
    book.vectors.copy_(torch.tensor([[0.0], [100.0]]))
    book.uses.fill_(2.0)
    book(torch.full((1, 1, 2, 2), 3.0), whole=False)
    assert book.vectors.ravel().tolist() == [3.0, 3.0]


def test_gradient_passes_the_codebook_straight_through():
    book = Codebook(4, 2, decay=0.9).eval()
    latents = torch.randn(1, 2, 3, 3, requires_grad=True)
    book(latents, whole=True)[0].sum().backward()
    assert latents.grad is not None and torch.equal(latents.grad, torch.ones_like(latents))


def test_maps_that_do_not_arrive_are_zeros_to_the_decoder():
    system = calibrated(small_recipe())
    planes = torch.randint(-128, 0, (1, 4, 32, 32)).float()
    with torch.no_grad(), mixed_precision():
        z8, z4, z2 = system.encoder(planes)
        q8 = system.codebooks[0](z8, True)[0]
        wanted = system.decoder(q8, torch.zeros_like(z4), torch.zeros_like(z2)).float()
        found, _, _ = system(planes, torch.tensor([[1.0, 0.0, 0.0]]))
    assert torch.equal(found, wanted)


def test_planes_hold_the_training_samples_from_zero_up():
    dn = np.arange(4 * 1000, dtype=np.uint16).reshape(1, 4, 20, 50)
    mean, scale = normalisation(dn)
    assert torch.equal(-mean / scale, torch.full((4,), -128.0))
    reached = np.quantile(dn[0].reshape(4, -1)[:, ::7], 0.999, axis=1)
    assert np.allclose(((reached - mean.numpy()) / scale.numpy()), 127)


def test_training_learns_resumes_and_leaves_int8_weights(tmp_path):
    recipe, pool = small_recipe(), fake_pool()
    recipe["training"] |= {"float_steps": 100, "learning_rate": 1e-2, "dropped": 0.0}
    train_vq(pool, recipe, tmp_path)
    assert int(load_file(tmp_path / QUANTISED)["step_no"]) == 2
    system = train.load_trained(recipe, tmp_path)
    planes = torch.tensor(pool.dn[:4].astype(np.float32)) - system.mean_dn[:, None, None]
    planes = planes / system.scale_dn[:, None, None]
    flat = float(10 * torch.log10(255.0**2 / planes.var(dim=(2, 3)).mean(1)).mean())  # each band's mean, and no more
    assert train.validate(system, planes)["psnr_planes_db"] > flat + 1
    before = (tmp_path / QUANTISED).read_bytes()
    train_vq(pool, recipe, tmp_path)  # nothing is left to do
    assert (tmp_path / QUANTISED).read_bytes() == before
    assert len((tmp_path / "quantised.csv").read_text(encoding="utf-8").splitlines()) == 2


def test_a_step_of_training_is_the_same_for_the_same_seed(tmp_path):
    recipe, pool = small_recipe(), fake_pool()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        train_vq(pool, recipe, tmp_path / name)
    a, b = (load_file(tmp_path / name / QUANTISED) for name in ("a", "b"))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("size", [8, 32])
def test_other_codebook_sizes_start_from_the_trained_system(tmp_path, monkeypatch, size):
    recipe, pool = small_recipe(), fake_pool()
    (tmp_path / recipe["name"]).mkdir()
    save_weights(tmp_path / recipe["name"] / QUANTISED, calibrated(recipe).state_dict(), 1)
    monkeypatch.setattr(train, "load_recipe", lambda name: recipe)
    other, out = small_recipe(codebook=size, start=recipe["name"], name="other"), tmp_path / "other"
    out.mkdir()
    train_vq(pool, other, out)
    assert [len(book.vectors) for book in train.load_trained(other, out).codebooks] == [size] * 3
    assert not (out / train.FLOAT).exists()


def test_resized_codebooks_keep_the_entries_used_most():
    former = calibrated(small_recipe())
    for book in former.codebooks:
        book.uses.copy_(torch.arange(16).float())
        book.vectors.copy_(torch.arange(16).float()[:, None] * 100 * torch.ones(4))
    fewer, more = (train.resized(former, small_recipe(codebook=size)).codebooks[0].vectors for size in (4, 32))
    assert sorted(round(float(v) / 100) for v in fewer[:, 0]) == [12, 13, 14, 15]
    assert sorted(round(float(v) / 100) for v in more[:, 0]) == sorted([*range(16)] * 2)


def test_recipe_names_carry_the_codebook_size():
    sizes = {name: load_recipe(f"corsa-fpn3-{name}")["codebook"] for name in (256, 512, 1024)}
    assert sizes == {256: 256, 512: 512, 1024: 1024}
    assert load_recipe("corsa-fpn3-512")["name"] == "corsa-fpn3-512"
    for wrong in ("corsa-fpn3", "corsa-fpn3-7", "edge-512"):
        with pytest.raises(InputError, match="corsa-fpn3-512, corsa-fpn3-256"):
            load_recipe(wrong)


def test_missing_checkpoint_is_named_with_the_command_that_writes_it(tmp_path):
    with pytest.raises(InputError, match="train --recipe corsa-fpn3-512"):
        train.load_trained(load_recipe("corsa-fpn3-512"), tmp_path)


def test_networks_of_the_recipe_have_the_published_strides():
    recipe = load_recipe("corsa-fpn3-1024")
    encoder, decoder = build(recipe, quantised=False)
    with torch.no_grad():
        maps = encoder(torch.zeros(1, 4, 32, 32))
        rebuilt = decoder(*maps)
    assert [m.shape for m in maps] == [(1, 16, 4, 4), (1, 16, 8, 8), (1, 16, 16, 16)]
    assert rebuilt.shape == (1, 4, 32, 32)
