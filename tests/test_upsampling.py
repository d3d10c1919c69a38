"""Classes from few interpolated values, and from strips in a graph: those of the plain way, pixel by pixel."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.inference.tflite.convert import LiteModel, convert
from deeplab_tf.ops.resizing import resize_bilinear
from deeplab_tf.ops.upsampling import compile_classes, plain_classes, strip_classes, upsampled_classes


def plainly(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return tf.argmax(resize_bilinear(logits, size), axis=-1, output_type=tf.int32).numpy()


def smooth(shape: tuple[int, int], classes: int, seed: int, batch: int = 1) -> np.ndarray:
    """Logits with regions: most neighbours have the same class."""
    coarse = np.random.default_rng(seed).normal(size=(batch, 4, 5, classes)).astype(np.float32)
    return resize_bilinear(coarse, shape).numpy()


@pytest.mark.parametrize("stride", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("shape", [(17, 33), (9, 9), (2, 40)])
def test_the_same_classes(shape, stride):
    logits, size = smooth(shape, 21, stride, batch=2), tuple((side - 1) * stride + 1 for side in shape)
    found = upsampled_classes(logits, size)
    assert (found.dtype, found.shape) == (np.int32, (2, *size))
    np.testing.assert_array_equal(found, plainly(logits, size))


def test_noise_and_flat_maps():
    noise = np.random.default_rng(0).normal(size=(1, 20, 21, 6)).astype(np.float32)
    np.testing.assert_array_equal(upsampled_classes(noise, (153, 161)), plainly(noise, (153, 161)))
    flat = np.zeros((1, 9, 9, 3), np.float32)
    flat[..., 2] = 1
    assert (upsampled_classes(flat, (65, 65)) == 2).all()
    assert (upsampled_classes(np.zeros_like(flat), (65, 65)) == 0).all()  # of equals the first, as argmax


def test_a_class_that_leads_at_no_corner_may_lead_between():
    logits = np.array([[[4.0, 0.0, 3.0], [0.0, 4.0, 3.0]], [[4.0, 0.0, 3.0], [0.0, 4.0, 3.0]]], np.float32)[None]
    wide = np.repeat(np.repeat(logits, 2, axis=1), 4, axis=2)  # borders are few, so the short way is taken
    found = upsampled_classes(wide, (25, 57))
    np.testing.assert_array_equal(found, plainly(wide, (25, 57)))
    assert set(np.unique(found)) == {0, 1, 2}


@pytest.mark.parametrize("size", [(100, 129), (97, 98), (26, 33), (129, 257), (49, 65)])
def test_any_other_size_is_resized_plainly(size):
    logits = smooth((9, 17), 5, 3)
    np.testing.assert_array_equal(upsampled_classes(logits, size), plainly(logits, size))


def test_one_row_of_logits():
    logits = smooth((1, 9), 5, 4)
    np.testing.assert_array_equal(upsampled_classes(logits, (1, 129)), plainly(logits, (1, 129)))


# ---- in a graph


def in_strips(logits: np.ndarray, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The classes by `strip_classes`, in TensorFlow and in LiteRT."""
    run = tf.function(lambda x: strip_classes(x, size), input_signature=[tf.TensorSpec(logits.shape)])
    return {"TensorFlow": run(logits).numpy(), "LiteRT": LiteModel(convert(run.get_concrete_function()))(logits)[0]}


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("shape", "stride", "classes"),
    [((9, 17), 16, 21), ((17, 9), 8, 2), ((2, 3), 32, 150), ((33, 5), 4, 19), ((131, 9), 2, 1)],
)
def test_strips_give_the_same_classes(shape, stride, classes):
    size = tuple((side - 1) * stride + 1 for side in shape)
    for logits in (smooth(shape, classes, stride), np.random.default_rng(1).normal(size=(1, *shape, classes)) * 30):
        logits = logits.astype(np.float32)
        expected = plainly(logits, size)
        for name, found in in_strips(logits, size).items():
            assert (found.dtype, found.shape) == (np.int32, (1, *size)), name
            # LiteRT multiplies and adds in one rounding.
            assert np.mean(found != expected) <= (0 if name == "TensorFlow" else 1e-4), name


def test_of_equals_strips_give_the_first():
    logits = np.zeros((1, 5, 9, 7), np.float32)
    logits[..., 2] = logits[..., 5] = 1.5
    logits[:, :3, :, 3] = 1.5 + 2**-23
    logits[:, 3:, 4:] = -1e-20
    expected = plainly(logits, (33, 65))
    assert set(np.unique(expected)) == {0, 2, 3}
    for name, found in in_strips(logits, (33, 65)).items():
        np.testing.assert_array_equal(found, expected, name)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((9, 9), (65, 129)), ((9, 9), (97, 97)), ((1, 9), (1, 65)), ((9, 9), (9, 9)), ((33, 4097), (513, 65537))],
)
def test_what_strips_do_not_fit(shape, size):
    """Strides that differ, that are no power of two, one row or no stride at all, a strip too large for the cache."""
    assert strip_classes(tf.zeros((1, *shape, 2)), size) is None


# ---- in a loop by XLA


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 17, 17, 21), (257, 257)), ((2, 9, 17, 6), (33, 65)), ((1, 2, 2, 3), (9, 9))]
)
def test_a_compiled_loop_gives_the_same_bits(shape, size):
    """Also where logits are equal, or nearly: products are rounded before they are added."""
    noise = np.random.default_rng(3).normal(size=shape)
    for logits in (noise, np.round(noise * 4) * 0.37, np.zeros(shape)):
        logits = logits.astype(np.float32)
        found = compile_classes(shape, size)(logits, size)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, plainly(logits, size))
        np.testing.assert_array_equal(plain_classes(logits, size), plainly(logits, size))
