"""Convolutions for an exported graph, with strides and atrous rates, in operations that every target takes."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import tensorflow as tf

from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.resizing import static_dimensions

# An atrous depthwise convolution is written for its target, "tensorflow", "tflite" or "onnx". TensorFlow's own kernel
# exists on some CPUs only (with oneDNN), and tf.nn wraps it in SpaceToBatchND; so there it is a plain one between two
# reshapes. TFLite and ONNX have an attribute.

Rates = tuple[int, int]
Padding = str | list[list[int]]  # SAME, VALID, or the margins of each axis


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Where a convolution is calculated: its stride, its atrous rates (vertical, horizontal), and its padding."""

    stride: int = 1
    rates: Rates = (1, 1)
    padding: Padding = "SAME"

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Geometry":
        """Returns the geometry that the options of a Keras layer say."""
        rate = options["dilation_rate"]
        rates = (rate, rate) if isinstance(rate, int) else (rate[0], rate[1])
        return cls(options["strides"], rates, options["padding"].upper())


def sides_of(maps: tf.Tensor) -> list[Any]:
    """Returns height and width: numbers where they are known, else scalar tensors."""
    dynamic = tf.shape(maps)
    return [dynamic[axis] if maps.shape[axis] is None else maps.shape[axis] for axis in (1, 2)]


def _same_padding(kernel: tf.Tensor, rates: Rates) -> list[list[int]]:
    """What SAME means for stride 1; onnxruntime refuses SAME itself where there is a rate."""
    sides = static_dimensions(kernel, 0, 1)
    totals = [(side - 1) * rate for side, rate in zip(sides, rates, strict=True)]
    return [[0, 0], *([total // 2, total - total // 2] for total in totals), [0, 0]]


def _neighbours_by_reshaping(x: tf.Tensor, kernel: tf.Tensor, rates: Rates) -> tf.Tensor:
    """Atrous depthwise convolution, stride 1, SAME, by a plain one.

    With sides padded to multiples of the rates, [h, w, c] read as [h / r, r * w / r, r * c] has pixels that are r rows
    apart as vertical and those that are r columns apart as horizontal neighbours, and nothing has moved. A row of this
    map is r old rows one after the other; the zeros on the right of each keep them apart. `kernel` has its channels
    repeated for the r columns.
    """
    height, width = sides_of(x)
    tall, wide = rates
    (channels,) = static_dimensions(x, 3)
    (across,) = static_dimensions(kernel, 1)
    rows = (height + tall - 1) // tall
    columns = (width + across // 2 * wide + wide - 1) // wide
    batch = tf.shape(x)[0] if x.shape[0] is None else x.shape[0]
    x = tf.pad(x, [[0, 0], [0, rows * tall - height], [0, columns * wide - width], [0, 0]])
    x = tf.reshape(x, [batch, rows, tall * columns, wide * channels])
    x = tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME")
    return tf.reshape(x, [batch, rows * tall, columns * wide, channels])[:, :height, :width]


def depthwise_convolution(x: tf.Tensor, kernel: tf.Tensor, geometry: Geometry, target: str) -> tf.Tensor:
    """Returns maps [b, h, w, c] convolved by `kernel` [kh, kw, c, 1], for a target.

    For "tensorflow" the channels of an atrous kernel are repeated as often as the second of its rates.

    Raises:
      DeepLabError: no target takes it: a rate beside a stride, an even kernel, or another padding than SAME.
    """
    stride, rates, padding = geometry.stride, geometry.rates, geometry.padding
    if rates == (1, 1):
        if target == "tensorflow" and not isinstance(padding, str):
            # TensorFlow forgets explicit margins where it joins the convolution with what follows, and aborts.
            x, padding = tf.pad(x, padding), "VALID"
        return tf.nn.depthwise_conv2d(x, kernel, [1, stride, stride, 1], padding)
    if stride > 1 or padding != "SAME" or any(side % 2 == 0 for side in static_dimensions(kernel, 0, 1)):
        raise DeepLabError(
            f"a depthwise convolution with kernel {tuple(kernel.shape[:2])}, stride {stride}, rates {rates} and "
            f"padding {padding} cannot be exported; expected an odd kernel, stride 1 and SAME"
        )
    if target == "tensorflow":
        return _neighbours_by_reshaping(x, kernel, rates)
    options = {"strides": [1, 1, 1, 1], "dilations": [1, *rates, 1], "padding": padding}
    if target == "onnx":
        options |= {"padding": "EXPLICIT", "explicit_paddings": sum(_same_padding(kernel, rates), [])}
    return tf.raw_ops.DepthwiseConv2dNative(input=x, filter=kernel, **options)


def full_convolution(x: tf.Tensor, kernel: tf.Tensor, geometry: Geometry, target: str) -> tf.Tensor:
    """Returns maps [b, h, w, cin] convolved by `kernel` [kh, kw, cin, cout], for a target."""
    padding = geometry.padding
    if target == "onnx" and geometry.rates != (1, 1) and padding == "SAME" and geometry.stride == 1:
        padding = _same_padding(kernel, geometry.rates)
    return tf.nn.conv2d(x, kernel, geometry.stride, cast(Any, padding), dilations=geometry.rates)


def taken_in(x: tf.Tensor, margins: list[list[int]], kernel: int, stride: int, target: str) -> Padding | None:
    """Returns the padding by which a convolution of `x` does without an operation that adds `margins`; None: it cannot.

    TFLite has none but SAME, whose margins depend on the size.
    """
    if target != "tflite":
        return margins
    for side, margin in zip(x.shape[1:3], margins[1:3], strict=True):
        total = side and max((-(-side // stride) - 1) * stride + kernel - side, 0)
        if total is None or margin != [total // 2, total - total // 2]:
            return None
    return "SAME"
