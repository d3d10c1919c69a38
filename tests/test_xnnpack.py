"""Eight-bit files of what XNNPACK runs: the operations that were replaced, and that the values stay."""

import numpy as np
import pytest
import tensorflow as tf
from golden import golden_image, golden_tensor

from deeplab_tf.inference.tflite import quantization
from deeplab_tf.inference.tflite.convert import LiteModel, convert, operations
from deeplab_tf.inference.tflite.file import unpack
from deeplab_tf.inference.tflite.xnnpack import use_xnnpack

SIZE = (33, 49)
KERNEL = golden_tensor("a/weights", (3, 3, 3, 16)) / 256
SECOND = np.eye(16, dtype=np.float32)[None, None]


def hard_swish(x):
    return x * tf.nn.relu6(x + 3.0) * np.float32(1 / 6)


ACTIVATIONS = {"RELU": tf.nn.relu, "HARD_SWISH": hard_swish}


def exported(activation, images, precision="int8", factor=1.0):
    """Returns a file whose activation stands alone: of a sum that is used without it, too, as in Xception."""

    @tf.function(input_signature=[tf.TensorSpec((1, *SIZE, 3))])
    def run(x):
        bias = np.linspace(-4, 4, 16, dtype=np.float32)
        x = tf.nn.bias_add(tf.nn.conv2d(x / 127.5 - 1.0, factor * KERNEL, 2, "SAME"), factor * bias)
        x += tf.nn.max_pool2d(x, 3, 1, "SAME")
        return tf.concat([tf.nn.conv2d(ACTIVATIONS[activation](x), SECOND, 1, "SAME"), x], axis=-1)

    return convert(run.get_concrete_function(), precision=precision, uint8_io=False, representative=images)


@pytest.fixture(scope="module")
def images():
    return [golden_image(f"lone{number}", *SIZE)[None].astype(np.float32) for number in range(4)]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_values_stay(activation, images, tmp_path, monkeypatch):
    files = {"after": exported(activation, images)}
    monkeypatch.setattr(quantization, "use_xnnpack", lambda model: None)
    files["before"] = exported(activation, images)
    kinds = {}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        kinds[name] = operations(tmp_path / name)
    assert kinds["before"][activation] == 1 and activation not in kinds["after"]
    before, after = (np.array([LiteModel(files[name])(image)[0] for image in images]) for name in ("before", "after"))
    step = np.diff(np.unique(before)).min()
    assert before.std() > 10 * step
    assert np.abs(after - before).max() < 1.5 * step


def test_sums_of_small_values(images):
    """XNNPACK adds where the scales differ from the sum's by a factor of 2^-10 to 2^8."""
    (graph,) = unpack(exported("RELU", images, factor=1e-3)).subgraphs
    zero = next(i for i, tensor in enumerate(graph.tensors) if tensor.name == b"zero")
    (addition,) = (operation for operation in graph.operators if zero in operation.inputs)
    given, added, total = (graph.tensors[i].quantization.scale[0] for i in (*addition.inputs, *addition.outputs))
    assert total < 2**-12
    assert all(2**-10 <= scale / total < 2**8 for scale in (given, added))


def test_real_numbers_are_left_alone(images):
    model = unpack(exported("RELU", images, "float32"))
    kinds = [model.operatorCodes[operation.opcodeIndex].builtinCode for operation in model.subgraphs[0].operators]
    use_xnnpack(model)
    assert kinds == [model.operatorCodes[op.opcodeIndex].builtinCode for op in model.subgraphs[0].operators]
