"""The comparison of an exported file with the Keras model: figures against NumPy, and verdicts."""

import dataclasses
import json

import numpy as np
import PIL.Image
import pytest
from golden import golden_image
from networks import TINY, lively

from deeplab_tf.config import ExportConfig, Inference
from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.errors import DeepLabError
from deeplab_tf.exporting.certificate import (
    ComparedImage,
    compare,
    compared_images,
    file_answer,
    fitted,
    keras_answer,
    latency,
    machine,
    require_agreement,
    require_portable,
    versions,
    write_certificate,
)
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.ops.metrics import confusion_matrix, mean_iou
from deeplab_tf.weights.model_directory import ModelCard

CARD = ModelCard(TINY)


@pytest.fixture(scope="module")
def model():
    return lively(TINY)


def picture(height=40, width=50, key="certificate"):
    return golden_image(key, height, width)


# ---- pictures


def test_drawn_shapes_are_the_held_out_ones():
    shapes = dataclasses.replace(CARD, dataset="shapes")
    found = list(compared_images(ExportConfig(num_images=5), shapes, None))
    assert [example.size for example in found] == [(129, 129), (128, 129), (129, 128), (128, 128), (129, 129)]
    image, label = shapes_example(0, FIRST_INDEX["test"] + 2, height=129, width=128)
    assert np.array_equal(found[2].image, image) and np.array_equal(found[2].label, label)


def test_drawn_shapes_of_the_one_size_of_a_file():
    found = list(compared_images(ExportConfig(num_images=2), CARD, (65, 97)))
    assert [example.image.shape for example in found] == [(65, 97, 3)] * 2
    assert not any(example.label is not None for example in found)  # this model's classes are no shapes


def test_pictures_are_padded_and_shrunk_never_enlarged():
    image = picture()
    same = fitted(image, CARD, None)
    assert same.image is image and same.size == (40, 50)
    padded = fitted(image, CARD, (45, 60))
    assert padded.size == (40, 50) and np.array_equal(padded.image[:40, :50], image)
    assert np.all(padded.image[40:] == 127) and np.all(padded.image[:, 50:] == 127)
    small = fitted(image, CARD, (20, 60))
    assert small.size == (20, 25) and small.image.shape == (20, 60, 3)
    large = fitted(picture(600, 1200), CARD, None)
    assert large.size == (256, 513)
    crop = dataclasses.replace(CARD, config=dataclasses.replace(TINY, crop_size=(600, 1200)))
    assert fitted(picture(600, 1200), crop, None).size == (600, 1200)


@pytest.fixture
def folders(tmp_path):
    """Pictures and labels of a data set with six classes."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for number in range(3):
        PIL.Image.fromarray(picture(key=str(number))).save(tmp_path / f"images/{number}.png")
        label = (np.arange(2000).reshape(40, 50) // 300 % 6).astype(np.uint8)
        PIL.Image.fromarray(label).save(tmp_path / f"labels/{number}.png")
    return tmp_path


def test_own_pictures_and_labels(folders):
    options = ExportConfig(images=(str(folders / "images"),), labels=str(folders / "labels"), num_images=2)
    first, second = compared_images(options, CARD, None)
    assert np.array_equal(first.image, picture(key="0")) and np.array_equal(second.image, picture(key="1"))
    assert first.label.shape == (40, 50) and set(np.unique(first.label)) == set(range(6))
    (shrunk, _) = compared_images(options, CARD, (20, 50))
    assert shrunk.label.shape == shrunk.size == (20, 25)
    of_ranges = ExportConfig(representative_images=(str(folders / "images" / "1.png"),))
    (only,) = compared_images(of_ranges, CARD, None)
    assert np.array_equal(only.image, second.image)


def test_wrong_labels(folders):
    options = ExportConfig(images=(str(folders / "images"),), labels=str(folders / "labels"))
    PIL.Image.fromarray(np.zeros((4, 5), np.uint8)).save(folders / "labels/1.png")
    with pytest.raises(DeepLabError, match=r"1.png: \(4, 5\) pixels, but .*1.png has \(40, 50\)"):
        list(compared_images(options, CARD, None))
    (folders / "labels/1.png").unlink()
    with pytest.raises(DeepLabError, match="1.png"):
        list(compared_images(options, CARD, None))


@pytest.mark.heavy
def test_a_label_out_of_range(folders, model):
    PIL.Image.fromarray(np.full((40, 50), 9, np.uint8)).save(folders / "labels/0.png")
    options = ExportConfig(images=(str(folders / "images"),), labels=str(folders / "labels"))
    with pytest.raises(DeepLabError, match="9"):
        compare(model, right(model), compared_images(options, CARD, None), CARD, options)


# ---- figures


def right(model, *, probabilities=False):
    """A file that answers as the model does."""

    def run(images):
        found = {"predictions": predictor_of(model).labels(images)}
        return {**found, "probabilities": predictor_of(model).probabilities(images)} if probabilities else found

    return run


def test_a_file_that_agrees(model):
    pictures = [ComparedImage(picture(), (40, 50)), ComparedImage(picture(33, 34, "b"), (33, 34))]
    figures = compare(model, right(model, probabilities=True), pictures, CARD, ExportConfig())
    assert figures == {
        "images": 2,
        "pixels": 40 * 50 + 33 * 34,
        "agreement": 1.0,
        "largest_probability_difference": 0.0,
        "largest_margin_of_a_changed_pixel": 0.0,
        "miou": None,
    }


def test_a_file_that_differs(model):
    """The figures by another way."""
    image, options = picture(), ExportConfig()
    truth, probabilities = keras_answer(model, image, options)
    changed, scores = truth.copy(), probabilities.copy()
    changed[:4, :5] = (truth[:4, :5] + 1) % 6
    scores[10, 10, 2] += 0.125
    changed[30:], scores[30:] = 5, 0.0  # outside of the picture itself
    label = np.full((30, 50), 255, np.uint8)
    label[:20] = truth[:20]
    example = ComparedImage(image, (30, 50), label)
    run = lambda images: {"predictions": changed[None], "probabilities": scores[None]}  # noqa: E731
    figures = compare(model, run, [example], CARD, options)
    assert figures["pixels"] == 1500 and figures["agreement"] == 1 - 20 / 1500
    assert figures["largest_probability_difference"] == pytest.approx(0.125)
    margins = [
        probabilities[r, c, truth[r, c]] - probabilities[r, c, changed[r, c]] for r in range(4) for c in range(5)
    ]
    assert figures["largest_margin_of_a_changed_pixel"] == pytest.approx(max(margins))
    expected = mean_iou(confusion_matrix(label, changed[:30], 6))
    assert figures["miou"] == {"keras": 1.0, "exported": pytest.approx(expected)} and expected < 1


@pytest.mark.heavy
def test_what_a_file_may_answer(model):
    """Classes, probabilities or logits, of the picture's size or lower: classes and probabilities come of all."""
    image = picture(65, 97)
    labels, probabilities = keras_answer(model, image, ExportConfig())
    logits = model(image[None].astype(np.float32), training=False).numpy()
    for answer in ({"logits": logits}, {"probabilities": probabilities[None]}, {"predictions": labels[None]}):
        found, scores = file_answer(lambda images, answer=answer: dict(answer), image)
        assert np.mean(found == labels) >= 0.9999
        if "predictions" in answer:
            assert scores is None
        else:
            np.testing.assert_allclose(scores, probabilities, atol=5e-5)
    late = lively(dataclasses.replace(TINY, prediction_with_upsampled_logits=False))
    labels, probabilities = keras_answer(late, image, ExportConfig())
    logits = late(image[None].astype(np.float32), training=False).numpy()
    found, scores = file_answer(lambda images: {"logits": logits}, image, upsampled_logits=False)
    assert np.mean(found == labels) >= 0.9999
    np.testing.assert_allclose(scores, probabilities, atol=5e-5)


def test_scales_flips_and_resizing_of_the_keras_model(model):
    image = picture()
    options = ExportConfig(inference_scales=(0.5, 1.0), add_flipped_images=True)
    labels, probabilities = keras_answer(model, image, options)
    expected = predictor_of(model).probabilities(image[None], Inference((0.5, 1.0), flip=True))[0]
    assert np.array_equal(probabilities, expected) and np.array_equal(labels, expected.argmax(-1))
    labels, probabilities = keras_answer(model, image, ExportConfig(min_resize_value=80))
    assert labels.shape == (40, 50) and probabilities.shape == (40, 50, 6)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)


def test_latency_is_of_one_picture():
    calls = []
    found = latency(lambda images: calls.append(images.shape), picture())
    assert found["size"] == [40, 50] and found["median_ms"] >= 0
    assert set(calls) == {(1, 40, 50, 3)} and len(calls) == found["runs"] + 1 >= 4


def test_what_it_was_made_with():
    assert "cores" in machine()
    found = versions(("pillow", "no-such-package"))
    assert {"python", "tensorflow", "keras", "numpy", "pillow", "deeplab_tf"} == set(found)


# ---- verdicts


def test_the_verdict():
    figures = {"agreement": 0.9995, "images": 3}
    require_agreement(figures, ExportConfig(precision="float16"), "a.tflite")
    require_agreement(figures, ExportConfig(min_agreement=0.9995), "a.onnx")
    with pytest.raises(DeepLabError) as caught:
        require_agreement(figures, ExportConfig(), "a.onnx")
    text = str(caught.value)
    assert text.startswith("a.onnx: gives the Keras model's class in 99.950 % of the pixels of 3 images; expected at")
    assert "99.99 %" in text and "--min_agreement" in text and "Nothing was written" in text
    eight = ExportConfig(precision="int8", min_agreement=1.0)
    with pytest.raises(DeepLabError, match="more --representative_images"):
        require_agreement(figures, eight, "a.tflite")


@pytest.mark.parametrize("name", ["SpaceToBatchND", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "FlexSpaceToBatchND"])
def test_operations_that_other_runtimes_refuse(name):
    require_portable({"CONV_2D": 1, "Conv2D": 3, "RESIZE_BILINEAR": 2}, "a.tflite")
    with pytest.raises(DeepLabError, match=f"a.tflite: holds {name}, which other runtimes refuse"):
        require_portable({"CONV_2D": 1, name: 2}, "a.tflite")


def test_a_certificate_is_json(tmp_path):
    write_certificate({"agreement": 1.0, "size": (1, None)}, tmp_path / "certificate.json")
    assert json.loads((tmp_path / "certificate.json").read_text()) == {"agreement": 1.0, "size": [1, None]}


def test_the_network_runs_once_for_classes_and_probabilities(model, monkeypatch):
    backend, runs = predictor_of(model).backend, []
    logits = backend.logits
    monkeypatch.setattr(backend, "logits", lambda images, config: runs.append(images.shape) or logits(images, config))
    image = golden_image("once", 33, 33)
    options = ExportConfig(inference_scales=(0.5, 1.0), add_flipped_images=True)
    for choice, expected in ((ExportConfig(), 1), (options, 4)):
        runs.clear()
        labels, probabilities = keras_answer(model, image, choice)
        assert len(runs) == expected
        assert np.array_equal(labels, predictor_of(model).labels(image[None], choice.inference)[0])
        assert np.array_equal(probabilities, predictor_of(model).probabilities(image[None], choice.inference)[0])
