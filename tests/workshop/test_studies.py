"""Studies of the codec: transforms undo themselves, a rate is the context model's, arms compare as on the bench."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from export.lapped.context_model import nats, new_context_model
from export.lapped.model import kernels_of
from export.lapped.train import CHECKPOINTS
from export.lapped.transform import from_blocks
from export.recipe import load_recipe
from export.studies import block16, rate, zone_flags
from export.studies.blocks import Blocks
from export.studies.coded import Curve, bd_rate_percent
from export.studies.residual_encoder import ResidualEncoder, macs_per_px
from export.studies.tiles import apart, side_by_side
from export.studies.trained_functions import Functions
from export.training import load_weights
from payload.bundle import load_bundle
from payload.codec.interface import TABLES_FILE
from payload.codec.lapped.context_model import zones
from payload.codec.lapped.layers import Plain
from payload.codec.lapped.quantiser import Indices
from payload.codec.lapped.tables import load_tables
from sim.metrics import bd_rate


@pytest.fixture(scope="module")
def functions() -> torch.Tensor:
    transform = load_file(CHECKPOINTS / "edge" / "transform.safetensors")
    return torch.from_numpy(from_blocks(kernels_of(transform).numpy())).float()


@pytest.fixture(scope="module")
def bands() -> torch.Tensor:
    """Rough ground, [2, 4, 128, 128]."""
    steps = np.random.default_rng(1).normal(0, 60, (2, 4, 128, 128))
    return torch.from_numpy(steps.cumsum(2) + steps.cumsum(3)).float()


@pytest.fixture(scope="module")
def contexts(functions, bands):
    found = Blocks(functions).coefficients(bands).flatten(1, 2)
    model = new_context_model(load_recipe("edge"), found, np.arange(2))
    model.load_state_dict(load_weights(CHECKPOINTS / "edge" / "context.safetensors")[0])
    return model.requires_grad_(False)


def test_transforms_of_both_sizes_undo_themselves(functions, bands) -> None:
    small, large = Blocks(functions), block16.designed(bands)
    for blocks, off in ((small, 1.0), (large, 1.0)):
        found = blocks.coefficients(bands)
        assert found.shape == (2, 4, blocks.size**2, 128 // blocks.size, 128 // blocks.size)
        assert float((blocks.rotated(found) - bands).abs().max()) < off
    assert float(large.functions.sum((1, 2))[1:].abs().max()) < 1e-6  # blind to a constant
    one = large.coefficients(bands)
    told = block16.as_blocks_of_8(one)
    assert told.shape == (2, 4, 64, 16, 16)
    assert torch.allclose(block16.as_blocks_of_16(told), one, atol=1e-2)
    means = torch.nn.functional.avg_pool2d(bands, 8)
    assert np.corrcoef(told[:, :, 0].flatten(), means.flatten())[0, 1] > 0.88  # four averages, each in its place
    assert torch.allclose(block16.merged(block16.merged(told)), told, atol=1e-2)
    four = torch.arange(64.0).reshape(4, 1, 1, 4, 4)
    assert torch.equal(apart(side_by_side(four)), four)
    assert side_by_side(four)[0, 0, 0].tolist() == [0, 1, 2, 3, 16, 17, 18, 19]


def test_functions_begin_as_they_fly_and_stay_what_the_kernel_folds(functions) -> None:
    trained = Functions(functions)
    assert torch.equal(trained.flown(), functions)
    with torch.no_grad():
        trained.quarter.add_(torch.randn(trained.quarter.shape, generator=torch.Generator().manual_seed(2)) * 0.01)
    flown = trained.flown()
    even = (torch.arange(64) // 8 % 2 == 0).float()[:, None, None]
    assert torch.equal(flown.flip(1), (2 * even - 1) * flown) and not torch.equal(flown, functions)
    assert float(flown.sum((1, 2))[1:].abs().max()) == 0


def test_the_rate_is_the_context_model_s_and_pulls_coefficients_down(functions, bands, contexts) -> None:
    found = Blocks(functions).coefficients(bands).flatten(1, 2)
    share = (found.abs() / 100).requires_grad_()
    magnitude = torch.floor(share.detach() + rate.ROUND_UP)
    wanted = sum(float(nats(contexts, magnitude, layer)) for layer in range(4)) / np.log(2)
    here = [torch.floor(magnitude / 2**k) for k in range(4)]
    wanted += rate.REFINEMENT_BITS * sum(int((m > 0).sum()) for m in here[1:]) + int((magnitude > 0).sum())
    wanted += rate.OCTAVE_BITS * float(torch.log2((share.detach() / 8).clamp(min=1)).sum())
    bits = rate.bits(contexts, share, 0)
    assert float(bits.detach()) == pytest.approx(wanted, rel=1e-4)
    bits.backward()
    assert share.grad is not None and float(share.grad.sum()) > 0
    assert float(rate.bits(contexts, share, 2).detach()) < 0.7 * wanted  # two layers stay on board


def test_errors_are_those_of_the_quantiser() -> None:
    found = torch.tensor([0.5, 0.9, -2.1, 7.0])
    assert torch.allclose(rate.errors(found, found, torch.tensor(1.0), 0), torch.tensor([-0.5, 0.32, -0.12, 0.22]))
    assert torch.allclose(rate.errors(found, found, torch.tensor(1.0), 1), torch.tensor([-0.25, -0.45, -0.25, -0.2]))
    assert float(rate.jump(torch.tensor([0.7, 3.0]), 0).abs().max()) == 0


def test_the_residual_encoder_keeps_to_its_budget_and_leaves_averages_alone() -> None:
    torch.manual_seed(0)
    network = ResidualEncoder(4).eval()
    added = network(torch.randn(1, 256, 8, 8))
    assert float(added[:, ::64].abs().max()) == 0 < float(added.abs().max()) < 1
    assert macs_per_px(4) + 2048 + 830 < 4000 and sum(p.numel() for p in network.parameters()) < 183_616


def test_zone_flags_tell_every_decision_and_no_other() -> None:
    tables = load_tables(load_bundle("edge").file(TABLES_FILE))
    rng = np.random.default_rng(3)
    magnitude = (rng.geometric(0.5, (256, 8, 8)) - 1) * (rng.random((256, 8, 8)) < 0.03)
    indices = Indices(magnitude.astype(np.uint16), rng.random((256, 8, 8)) < 0.5)
    coder = Plain(tables, 8)
    (*_, layer) = zone_flags.walk(coder.decode_layers(coder.encode_layers(indices)), tables)
    counts = zone_flags.Counts()
    zone_flags.count_plain(layer, counts)
    zone_flags.count_flags(layer, counts)
    told = zone_flags.figures(layer, counts)
    assert told.decisions == int((magnitude[layer.open_.any((1, 2))] < 2).sum())  # what the third layer left at zero
    fresh = (magnitude == 1).reshape(4, 64, 8, 8)
    open_ = layer.open_.reshape(4, 64, 8, 8)
    of_zones = [open_[:, zones() == z] & fresh[:, zones() == z].any(1, keepdims=True) for z in range(4)]
    flagged = sum(int(of_zone.sum()) for of_zone in of_zones) + int(layer.open_[::64].sum())
    assert told.decisions_flagged == flagged < told.decisions
    assert told.bits_of_flags > 0 and told.bits_flagged < told.bits


def test_bd_rate_is_the_benchmark_s() -> None:
    octets = np.array([1e3, 2e3, 4e3, 9e3, 2e4, 5e4])
    first, second = np.array([30.0, 34, 37, 41, 46, 52]), np.array([30.2, 34, 37.3, 41, 46, 52])
    curves = Curve(octets, first), Curve(octets * 1.1, second)
    samples = 4 * 256 * 256
    theirs = [bd_rate.Curve.of(c.octets, c.psnr_db) for c in curves]
    wanted = bd_rate.bd_rate_percent(theirs[1], theirs[0], 2 * samples / 250, 2 * samples / 20)
    assert bd_rate_percent(curves[1], curves[0], samples) == pytest.approx(wanted, abs=1e-6)
    dearer = Curve(octets * 1.5, first)
    assert bd_rate_percent(curves[0].beside(dearer), curves[0], samples) == pytest.approx(0, abs=1e-6)

