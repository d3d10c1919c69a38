"""A .tflite file taken apart, changed and put together again."""

import numpy as np
import pytest
import tensorflow as tf
from golden import golden_tensor

from deeplab_tf.inference.tflite.file import (
    after_convolutions,
    constant,
    convolutions,
    drop_unused,
    open_interpreter,
    pack,
    set_constant,
    unpack,
)
from deeplab_tf.weights.lite_format import schema

SHAPE = (1, 5, 7, 3)


@pytest.fixture(scope="module")
def content():
    """A depthwise and a plain convolution with ReLU and biases."""
    deep, wide = golden_tensor("a/depthwise_weights", (3, 3, 3, 1)), golden_tensor("b/weights", (1, 1, 3, 4))

    @tf.function(input_signature=[tf.TensorSpec(SHAPE)])
    def run(x):
        x = tf.nn.relu(tf.nn.bias_add(tf.nn.depthwise_conv2d(x, deep, [1, 1, 1, 1], "SAME"), [0.5, 0.25, 0.0]))
        return tf.nn.bias_add(tf.nn.conv2d(x, wide, 1, "SAME"), [1.0, 2.0, 3.0, 4.0])

    return tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()]).convert()


def outputs(content: bytes) -> np.ndarray:
    interpreter = open_interpreter(content)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], golden_tensor("x/weights", SHAPE))
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def test_unchanged(content):
    assert np.array_equal(outputs(pack(unpack(content))), outputs(content))


def test_convolutions(content):
    model = unpack(content)
    (graph, first, depthwise), (_, second, plain) = convolutions(model)
    assert (depthwise, plain) == (True, False)
    assert list(graph.tensors[first.inputs[1]].shape) == [1, 3, 3, 3]
    kernel = constant(model, graph.tensors[second.inputs[1]])
    assert np.array_equal(kernel, golden_tensor("b/weights", (1, 1, 3, 4)).transpose(3, 0, 1, 2))


def test_what_comes_after_the_convolutions():
    @tf.function(input_signature=[tf.TensorSpec(SHAPE)])
    def run(x):
        x = tf.nn.depthwise_conv2d(x, golden_tensor("a/depthwise_weights", (3, 3, 3, 1)), [1, 1, 1, 1], "SAME")
        pooled = tf.reduce_mean(tf.nn.tanh(x), (1, 2), keepdims=True)  # before the last convolution
        x = tf.nn.conv2d(x * pooled, golden_tensor("b/weights", (1, 1, 3, 4)), 1, "SAME")
        return tf.argmax(tf.abs(x), -1, output_type=tf.int32)

    file = unpack(tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()]).convert())
    (graph,), names = file.subgraphs, schema().BuiltinOperator
    kinds = [file.operatorCodes[operation.opcodeIndex].builtinCode for operation in graph.operators]
    last = {
        op.outputs[0] for op, kind in zip(graph.operators, kinds, strict=True) if kind in (names.ABS, names.ARG_MAX)
    }
    assert len(last) == 2 and after_convolutions(file) == last


def test_a_constant_changed(content):
    model = unpack(content)
    *_, (graph, operation, _) = convolutions(model)
    bias = graph.tensors[operation.inputs[2]]
    before = bias.buffer
    set_constant(model, bias, constant(model, bias) + np.float32(10))
    np.testing.assert_allclose(outputs(pack(model)), outputs(content) + 10, atol=1e-5)
    assert model.buffers[before].data is not None  # another tensor may have it
    drop_unused(model)
    assert model.buffers[before].data is None
    np.testing.assert_allclose(outputs(pack(model)), outputs(content) + 10, atol=1e-5)


def test_every_tensor_can_be_read(content):
    interpreter = open_interpreter(content, keep_all=True)
    x = golden_tensor("x/weights", SHAPE)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    (_, first, _), _ = convolutions(unpack(content))
    kernel = golden_tensor("a/depthwise_weights", (3, 3, 3, 1))
    expected = tf.nn.relu(tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME") + [0.5, 0.25, 0.0])
    np.testing.assert_allclose(interpreter.get_tensor(first.outputs[0]), expected, atol=1e-5)


def test_the_schema_is_tensorflows():
    assert schema().BuiltinOperator.CONV_2D == 3 and schema().TensorType.FLOAT32 == 0
