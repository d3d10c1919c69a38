"""Resizing: sizes, the layer, by matrix where XLA's own op errs in training, labels to the nearest pixel."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.network.layers import ResizeBilinear
from deeplab_tf.ops.resizing import (
    resize_bilinear,
    resize_bilinear_by_matrix,
    resize_nearest,
    resize_unaligned,
    scale_dimension,
)


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        *((321, scale, side) for scale, side in ((0.5, 161), (0.6, 193), (0.75, 241))),
        *((513, 1 / stride, side) for stride, side in ((4, 129), (8, 65), (16, 33), (32, 17))),
        *((513, scale, side) for scale, side in ((0.5, 257), (0.75, 385), (1.25, 641), (1.5, 769), (1.75, 897))),
        *((769, 1 / 16, 49), (769, 1 / 32, 25), (1025, 1 / 16, 65), (1025, 1 / 32, 33)),
        *((2049, 1 / 16, 129), (2049, 1 / 32, 65)),
    ],
)
def test_scale_dimension(size, scale, expected):
    assert scale_dimension(size, scale) == expected
    assert int(scale_dimension(tf.constant(size), scale)) == expected


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize with aligned corners: output i lies at i * (in - 1) / (out - 1), or at 0 where out is 1."""

    def places(old: int, new: int):
        at = np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 0.0)
        low = np.minimum(at.astype(int), old - 1)
        return low, np.minimum(low + 1, old - 1), at - low

    top, bottom, down = places(image.shape[1], height)
    left, right, across = places(image.shape[2], width)
    rows = image[:, top] * (1 - down)[:, None, None] + image[:, bottom] * down[:, None, None]
    return rows[:, :, left] * (1 - across)[:, None] + rows[:, :, right] * across[:, None]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((5, 9), (9, 5)),
        ((33, 17), (129, 65)),
        ((6, 6), (4, 11)),
        ((7, 4), (1, 1)),
        ((1, 1), (3, 5)),
        ((8, 10), (8, 10)),
    ],
)
def test_resize_aligns_the_corners(old, new):
    image = np.random.default_rng(0).standard_normal((2, *old, 3)).astype(np.float32)
    value = ResizeBilinear(size=new)(image)
    np.testing.assert_allclose(value, resized(image.astype(np.float64), *new), atol=2e-6)


@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0, 1 / 16, 0.75])
def test_resize_follows_a_reference(scale):
    maps, reference = (
        np.random.default_rng(1).standard_normal((1, 9, 7, 2)).astype(np.float32),
        np.zeros((1, 65, 98, 3)),
    )
    size = tuple(scale_dimension(side, scale) for side in (65, 98))
    layer = ResizeBilinear(scale=scale)
    np.testing.assert_array_equal(layer([maps, reference]), ResizeBilinear(size=size)(maps))
    assert layer.compute_output_shape([maps.shape, reference.shape]) == (1, *size, 2)
    assert layer.compute_output_shape([(None, None, None, 2), (None, None, 98, 3)]) == (None, None, size[1], 2)
    copy = ResizeBilinear.from_config(layer.get_config())
    np.testing.assert_array_equal(copy([maps, reference]), layer([maps, reference]))


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


@pytest.mark.parametrize("size", [(32, 20), (17, 23), (8, 5), (4, 3)])
def test_resize_without_aligned_corners_is_tensorflows(size):
    maps = np.random.default_rng(0).normal(size=(2, 8, 5, 3)).astype(np.float32)
    expected = tf.raw_ops.ResizeBilinear(images=maps, size=size, align_corners=False, half_pixel_centers=False)
    np.testing.assert_array_equal(resize_unaligned(maps, size), expected)
