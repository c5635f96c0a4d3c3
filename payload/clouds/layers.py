"""The cloud network's file -> its layers in integers, as the compiled kernel runs them.

The file is the one that the runtimes run. All its scales are powers of two, so that a layer is a convolution of octets
with weights of 7 bits, a bias, and shifts: what is added from another layer is shifted up, the sum is rounded half to
even as it is shifted down. A network that holds anything else is left to a runtime.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.engine import Operator

#: Bounds of the kernel's: a pair of products fits 16 bits, a sum and what is added to it 32.
MOST_WEIGHT, MOST_SHIFT, MOST_BIAS = 64, 20, 1 << 24
#: Channels that the kernel takes at a time; exponents that are looked for.
GROUP = 16
EXPONENTS = range(-8, 32)
#: In place of a layer: the tile's planes.
PLANES = -1


class OtherLayersError(Exception):
    """Something in a network that the kernel has no layer for."""


@dataclass(frozen=True)
class Octets:
    """Activations in units of 2^exponent: of which layer, and whether taken twice as large in both directions."""

    layer: int
    exponent: int = 0
    doubled: bool = False


@dataclass(frozen=True, eq=False)
class Sums:
    """A convolution that is not rounded yet. weights [cout, cin, k, k]; [cout, 1, k, k] where it is depthwise."""

    source: Octets
    weights: NDArray[np.float64]
    stride: int
    depthwise: bool
    bias: NDArray[np.float64]  # [cout]
    added: Octets | None = None
    positive: bool = False  # what is below 0 becomes 0


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution in integers: (bias + sum + (added << up)) >> down, rounded half to even. [cout] each."""

    sums: Sums
    weights: NDArray[np.int8]
    bias: NDArray[np.int32]
    down: NDArray[np.int32]
    up: NDArray[np.int32]
    signed: bool

    @property
    def kernel(self) -> int:
        return self.weights.shape[2]

    @property
    def of_planes(self) -> bool:
        """Whether it takes the planes in patches that do not overlap."""
        return self.sums.source.layer == PLANES


def layers_of(operators: Sequence[Operator]) -> list[Layer]:
    """A network's layers in order. OtherLayersError where the kernel has none for something in it."""
    layers: list[Layer] = []
    readers: dict[str, Callable[[Operator, list[Any]], Any]] = {
        "Parameter": lambda _, __: Octets(PLANES),
        "Constant": lambda operator, _: np.asarray(operator.constant, np.float64),
        "Convert": _as_it_is, "Relu": _positive, "Result": partial(_result, layers),
        "Subtract": _shifted, "Multiply": _scaled, "Interpolate": _doubled, "Add": _added,
        "Convolution": partial(_convolution, depthwise=False),
        "GroupConvolution": partial(_convolution, depthwise=True),
        "FakeQuantize": partial(_rounded, layers),
    }  # fmt: skip
    _wanted(sum(operator.kind == "Parameter" for operator in operators) == 1, "more than one input")
    values: list[Any] = []
    for operator in operators:
        _wanted(operator.kind in readers, f"a {operator.kind}")
        values.append(readers[operator.kind](operator, [values[i] for i in operator.inputs]))
    return layers


def _wanted(held: bool, found: str) -> None:
    if not held:
        raise OtherLayersError(found)


def _number(value: Any) -> float:
    _wanted(isinstance(value, np.ndarray) and value.size == 1, "a scale for every channel of activations")
    return float(value.item())


def _exponent(scale: float) -> int:
    mantissa, exponent = np.frexp(scale)
    _wanted(float(mantissa) == 0.5, f"a scale of {scale:g}, no power of two")
    return int(exponent) - 1


def _as_it_is(_: Operator, given: list[Any]) -> Any:
    _wanted(not isinstance(given[0], Sums), "sums in another type")
    return given[0]


def _result(layers: list[Layer], _: Operator, given: list[Any]) -> Octets:
    _wanted(given[0] == Octets(len(layers) - 1), "another output than whole logits")
    return Octets(len(layers) - 1)


def _positive(_: Operator, given: list[Any]) -> Sums:
    _wanted(isinstance(given[0], Sums), "activations that are cut again")
    return replace(given[0], positive=True)


def _shifted(_: Operator, given: list[Any]) -> Any:
    _wanted(_number(given[1]) == 0.0, "a zero point")
    return given[0]


def _scaled(_: Operator, given: list[Any]) -> Octets:
    value, by = given
    _wanted(isinstance(value, Octets), "scaled sums")
    return replace(value, exponent=value.exponent + _exponent(_number(by)))


def _doubled(operator: Operator, given: list[Any]) -> Octets:
    value, scales = given[0], given[-1]
    kind = operator.attributes.get("mode"), operator.attributes.get("nearest_mode")
    twice = isinstance(scales, np.ndarray) and scales.tolist() in ([1, 1, 2, 2], [2, 2])
    _wanted(isinstance(value, Octets) and twice and kind == ("nearest", "floor"), "another interpolation")
    return replace(value, doubled=True)


def _convolution(operator: Operator, given: list[Any], depthwise: bool) -> Sums:
    source, weights = given
    _wanted(isinstance(source, Octets) and isinstance(weights, np.ndarray), "a convolution of sums")
    weights = weights.reshape(weights.shape[0], -1, *weights.shape[-2:])
    kernel, strides = weights.shape[2], operator.attributes["strides"]
    _wanted(kernel == weights.shape[3] and strides[0] == strides[1] and not source.doubled, "an uneven convolution")
    margins = {*operator.attributes["pads_begin"], *operator.attributes["pads_end"]}
    _wanted(margins == {kernel // 2 if depthwise else 0}, "other margins")
    _wanted({*operator.attributes["dilations"]} == {1}, "a dilated convolution")
    if depthwise:
        fits = weights.shape[1] == 1 and kernel in (3, 5) and strides[0] in (1, 2) and source.layer != PLANES
        _wanted(fits, "groups of channels")
    else:
        of_patches = source.layer == PLANES and kernel == strides[0] and kernel in (2, 4)
        _wanted(of_patches or (kernel == strides[0] == 1 and source.layer != PLANES), "a wide convolution")
    return Sums(source, weights, strides[0], depthwise, np.zeros(len(weights)))


def _added(_: Operator, given: list[Any]) -> Sums:
    sums, more = given if isinstance(given[0], Sums) else given[::-1]
    _wanted(isinstance(sums, Sums) and not sums.positive, "a sum of activations")
    if isinstance(more, np.ndarray):
        _wanted(more.size == len(sums.weights), "a bias for every position")
        return replace(sums, bias=sums.bias + more.ravel())
    _wanted(isinstance(more, Octets) and more.layer != PLANES, "a sum of convolutions")
    _wanted(sums.added is None and not sums.depthwise, "a sum of more than two")
    return replace(sums, added=more)


def _rounded(layers: list[Layer], operator: Operator, given: list[Any]) -> Octets:
    sums = given[0]
    _wanted(isinstance(sums, Sums) and operator.attributes["levels"] == 256, "values that are rounded twice")
    low, high, least, most = (_number(value) for value in given[1:])
    unit, told = _exponent((high - low) / 255), _exponent((most - least) / 255)
    _wanted(np.ldexp(low, -unit) == np.ldexp(least, -told) and np.ldexp(low, -unit) in (0, -128), "a zero point")
    _wanted(low == 0.0 or not sums.positive, "signed values of one sign")
    layers.append(_in_integers(sums, unit, signed=low < 0))
    return Octets(len(layers) - 1, told)


def _in_integers(sums: Sums, unit: int, signed: bool) -> Layer:
    """Each channel's sums in the coarsest unit in which weights and bias are whole, rounded to units of 2^unit."""
    channels, source = len(sums.weights), sums.source.exponent
    added = sums.added.exponent if sums.added else None
    rows = np.concatenate([sums.weights.reshape(channels, -1), np.ldexp(sums.bias, -source)[:, None]], axis=1)
    finest = max(1 - unit, 0 if added is None else -added) + source  # so that down is 1 at least, and up 0
    fine = np.maximum(_fineness(rows), finest)
    weights, bias = np.ldexp(sums.weights, fine[:, None, None, None]), np.ldexp(sums.bias, fine - source)
    down, up = fine - source + unit, np.zeros_like(fine) if added is None else fine - source + added
    _wanted(bool((np.abs(weights) <= MOST_WEIGHT).all()), "weights of more than 7 bits")
    _wanted(bool((np.abs(bias) <= MOST_BIAS).all() and max(*down, *up) <= MOST_SHIFT), "sums of more than 32 bits")
    whole = sums.depthwise or sums.weights[0].size % GROUP == 0
    _wanted(channels % GROUP == 0 and whole, f"channels that are no multiple of {GROUP}")
    to = np.int32
    return Layer(sums, weights.astype(np.int8), bias.astype(to), down.astype(to), up.astype(to), signed)


def _fineness(rows: NDArray[np.float64]) -> NDArray[np.int64]:
    """The least exponents [n] that make whole numbers of rows [n, m] times 2^exponent."""
    found = np.full(len(rows), EXPONENTS.stop)
    for exponent in reversed(EXPONENTS):
        scaled = np.ldexp(rows, exponent)
        found[(scaled == np.rint(scaled)).all(axis=1)] = exponent
    return found
