"""Classes from few interpolated values: those of the plain way, pixel by pixel."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.layers import resize_bilinear
from deeplab_tf.upsampling import upsampled_classes


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
