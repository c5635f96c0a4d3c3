"""The po2w7 recipe and its exporter: exact between torch and both runtimes, INT8 on every convolution, or refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from export.graphs.qat_layers import INPUT_SCALE, ConvBlock, calibrate, conv, fold_into, pixels, relu, signed
from export.graphs.to_onnx import check_po2w7, export_qcdq, fold_weight_clip, take_integers
from payload.engine import convolution_precisions, open_engine
from payload.errors import InputError


class Tiny(nn.Module):
    """Stem, a depthwise residual, an up-sampled skip, signed logits: every brick of the recipe once."""

    def __init__(self, quantised: bool) -> None:
        super().__init__()
        q = quantised
        self.pixels = pixels(q)
        self.stem = ConvBlock(4, 16, 4, 4, quantised=q)
        self.spread = ConvBlock(16, 16, 3, groups=16, quantised=q)
        self.mix = ConvBlock(16, 16, 1, active=False, quantised=q)
        self.sum = relu(q)
        self.down = ConvBlock(16, 16, 3, 2, quantised=q)
        self.skip = ConvBlock(16, 16, 1, active=False, quantised=q)
        self.join = relu(q)
        self.head = conv(16, 4, 1, quantised=q)
        self.logits = signed(q)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(self.pixels(x))
        x = self.sum(self.mix(self.spread(x)) + x)
        up = nn.functional.interpolate(self.down(x), scale_factor=2, mode="nearest")
        return self.logits(self.head(self.join(self.skip(x) + up)))


@pytest.fixture(scope="module")
def twins() -> tuple[Tiny, Tiny, torch.Tensor]:
    """A float network with moved batch norms, its calibrated quantised twin, and one input."""
    torch.manual_seed(3)
    trained, network = Tiny(quantised=False), Tiny(quantised=True)
    x = torch.randint(0, 256, (2, 4, 64, 64)) * INPUT_SCALE
    for module in trained.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    trained(x)
    fold_into(network, trained)
    calibrate(network, [x] * 3)
    return trained.eval(), network.eval(), x


def test_quantised_twin_stays_close_to_the_float_network(twins: tuple[Tiny, Tiny, torch.Tensor]) -> None:
    trained, network, x = twins
    with torch.no_grad():
        wanted, found = trained(x), network(x)
    assert wanted.std() > 0.05
    assert (found - wanted).abs().mean() < 0.1 * wanted.abs().mean()


@pytest.mark.parametrize("integers", [False, True])
def test_both_runtimes_give_exactly_what_torch_gives(
    twins: tuple[Tiny, Tiny, torch.Tensor], tmp_path: Path, integers: bool
) -> None:
    _, network, x = twins
    path = tmp_path / "tiny.onnx"
    export_qcdq(network, x[:1], path, integer_inputs=integers)
    with torch.no_grad():
        wanted = network(x[:1]).numpy()
    tile = x[:1].numpy()
    fed = np.round(tile / INPUT_SCALE).astype(np.uint8) if integers else tile
    for engine in ("openvino", "onnxruntime"):
        found = open_engine(engine, 1).load(path, require_int8=True).run(fed)[0]
        np.testing.assert_array_equal(found, wanted)


def test_the_clip_left_in_runs_in_float_and_is_refused(build_cnn: Callable[..., Path], tmp_path: Path) -> None:
    raw = onnx.load(str(build_cnn(tmp_path / "raw.onnx", folded=False)))
    with pytest.raises(InputError, match="run in float"):
        check_po2w7(raw)
    folded = fold_weight_clip(raw)
    check_po2w7(folded)
    onnx.save(folded, str(tmp_path / "folded.onnx"))
    network = open_engine("openvino", 1).load(tmp_path / "folded.onnx", require_int8=True)
    assert set(convolution_precisions(network.compiled).values()) <= {"u8", "i8"}  # type: ignore[attr-defined]


def test_eight_bit_weights_are_refused(build_cnn: Callable[..., Path], tmp_path: Path) -> None:
    wide = onnx.load(str(build_cnn(tmp_path / "wide.onnx", bits=8)))
    with pytest.raises(InputError, match="beyond \\+-63"):
        check_po2w7(wide)


def test_a_scale_that_is_no_power_of_two_is_refused(build_cnn: Callable[..., Path], tmp_path: Path) -> None:
    model = onnx.load(str(build_cnn(tmp_path / "cnn.onnx")))
    quantiser = next(n for n in model.graph.node if n.op_type == "QuantizeLinear")
    for tensor in model.graph.initializer:
        if tensor.name == quantiser.input[1]:
            tensor.CopyFrom(numpy_helper.from_array(np.float32(0.3), tensor.name))
    with pytest.raises(InputError, match="power of two"):
        check_po2w7(model)


def test_integer_inputs_need_a_quantiser_at_the_input(build_cnn: Callable[..., Path], tmp_path: Path) -> None:
    model = onnx.load(str(build_cnn(tmp_path / "cnn.onnx")))
    bare = take_integers(model)
    assert bare.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    with pytest.raises(InputError, match="wanted one QuantizeLinear"):
        take_integers(bare)
