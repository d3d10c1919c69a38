"""TFLite files of eight bits as Keras models: weights, ranges, lost names, what is refused."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from golden import golden_image
from networks import lively
from test_inference_graph import graph_of

from deeplab_tf import Segmenter, predict
from deeplab_tf.config import ModelConfig, PredictConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.graph import as_function
from deeplab_tf.inference.tflite.convert import convert
from deeplab_tf.inference.tflite.file import open_interpreter, pack, unpack
from deeplab_tf.ops.resizing import resize_unaligned
from deeplab_tf.weights.lite_format import schema
from deeplab_tf.weights.load import load
from deeplab_tf.weights.loading import open_model
from deeplab_tf.weights.model_directory import save_model
from deeplab_tf.weights.sources import open_source
from deeplab_tf.weights.tf1 import variable_map

SIZE = (65, 65)
STRIDE = 4
CONFIG = ModelConfig(depth_multiplier=0.25, num_classes=5, crop_size=SIZE, decoder_output_stride=(STRIDE,))


@pytest.fixture(scope="module")
def images():
    return [golden_image(f"lite{number}", *SIZE)[None].astype(np.float32) for number in range(3)]


@pytest.fixture(scope="module")
def content(images):
    """A small MobileNetV2 with a decoder in eight bits, from pixels to logits."""
    model = lively(CONFIG)
    options = {"format": "tflite", "export_upsample": "none", "outputs": ("logits",)}
    graph_def = graph_of(model, (1, *SIZE, 3), target="tflite", dtype=np.float32, **options)
    function = as_function(graph_def, ("logits",)).get_concrete_function()
    return convert(function, precision="int8", representative=images)


@pytest.fixture(scope="module")
def straight(content):
    """The same from the levels of pixels on, as Google's files: without the operations that scale pixels."""
    convolution = schema().BuiltinOptions.Conv2DOptions

    def begin_at_the_levels(model):
        (graph,) = model.subgraphs
        first = next(n for n, one in enumerate(graph.operators) if one.builtinOptionsType == convolution)
        graph.inputs = [int(graph.operators[first].inputs[0])]
        graph.operators, model.signatureDefs = graph.operators[first:], []

    return _changed(content, begin_at_the_levels)


def _in_litert(content, image):
    """What a file gives, of pixels or, like `straight`, of the levels -128 to 127."""
    interpreter = open_interpreter(content)
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    pixels = image if given["dtype"] is np.uint8 else image - 128
    interpreter.set_tensor(given["index"], pixels.astype(given["dtype"]))
    interpreter.invoke()
    scale, zero = result["quantization"]
    return (interpreter.get_tensor(result["index"]).astype(np.float32) - zero) * np.float32(scale)


def _changed(content, change) -> bytes:
    model = unpack(content)
    change(model)
    return pack(model)


def _forget_names(model):
    for number, tensor in enumerate(model.subgraphs[0].tensors):
        tensor.name = f"t{number}".encode()


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["straight", "content"])
def test_eight_bits_become_a_model(kind, images, tmp_path, request):
    """From the levels of pixels on, and with operations that scale pixels in eight bits."""
    straight, path = request.getfixturevalue(kind), tmp_path / "eight bits.tflite"
    path.write_bytes(straight)
    config, model = load(path)
    assert config == dataclasses.replace(CONFIG, quantize_as_file=True)
    rounded_config, rounded = load(path, quantize_delay_step=0)
    assert rounded_config.quantized and rounded_config.quantize_as_file
    for image in images:
        expected = _in_litert(straight, image)
        assert np.abs(model(image, training=False) - expected).mean() < 0.05 * np.ptp(expected)
        # The very same numbers, at the pixels that the logits of the file belong to.
        np.testing.assert_array_equal(rounded(image, training=False)[:, ::STRIDE, ::STRIDE], expected)
    segmenter = Segmenter(path, PredictConfig(runtime="tf", resize="none"))
    assert np.array_equal(segmenter(images[0][0].astype(np.uint8)).classes, predict(model, images[0], runtime="tf")[0])
    # Without names, the operations alone tell what is what.
    path.write_bytes(_changed(straight, _forget_names))
    for options, named in (({}, model), ({"quantize_delay_step": 0}, rounded)):
        nameless_config, nameless = load(path, **options)
        assert nameless_config == named.config
        expected = variable_map(named)
        for name, variable in variable_map(nameless).items():
            np.testing.assert_array_equal(variable, expected.pop(name), err_msg=name)
        assert not expected


def test_corners_that_are_not_aligned(straight, images, tmp_path):
    path = tmp_path / "unaligned.tflite"
    kind = schema().BuiltinOptions.ResizeBilinearOptions

    def unalign(model):
        for operation in model.subgraphs[0].operators:
            if operation.builtinOptionsType == kind:
                operation.builtinOptions.alignCorners = False

    changed = _changed(straight, unalign)
    path.write_bytes(changed)
    config, model = load(path, quantize_delay_step=0)
    assert not config.align_corners
    for image in images:
        # No power of 2, so that LiteRT's weights of such a resize, of 10 bits, are other ones than ours.
        expected, aligned = (resize_unaligned(_in_litert(one, image), SIZE) for one in (changed, straight))
        error = np.abs(model(image, training=False) - expected).mean()
        assert error < 0.015 * np.ptp(expected) and error < np.abs(aligned - expected).mean()


def test_operations_on_pixels_that_are_not_known_are_told(content, tmp_path):
    path = tmp_path / "other.tflite"

    def negate(model):
        (graph,) = model.subgraphs
        code = schema().OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema().BuiltinOperator.NEG
        model.operatorCodes.append(code)
        subtraction = graph.operators[2]
        subtraction.opcodeIndex, subtraction.inputs = len(model.operatorCodes) - 1, subtraction.inputs[:1]
        subtraction.builtinOptions, subtraction.builtinOptionsType = None, schema().BuiltinOptions.NONE

    path.write_bytes(_changed(content, negate))
    notes = open_model(path).notes
    assert sum("operations on pixels are not known" in note for note in notes) == 1
    path.write_bytes(content)
    assert not any("not known" in note for note in open_model(path).notes)


@pytest.mark.heavy
def test_what_is_made_of_it_gives_the_files_numbers(straight, images, tmp_path):
    """A .keras file, and the graphs of exports: whatever runs them."""
    path = tmp_path / "eight.tflite"
    path.write_bytes(straight)
    _, model = load(path, quantize_delay_step=0)
    expected = _in_litert(straight, images[0])
    model.save(tmp_path / "eight.keras")
    _, saved = load(tmp_path / "eight.keras")
    found = {"keras": saved(images[0], training=False)}
    for target in ("tensorflow", "onnx", "tflite"):
        graph = graph_of(model, (1, *SIZE, 3), target=target, dtype=np.float32, outputs=("logits",))
        found[target] = as_function(graph, ("logits",))(tf.constant(images[0]))["SemanticLogits"]
    for name, logits in found.items():
        np.testing.assert_array_equal(np.asarray(logits)[:, ::STRIDE, ::STRIDE], expected, err_msg=name)


@pytest.mark.heavy
def test_the_ranges_go_through_a_model_directory(content, images, tmp_path):
    path = tmp_path / "eight.tflite"
    path.write_bytes(content)
    loaded = open_model(path)
    assert any("--quantize_delay_step=0" in note for note in loaded.notes)
    save_model(tmp_path / "model", loaded.model, loaded.receipt, card=loaded.card, state=loaded.state)
    _, direct = load(path, quantize_delay_step=0)
    _, kept = load(tmp_path / "model", quantize_delay_step=0)
    np.testing.assert_array_equal(kept(images[0], training=False), direct(images[0], training=False))
    _, plain = load(tmp_path / "model")
    np.testing.assert_array_equal(plain(images[0], training=False), loaded.model(images[0], training=False))


def test_kernels_and_biases_are_the_files_numbers(content, tmp_path):
    path = tmp_path / "eight.tflite"
    path.write_bytes(content)
    (graph,) = unpack(content).subgraphs
    kernels = [tensor for tensor in graph.tensors if tensor.type == schema().TensorType.INT8 and len(tensor.shape) == 4]
    scales = {len(tensor.quantization.scale) for tensor in kernels if tensor.quantization is not None}
    assert max(scales) > 1  # a scale for each channel
    with open_source(path) as source:
        kernel = source.read("logits/semantic/weights")
        step = np.abs(kernel).max((0, 1, 2)) / 127
        np.testing.assert_allclose(kernel / step, np.rint(kernel / step), atol=1e-3)
        assert source.read("logits/semantic/biases").dtype == np.float32
        assert source.read("MobilenetV2/Conv/act_quant/max") > source.read("MobilenetV2/Conv/act_quant/min") == 0


def _compiled(model):
    code = model.operatorCodes[0]
    code.builtinCode, code.deprecatedBuiltinCode = schema().BuiltinOperator.CUSTOM, schema().BuiltinOperator.CUSTOM
    code.customCode = b"edgetpu-custom-op"


def _without_a_scale(model):
    tensor = next(
        t for t in model.subgraphs[0].tensors if t.quantization is not None and t.quantization.scale is not None
    )
    tensor.quantization.scale = [float("nan")] * len(tensor.quantization.scale)


def _of_another_order(model):
    model.subgraphs[0].operators.reverse()


def _of_another_input(model):
    model.subgraphs[0].tensors[int(model.subgraphs[0].inputs[0])].shape = [1, 65, 65, 4]


def _less(model):
    model.subgraphs[0].operators = model.subgraphs[0].operators[:-3]
    model.subgraphs[0].outputs = model.subgraphs[0].operators[-1].outputs


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_compiled, "compiled for the Edge TPU.*expected the .tflite that was given to the compiler"),
        (_without_a_scale, "scales that are not numbers above 0"),
        (_of_another_order, "out of order"),
        (_of_another_input, r"takes \[1, 65, 65, 4\]; expected images"),
        (_less, "its operations are not those of a network of the release"),
    ],
)
def test_what_cannot_be_read(change, expected, content, tmp_path):
    path = tmp_path / "other.tflite"
    path.write_bytes(_changed(content, change))
    with pytest.raises(DeepLabError, match=expected) as caught:
        open_model(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_truncated_anywhere_is_one_line(content, tmp_path):
    path = tmp_path / "short.tflite"
    for share in range(1, 12):
        path.write_bytes(content[: len(content) * share // 12])
        with pytest.raises(DeepLabError, match="short.tflite") as caught:
            open_model(path)
        assert "\n" not in str(caught.value)
    generator = np.random.default_rng(0)
    for _ in range(40):  # bytes that are something else
        broken = bytearray(content)
        for place in generator.integers(8, len(broken) // 4, 60):
            broken[place] = int(generator.integers(256))
        path.write_bytes(bytes(broken))
        try:
            open_source(path).__enter__()
        except DeepLabError as error:
            assert "\n" not in str(error)
