"""Google's 8-bit files against themselves in LiteRT, on photographs of VOC's val list."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.weights.load import load

_SHOWN = (0, 8, 10, 12, 13, 15, 17)  # background, cat, cow, dog, horse, person, sheep


def _pairs(shared, count):
    folder = shared / "real" / "voc_val"
    names = sorted(path.stem for path in (folder / "JPEGImages").glob("*.jpg"))
    for name in names[:: len(names) // count][:count]:
        with Image.open(folder / "JPEGImages" / f"{name}.jpg") as image:
            pixels = np.asarray(image.convert("RGB"))
        yield pixels, np.asarray(Image.open(folder / "SegmentationClass" / f"{name}.png"))


def _in_litert(path, size, resolver=tf.lite.experimental.OpResolverType.AUTO):
    interpreter = tf.lite.Interpreter(model_content=path.read_bytes(), experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

    def classes(pixels):
        padded = np.full((1, *size, 3), 127, np.uint8)
        padded[0, : pixels.shape[0], : pixels.shape[1]] = pixels
        interpreter.set_tensor(given["index"], padded)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])[0, : pixels.shape[0], : pixels.shape[1]]

    return classes


def _miou(counts):
    shown = list(_SHOWN)
    both, either = np.diag(counts)[shown], (counts.sum(0) + counts.sum(1) - np.diag(counts))[shown]
    return float(np.mean(both[either > 0] / either[either > 0]))


def _compared(path, shared, count):
    """Returns the share of pixels in which others agree with the file in LiteRT as it runs by default, and all mIoU.

    The others are LiteRT's own kernels, the file read as a network of float32, and that in its integers.
    """
    config, plain = load(path)
    _, rounded = load(path, quantize_delay_step=0)
    own = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    runs = [_in_litert(path, config.crop_size), _in_litert(path, config.crop_size, own)]
    runs += [lambda pixels, m=model: predictor_of(m).labels(pixels[None])[0] for model in (plain, rounded)]
    same, pixels_seen, counts = np.zeros(4), 0, np.zeros((4, 256, 256))
    for pixels, labels in _pairs(shared, count):
        classes = [run(pixels) for run in runs]
        pixels_seen += labels.size
        scored = labels != 255
        for number, found in enumerate(classes):
            same[number] += (found == classes[0]).sum()
            np.add.at(counts[number], (labels[scored], found[scored]), 1)
    return same[1:] / pixels_seen, [_miou(one[:21, :21]) for one in counts]


@pytest.mark.heavy
def test_voc_in_eight_bits(shared):
    """Read in integers the file gives its own pixels; LiteRT's own two ways of running it agree in 98 % of them."""
    (own, plain, rounded), scores = _compared(shared / "real" / "deeplabv3_mnv2_pascal_quant.tflite", shared, 5)
    assert plain > 0.97 and rounded == 1.0 > own, (own, plain, rounded)
    assert scores[2] > scores[0] - 0.005


@pytest.mark.heavy
def test_ade20k_in_eight_bits(shared):
    """Its resizes do not align corners. LiteRT's own two ways agree in 93 % of the pixels of these photographs."""
    (own, plain, rounded), _ = _compared(shared / "real" / "deeplabv3_mnv2_ade20k_uint8.tflite", shared, 4)
    assert plain > own and rounded == 1.0, (own, plain, rounded)
