"""A .tflite written as ONNX: ONNX Runtime and OpenVINO give the numbers of LiteRT, for each operation."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.libraries import LIBRARIES
from deeplab_tf.inference.onnx_graph import onnx_of
from deeplab_tf.inference.tflite.convert import LiteModel, convert

pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
pytest.importorskip("ai_edge_litert", reason="the extra `litert` is not installed")

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(1, 10, 13, 4)).astype(np.float32)


def weights(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def convolved(x, *, stride: int = 1, padding: str = "SAME", rate: int = 1):
    return tf.nn.bias_add(tf.nn.conv2d(x, weights(3, 3, 4, 5), stride, padding, dilations=rate), weights(5))


def depthwise(x, *, stride: int = 1, rate: int = 1):
    options = {"strides": [1, stride, stride, 1], "dilations": [1, rate, rate, 1], "padding": "SAME"}
    return tf.raw_ops.DepthwiseConv2dNative(input=x, filter=weights(3, 3, 4, 1), **options)


def resized(x, size: tuple[int, int]):
    return tf.raw_ops.ResizeBilinear(images=x, size=size, align_corners=True)


OPERATIONS = {
    "convolution": convolved,
    "stride": lambda x: convolved(x, stride=2),
    "valid": lambda x: convolved(x, stride=2, padding="VALID"),
    "rate": lambda x: convolved(x, rate=3),
    "relu": lambda x: tf.nn.relu(convolved(x)),
    "relu6": lambda x: tf.nn.relu6(convolved(x)),
    "depthwise": depthwise,
    "depthwise, stride": lambda x: depthwise(x, stride=2),
    "depthwise, rate": lambda x: depthwise(x, rate=2),
    "margins": lambda x: tf.pad(x, [[0, 0], [1, 2], [3, 0], [0, 0]]),
    "enlarged": lambda x: resized(x, (31, 17)),
    "from one pixel": lambda x: resized(tf.nn.avg_pool2d(x, (10, 13), 1, "VALID"), (10, 13)),
    "average": lambda x: tf.nn.avg_pool2d(x, 3, 2, "SAME"),
    "largest": lambda x: tf.nn.max_pool2d(x, 3, 2, "SAME"),
    "mean": lambda x: x * tf.reduce_mean(x, (1, 2), keepdims=True),
    "side by side": lambda x: tf.concat([x, convolved(x)], -1),
    "by channels": lambda x: tf.maximum(x * weights(4) - weights(4), weights(1)),
    "smallest": lambda x: tf.minimum(x, 0.25) + x,
    "gates": lambda x: tf.sigmoid(x) * (tf.nn.relu6(x + 3.0) / 6.0),
}


def converted(run) -> bytes:
    function = tf.function(run, input_signature=[tf.TensorSpec(IMAGES.shape, tf.float32)], autograph=False)
    return convert(function.get_concrete_function())


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_numbers_of_litert(name):
    content = converted(OPERATIONS[name])
    (expected,) = LiteModel(content)(IMAGES)
    for runtime in ("onnx", "openvino"):
        if not LIBRARIES[runtime].missing:
            (found,) = LIBRARIES[runtime].open(content)(IMAGES)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda x: tf.cumsum(x, 1), "the operation CUMSUM cannot be written"),
        (lambda x: tf.reduce_mean(x, (1, 2)), "cannot be written as ONNX here"),
        (lambda x: tf.image.resize(x, (20, 26)), "a resize without aligned corners cannot be written"),
    ],
)
def test_what_is_not_known_is_said(run, reason):
    with pytest.raises(DeepLabError, match=reason):
        onnx_of(converted(run))
