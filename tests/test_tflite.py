"""TFLite files of a small network: every precision, what goes in and comes out, and what is in the file."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from golden import golden_image
from networks import TINY, lively
from test_inference_graph import graph_of

from deeplab_tf.config import Inference
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.graph import as_function
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.inference.tflite import convert
from deeplab_tf.ops.resizing import resize_bilinear

SIZE = (65, 97)
CONFIG = dataclasses.replace(TINY, output_stride=8)


@pytest.fixture(scope="module")
def model():
    return lively(dataclasses.replace(CONFIG, crop_size=SIZE))


@pytest.fixture(scope="module")
def images():
    return [golden_image(f"lite{number}", *SIZE)[None] for number in range(4)]


@pytest.fixture(scope="module")
def files(model, images):
    """What is asked for -> the bytes of the file, each made once."""
    made = {}

    def file(precision="float32", *, upsample="argmax", uint8_io=True) -> bytes:
        key = (precision, upsample, uint8_io)
        if key not in made:
            outputs = ("predictions",) if upsample == "argmax" else ("logits",)
            whole = precision == "int8"
            dtype = tf.float32 if whole or not uint8_io else tf.uint8
            options = {"format": "tflite", "precision": precision, "export_upsample": upsample, "outputs": outputs}
            graph_def = graph_of(model, (1, *SIZE, 3), target="tflite", dtype=dtype, **options)
            function = as_function(graph_def, outputs).get_concrete_function()
            floats = [image.astype(np.float32) for image in images] if whole else ()
            made[key] = convert.convert(function, precision=precision, uint8_io=uint8_io, representative=floats)
        return made[key]

    return file


def agreement(file: bytes, model, images) -> float:
    run = convert.LiteModel(file)
    return np.mean([run(image)[0] == predictor_of(model).labels(image) for image in images])


@pytest.mark.heavy
def test_float32(files, model, images):
    assert agreement(files(), model, images) >= 0.9999
    assert convert.LiteModel(files()).size == SIZE


def test_float16(files, model, images):
    # The classes of random weights lie close to each other; test_export.py has real ones.
    assert agreement(files("float16"), model, images) >= 0.995
    assert len(files("float16")) < 0.6 * len(files())


def test_eight_bits(files, model, images):
    assert agreement(files("dynamic"), model, images) >= 0.9
    assert agreement(files("int8"), model, images) >= 0.85
    assert len(files("dynamic")) < 0.5 * len(files())


@pytest.mark.heavy
@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("uint8_io", [True, False])
def test_what_goes_in_and_comes_out(precision, uint8_io, files):
    def details(upsample):
        interpreter = tf.lite.Interpreter(model_content=files(precision, upsample=upsample, uint8_io=uint8_io))
        (given,), (found,) = interpreter.get_input_details(), interpreter.get_output_details()
        return given, found

    given, labels = details("argmax")
    assert given["dtype"] is (np.uint8 if uint8_io else np.float32) and labels["dtype"] is np.int32
    assert tuple(given["shape"]) == (1, *SIZE, 3) and tuple(labels["shape"]) == (1, *SIZE)
    if precision == "int8" and uint8_io:
        assert given["quantization"] == (1.0, 0)  # a pixel is its own value
    _, logits = details("none")
    assert logits["dtype"] is (np.uint8 if uint8_io and precision == "int8" else np.float32)
    assert tuple(logits["shape"]) == (1, 9, 13, 6)


@pytest.mark.parametrize("uint8_io", [True, False])
def test_logits(uint8_io, files, model, images):
    exact = model(images[0].astype(np.float32), training=False).numpy()
    (found,) = convert.LiteModel(files(upsample="none", uint8_io=uint8_io))(images[0])
    np.testing.assert_allclose(found, exact, atol=1e-3)
    (coarse,) = convert.LiteModel(files("int8", upsample="none", uint8_io=uint8_io))(images[0])
    assert coarse.dtype == np.float32
    assert np.corrcoef(coarse.ravel(), exact.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic", "int8"])
def test_the_scores_behind_the_classes(precision, files, images):
    labels, logits = convert.LiteModel(convert.with_scores(files(precision)))(images[0])
    assert np.array_equal(labels, convert.LiteModel(files(precision))(images[0])[0])
    assert logits.shape == (1, 9, 13, 6)
    assert np.mean(resize_bilinear(logits, SIZE).numpy().argmax(-1) == labels) >= 0.9995


def test_the_scores_behind_an_argmax(model, images):
    """Averaged probabilities have one at the size of the image."""
    options = {"format": "tflite", "outputs": ("predictions",), "add_flipped_images": True}
    graph_def = graph_of(model, (1, *SIZE, 3), target="tflite", **options)
    file = convert.convert(as_function(graph_def, ("predictions",)).get_concrete_function())
    labels, probabilities = convert.LiteModel(convert.with_scores(file))(images[0])
    assert np.array_equal(probabilities.argmax(-1), labels)
    expected = predictor_of(model).probabilities(images[0], Inference(flip=True))
    np.testing.assert_allclose(probabilities, expected, atol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic", "int8"])
def test_operations(precision, files, tmp_path):
    (tmp_path / "a.tflite").write_bytes(files(precision))
    found = convert.operations(tmp_path / "a.tflite")
    assert found["CONV_2D"] == 15 and found["DEPTHWISE_CONV_2D"] == 5
    # Classes are taken in four strips: the pooled map, the columns and each strip are resized.
    assert "ARG_MAX" not in found and found["RESIZE_BILINEAR"] == 2 + 4 and found["MAX_POOL_2D"] == 2 * 4
    assert found.get("DEQUANTIZE", 0) == {"float16": 15 + 5, "int8": 1}.get(precision, 0)
    assert not {name for name in found if "BATCH" in name or "Flex" in name or "PAD" in name}


def test_operations_of_a_published_file(shared):
    found = convert.operations(shared / "real/deeplabv3_257_mv_gpu.tflite")
    assert (found["DEPTHWISE_CONV_2D"], found["CONV_2D"], found["RESIZE_BILINEAR"]) == (17, 38, 3)


def test_a_refused_graph():
    function = tf.function(lambda x: tf.strings.as_string(x), input_signature=[tf.TensorSpec([1])])
    with pytest.raises(DeepLabError, match="--precision=float32: the TFLite converter refuses the graph"):
        convert.convert(function.get_concrete_function())


def test_an_image_that_cannot_be_read_is_said_as_it_is(model):
    def images():
        raise DeepLabError("photo.jpg: the file is empty")
        yield

    options = {"format": "tflite", "outputs": ("predictions",)}
    graph_def = graph_of(model, (1, *SIZE, 3), target="tflite", dtype=tf.float32, **options)
    with pytest.raises(DeepLabError, match=r"^photo.jpg: the file is empty$"):
        convert.convert(
            as_function(graph_def, ("predictions",)).get_concrete_function(),
            precision="int8",
            representative=images(),
        )
