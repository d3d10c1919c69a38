"""Resizing in training: by matrix where XLA's own op errs, and labels to the nearest pixel."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.layers import resize_bilinear, resize_bilinear_by_matrix, resize_nearest


@pytest.mark.parametrize("sizes", [((9, 9), (33, 33)), ((17, 9), (321, 65)), ((33, 1), (9, 4)), ((5, 7), (1, 7))])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_by_matrix_is_the_op(sizes, jit_compile):
    old, new = sizes
    maps = tf.constant(np.random.default_rng(0).standard_normal((2, *old, 3)).astype(np.float32))

    def value_and_gradient(resize):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            value = resize(maps, new)
            loss = tf.reduce_sum(value**2)
        return value, tape.gradient(loss, maps)

    found = tf.function(lambda: value_and_gradient(resize_bilinear_by_matrix), jit_compile=jit_compile)()
    for some, other in zip(found, value_and_gradient(resize_bilinear), strict=True):
        np.testing.assert_allclose(some, other, rtol=1e-4, atol=1e-4)


def test_by_matrix_keeps_the_type():
    maps = tf.ones([1, 3, 3, 1], tf.bfloat16)
    assert resize_bilinear_by_matrix(maps, (5, 5)).dtype == tf.bfloat16


@pytest.mark.parametrize(
    ("size", "columns"), [(4, [0, 2, 3, 5]), (3, [0, 3, 5]), (11, [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])]
)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_labels_take_the_nearest_pixel_and_halves_go_up(size, columns, jit_compile):
    labels = tf.constant(np.stack([np.arange(6)] * 2)[None].astype(np.int32))
    resized = tf.function(lambda: resize_nearest(labels, (2, size)), jit_compile=jit_compile)()
    assert resized.dtype == tf.int32
    np.testing.assert_array_equal(resized, [[columns] * 2])
